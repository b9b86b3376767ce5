"""Small nests for the tests of schedules and data reuse."""

from nncc.ir.expr import Const, Load, apply
from nncc.ir.index import var
from nncc.ir.nests import Access, Band, Dim, Leaf, Local, Nest, Param, Statement
from nncc.ir.types import TensorType, f32


def param(name, shape, role="in", dtype=f32):
    return Param(name, TensorType(dtype, tuple(shape)), role)


def dims(**extents):
    return tuple(Dim(name, 0, extent) for name, extent in extents.items())


def load(tensor, *indices, other=None):
    return Load(tensor, indices, f32, None if other is None else Const(float(other), f32))


def statement(name, over, target, combine, value, where=()):
    tensor, *indices = target
    return Statement(name, over, (Access(tensor, tuple(indices)),), combine, (value,), where)


def conv(m=4, c=3, e=5, f=5, r=3, s=3, stride=1, dilation=1, pad=1, height=None, width=None):
    """acc: y[m,e,f] sum= x[c, stride*e + dilation*r - pad, …] * w[m,c,r,s], borders guarded."""
    height = height or max(1, stride * (e - 1) + dilation * (r - 1) + 1 - 2 * pad)
    width = width or max(1, stride * (f - 1) + dilation * (s - 1) + 1 - 2 * pad)
    vm, vc, ve, vf, vr, vs = map(var, "mcefrs")
    x = load("x", vc, stride * ve + dilation * vr - pad, stride * vf + dilation * vs - pad, other=0)
    value = apply("mul", x, load("w", vm, vc, vr, vs))
    return Nest(
        "conv",
        (),
        (
            param("x", (c, height, width)),
            param("w", (m, c, r, s)),
            param("y", (m, e, f), "out"),
        ),
        (statement("acc", dims(m=m, e=e, f=f, c=c, r=r, s=s), ("y", vm, ve, vf), "sum", value),),
    )


def matmul(m=4, n=4, k=4):
    """acc: y[m,n] sum= a[m,k] * b[k,n]."""
    vm, vn, vk = map(var, "mnk")
    value = apply("mul", load("a", vm, vk), load("b", vk, vn))
    return Nest(
        "matmul",
        (),
        (param("a", (m, k)), param("b", (k, n)), param("y", (m, n), "out")),
        (statement("acc", dims(m=m, n=n, k=k), ("y", vm, vn), "sum", value),),
    )


def fused(n="N", m=8, c=3, schedule=None, name="fused"):
    """init: t = 0;  acc: t[n,m] sum= x[n,c] * w[m,c];  out: y[n,m] = max(t[n,m], 0)."""
    size = var(n) if isinstance(n, str) else n
    vn, vm, vc = map(var, ("n", "m", "c"))
    outer = dims(n=size, m=m)
    return Nest(
        name,
        (n,) if isinstance(n, str) else (),
        (
            param("x", (size, c)),
            param("w", (m, c)),
            param("y", (size, m), "out"),
            param("t", (size, m), "local"),
        ),
        (
            statement("init", outer, ("t", vn, vm), "=", Const(0.0, f32)),
            statement(
                "acc",
                outer + dims(c=c),
                ("t", vn, vm),
                "sum",
                apply("mul", load("x", vn, vc), load("w", vm, vc)),
            ),
            statement(
                "out", outer, ("y", vn, vm), "=", apply("max", load("t", vn, vm), Const(0.0, f32))
            ),
        ),
        schedule=schedule,
    )


def band(dim, *body, by=1, kind="serial"):
    return Band(dim, by, kind, tuple(Leaf(b) if isinstance(b, str) else b for b in body))


def local(*body, tensor="t", space="registers"):
    return Local((tensor,), space, tuple(Leaf(b) if isinstance(b, str) else b for b in body))
