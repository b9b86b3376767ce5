"""Machines with a systolic array, such as the TPU: the array as data and its operations.

`model` has the records, `tables` reads them from a machine file, `sizes` makes a machine with
another array of one that exists, and `operations.toml` says what such a machine computes.
"""
