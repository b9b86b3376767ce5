"""The back end of systolic arrays: Loops become instructions.

`walk` runs through the Loops with literal sizes and gives each operation on memory with its
addresses, `places` keeps the memories, `select` chooses instructions, `order` adds what makes
them wait for each other, `compiler` is the outside.
"""
