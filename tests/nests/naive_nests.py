"""A second interpreter of nests for the tests: one instance at a time, sharing no code."""

from __future__ import annotations

import numpy as np

from nncc.ir.expr import Apply, Const, Load, Name, Value
from nncc.ir.index import Element, Term
from nncc.ir.nests import Scan
from nncc.ir.scalar import FUNCTIONS

COMBINE = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "min": np.minimum,
    "max": np.maximum,
}


def size(s, env, tensors):
    if isinstance(s, int):
        return s
    total = 0
    for monomial, c in s.terms:
        for a in monomial:
            c *= atom(a, env, tensors)
        total += c
    return total


def atom(a, env, tensors):
    if isinstance(a, str):
        return env[a]
    if isinstance(a, Element):
        return int(tensors[a.tensor][tuple(size(i, env, tensors) for i in a.indices)])
    assert isinstance(a, Term)
    x, y = size(a.a, env, tensors), size(a.b, env, tensors)
    return {"//": x // y if y else 0, "%": x % y if y else 0, "min": min(x, y), "max": max(x, y)}[
        a.fn
    ]


def value(e, env, tensors, names):
    if isinstance(e, Const):
        return np.asarray(e.value, e.dtype.numpy)
    if isinstance(e, Value):
        return np.asarray(size(e.size, env, tensors)).astype(e.dtype.numpy)
    if isinstance(e, Name):
        return names[e.name]
    if isinstance(e, Load):
        at = tuple(size(i, env, tensors) for i in e.indices)
        t = tensors[e.tensor]
        if all(0 <= i < n for i, n in zip(at, t.shape, strict=True)):
            return np.asarray(t[at])
        assert e.other is not None, f"{e} at {env} is outside"
        return value(e.other, env, tensors, names)
    assert isinstance(e, Apply)
    args = [value(a, env, tensors, names) for a in e.args]
    return np.asarray(FUNCTIONS[e.fn].numpy(np, *args)).astype(e.dtype.numpy)


def run(items, env, tensors, combines):
    for item in items:
        if isinstance(item, Scan):
            lo, hi = (size(s, env, tensors) for s in (item.dim.lo, item.dim.hi))
            for k in range(lo, hi):
                run(item.body, {**env, item.dim.name: k}, tensors, combines)
            continue
        for point in points(item.dims, env, tensors):
            if all(size(w, point, tensors) >= 0 for w in item.where):
                step(item, point, tensors, combines)


def points(dims, env, tensors):
    if not dims:
        yield env
        return
    lo, hi = (size(s, env, tensors) for s in (dims[0].lo, dims[0].hi))
    for k in range(lo, hi):
        yield from points(dims[1:], {**env, dims[0].name: k}, tensors)


def step(s, env, tensors, combines):
    new = [value(v, env, tensors, {}) for v in s.values]
    at = [tuple(size(i, env, tensors) for i in t.indices) for t in s.targets]
    assert all(
        0 <= i < n
        for t, a in zip(s.targets, at, strict=True)
        for i, n in zip(a, tensors[t.tensor].shape, strict=True)
    )
    if s.combine != "=":
        old = [np.asarray(tensors[t.tensor][a]) for t, a in zip(s.targets, at, strict=True)]
        if s.combine in COMBINE:
            new = [COMBINE[s.combine](old[0], new[0])]
        else:
            names = {f"a{k}": x for k, x in enumerate(old)} | {
                f"b{k}": x for k, x in enumerate(new)
            }
            new = [value(v, {}, {}, names) for v in combines[s.combine].values]
    for t, a, v in zip(s.targets, at, new, strict=True):
        tensors[t.tensor][a] = v


def naive(nest, inputs, sizes):
    tensors = {}
    for p in nest.params:
        shape = tuple(size(s, sizes, {}) for s in p.type.shape)
        tensors[p.name] = (
            inputs[p.name] if p.role == "in" else np.full(shape, 77, p.type.dtype.numpy)
        )
    with np.errstate(all="ignore"):
        run(nest.body, dict(sizes), tensors, {c.name: c for c in nest.combines})
    return {p.name: tensors[p.name] for p in nest.outputs}


def random_inputs(nest, sizes, seed=0):
    """Arrays for the `in` parameters: small floats, integers over their whole range."""
    rng = np.random.default_rng(seed)
    found = {}
    for p in nest.inputs:
        shape = tuple(size(s, sizes, {}) for s in p.type.shape)
        d = p.type.dtype
        if d.is_float:
            found[p.name] = rng.standard_normal(shape).astype(d.numpy)
        else:
            lo, hi = d.limits
            found[p.name] = rng.integers(lo, hi, shape, d.numpy, endpoint=True)
    return found
