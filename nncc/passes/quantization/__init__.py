"""What the pass `quantize` is made of: ranges from data, scales, and a rule for each op."""
