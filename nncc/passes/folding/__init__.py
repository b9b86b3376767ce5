"""The rules of the pass `fold`, by what they are about."""
