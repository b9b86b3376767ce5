"""Type inference shared by the op families: broadcasting, axes, windows, with symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nncc.ir.index import Size, floordiv
from nncc.ir.types import DType, TensorType
from nncc.ops.table import Site

Infer = Callable[[Site], Sequence[TensorType]]


def same_as(name: str) -> Infer:
    """The output has the type of the input `name`."""
    return lambda site: (site.input(name),)


def unify(site: Site, a: Size, b: Size) -> Size:
    """The extent of two broadcast axes. Raises VerifyError if they do not fit.

    Two different named sizes do not fit: nothing says that they are equal.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    raise site.error(f"sizes {a} and {b} do not broadcast")


def broadcast(site: Site, shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """The common shape by numpy's rule (aligned right, 1 stretches)."""
    rank = max(len(s) for s in shapes)
    result: list[Size] = [1] * rank
    for shape in shapes:
        for k, extent in enumerate(shape, rank - len(shape)):
            result[k] = unify(site, result[k], extent)
    return tuple(result)


def one_dtype(site: Site, *names: str) -> DType:
    """The dtype that the given inputs share. Raises VerifyError if they differ."""
    types = {n: t for n in names if (t := site.optional(n)) is not None}
    dtypes = {t.dtype for t in types.values()}
    if len(dtypes) > 1:
        given = ", ".join(f"{n} {t.dtype}" for n, t in types.items())
        raise site.error(f"operands must have one dtype, not {given}")
    return dtypes.pop()


def require(site: Site, name: str, *, dtypes: str = "", rank: int | None = None) -> TensorType:
    """The type of an input, checked: dtype among `dtypes` (separated by spaces), rank."""
    type = site.input(name)
    if dtypes and type.dtype.name not in dtypes.split():
        raise site.error(f"operand {name} is {type.dtype}, not {' or '.join(dtypes.split())}")
    if rank is not None and type.rank != rank:
        raise site.error(f"operand {name} has rank {type.rank}, not {rank}")
    return type


FLOATS = "f64 f32 f16 bf16"


def axis(site: Site, value: int, rank: int) -> int:
    """An axis counted from the front. Raises VerifyError if it is not in -rank..rank."""
    if not -rank <= value < rank:
        raise site.error(f"axis {value} is not in {-rank}..{rank - 1}")
    return value % rank


def axes(site: Site, values: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in ascending order. Raises VerifyError on repetition."""
    found = tuple(sorted(axis(site, int(v), rank) for v in values))
    if len(set(found)) < len(found):
        raise site.error(f"axes {list(values)} name one axis twice")
    return found


def known_ints(site: Site, name: str) -> tuple[int, ...]:
    """The value of an integer operand, as ints; VerifyError if it is not known exactly."""
    values = known_sizes(site, name)
    if not all(isinstance(v, int) for v in values):
        raise site.error(f"operand {name} depends on named sizes: {list(values)}")
    return values  # type: ignore[return-value]


def known_sizes(site: Site, name: str) -> tuple[Size, ...]:
    """The value of an integer operand, which may depend on named sizes."""
    require(site, name, dtypes="i64 i32")
    return tuple(site.known(name).reshape(-1).tolist())


def window_extent(
    extent: Size, kernel: int, stride: int, pads: tuple[int, int], dilation: int, ceil: bool
) -> Size:
    """How many positions a window has along one axis, by ONNX's rule.

    With `ceil`, a last window that starts in the padding behind the tensor does not count.
    """
    reach = dilation * (kernel - 1) + 1
    free = extent + pads[0] + pads[1] - reach
    if not ceil:
        return floordiv(free, stride) + 1
    count = floordiv(free + stride - 1, stride) + 1
    if isinstance(count, int) and isinstance(extent, int):
        return count - 1 if (count - 1) * stride >= extent + pads[0] else count
    if stride == 1:
        return count
    return _ceil_symbolic(extent, count, stride, pads[0])


def _ceil_symbolic(extent: Size, count: Size, stride: int, pad: int) -> Size:
    from nncc.ir.index import minimum

    # the last window starts inside: (count-1)*stride <= extent + pad - 1
    return minimum(count, floordiv(extent + pad - 1, stride) + 1)


def object_array(values: Sequence[Size]) -> np.ndarray:
    """A rank-1 array of sizes."""
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array
