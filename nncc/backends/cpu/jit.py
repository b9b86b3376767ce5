"""Object code linked into this process.

library = Library(object_code(text, machine), ["digits_run"])
library["digits_run"]          # an address; valid as long as the library is referenced
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import llvmlite.binding as llvm

from nncc.backends.cpu import target

_numbers = itertools.count()


@functools.cache
def _linker() -> Any:
    return llvm.create_lljit_compiler(target._target_machine(target.host_features()))


class Library:
    """Linked code. Objects of this package need nothing from outside (tests look at their
    symbol tables)."""

    def __init__(self, code: bytes, exported: Iterable[str]) -> None:
        builder = llvm.JITLibraryBuilder().add_object_img(code)
        for name in exported:
            builder = builder.export_symbol(name)
        self._tracker = builder.link(_linker(), f"nncc.{next(_numbers)}")

    def __getitem__(self, name: str) -> int:
        """The address of an exported function. Raises KeyError."""
        return int(self._tracker[name])
