"""Measurements of nncc beside its peers; `python -m benchmarks --help`."""
