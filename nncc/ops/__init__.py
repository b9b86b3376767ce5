"""The ops: one declaration each, in a file for each family; `nncc.ops.table` holds them all."""

from nncc.ops import (  # noqa: F401  (importing a family enters its ops into the table)
    contraction,
    convolution,
    elementwise,
    gathering,
    integer_pooling,
    normalization,
    pooling,
    quantization,
    reduction,
    rescaling,
    reshaping,
    shapes,
    slicing,
    structure,
)
