"""The passes by name: `quantize{bits=8}` in a pipeline, `nncc.passes.Quantize(bits=8)` in Python.

    nncc.passes.Fold()(module)                a pass is called with a module, and gives one
    nncc.passes.find("quantize")              its class; a pass's file, name and spelling are equal
    nncc.passes.register(MyPass)              a pass of one's own, for pipelines in this process

A pass is loaded when it is first used. How pipelines are written: `nncc.passes.text`; how they
run: `nncc.passes.pipeline`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nncc.diagnostics import PassError, nearest
from nncc.passes.base import Pass

if TYPE_CHECKING:
    from nncc.passes.cse import Cse as Cse
    from nncc.passes.dce import Dce as Dce
    from nncc.passes.emit import Emit as Emit
    from nncc.passes.fold import Fold as Fold
    from nncc.passes.fuse import Fuse as Fuse
    from nncc.passes.hoist import Hoist as Hoist
    from nncc.passes.integerize import Integerize as Integerize
    from nncc.passes.layout import Layout as Layout
    from nncc.passes.legalize import Legalize as Legalize
    from nncc.passes.lower import Lower as Lower
    from nncc.passes.offset import Offset as Offset
    from nncc.passes.pack import Pack as Pack
    from nncc.passes.pad import Pad as Pad
    from nncc.passes.perform import Perform as Perform
    from nncc.passes.plan import Plan as Plan
    from nncc.passes.quantize import Quantize as Quantize
    from nncc.passes.rows import Rows as Rows
    from nncc.passes.specialize import Specialize as Specialize
    from nncc.passes.tensorize import Tensorize as Tensorize
    from nncc.passes.tile import Tile as Tile
    from nncc.passes.vectorize import Vectorize as Vectorize

# In the order in which a full pipeline runs them. The class of `fold` is `Fold` in fold.py.
NAMES = (
    "integerize", "fold", "cse", "dce", "specialize", "quantize", "legalize", "offset", "fuse",
    "layout", "rows", "lower", "pack", "pad", "tensorize", "tile", "vectorize", "emit", "hoist",
    "perform", "plan",
)  # fmt: skip

_registered: dict[str, type[Pass]] = {}


def names() -> tuple[str, ...]:
    """Every pass that a pipeline can name: the built-in ones in order, then registered ones."""
    return (*NAMES, *_registered)


def find(name: str) -> type[Pass]:
    """The class of a pass. Raises PassError with the nearest names if there is none."""
    if name in _registered:
        return _registered[name]
    if name not in NAMES:
        raise PassError(f"there is no pass '{name}'", help=nearest(name, names(), "passes"))
    found: type[Pass] = getattr(import_module(f"nncc.passes.{name}"), _class_name(name))
    return found


def register(cls: type[Pass]) -> type[Pass]:
    """Makes a pass known by its `name`; also a class decorator.

    Raises PassError if a pass of that name exists.
    """
    if cls.name in names():
        raise PassError(f"there is a pass '{cls.name}' already")
    _registered[cls.name] = cls
    return cls


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def __getattr__(attribute: str) -> Any:
    for name in NAMES:
        if attribute == _class_name(name):
            return find(name)
    raise AttributeError(f"module 'nncc.passes' has no attribute {attribute!r}")
