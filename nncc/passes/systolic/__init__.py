"""From nests to operations of a systolic array on memory.

`unify` finds the operation that computes a statement, `places` says which rows and lanes an access
reaches, `tiling` cuts the pixels into pieces that fit the accumulators; `products`, `windows` and
`pointwise` write the Loops of a nest with what these say.
"""
