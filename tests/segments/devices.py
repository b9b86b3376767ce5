"""Targets beside the host for tests: CPUs of another name that lack some ops."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import nncc.ops
from nncc.ir.graph import Module
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.ops.table import TABLE

assert nncc.ops
INTEGERS = ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "bool")
FLOATS = ("f32", "f64", "f16")


def device(
    dtypes: Collection[str] = INTEGERS, *, lacks: Collection[str] = (), backend: str = "cpu"
) -> Machine:
    """A target that computes every op but some, with these dtypes; with the CPU's pipeline."""
    supports = {"*": tuple(dtypes), **dict.fromkeys(lacks, ())}
    return replace(load("cpu"), name="npu", backend=backend, supports=supports)


def ops_of(module: Module) -> list[str]:
    """The ops that a module uses."""
    return sorted({n.op for n in module.graph.nodes} & TABLE.keys())
