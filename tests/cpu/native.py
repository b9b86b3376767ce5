"""Helpers of the CPU tests: machines to test with, and calling compiled Loops functions."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

import numpy as np
import pytest

from nncc.backends.cpu import target
from nncc.backends.cpu.emit import emit_llvm
from nncc.backends.cpu.jit import Library
from nncc.diagnostics import TargetError
from nncc.ir.interpreter.loops import interpret
from nncc.ir.interpreter.operations import operation_function
from nncc.ir.loops import Function
from nncc.ir.verify_loops import verify_functions
from nncc.machines import load
from nncc.machines.machine import Machine

VARIANTS = ("avx512", "avx2", "baseline")


def machine(variant: str) -> Machine:
    """A variant of the CPU; skips the test where this computer lacks it."""
    try:
        return load(f"cpu-{variant}")
    except TargetError as error:
        pytest.skip(str(error))


def compile_function(function: Function, m: Machine) -> tuple[Library, ctypes._CFuncPtr]:
    """The linked code of one function and a callable of its pointers and sizes."""
    text = emit_llvm({function.name: function}, m, exported=[function.name])
    code = target.object_code(text, m)
    assert not undefined_symbols(code), "the object needs a library"
    library = Library(code, [function.name])
    types = [ctypes.c_void_p] * len(function.buffers) + [ctypes.c_int64] * len(function.sizes)
    return library, ctypes.CFUNCTYPE(None, *types)(library[function.name])


def undefined_symbols(code: bytes) -> list[str]:
    """The names that an ELF object for 64-bit little-endian computers does not define."""
    assert code[:6] == b"\x7fELF\x02\x01"
    at, entry, count = *struct.unpack_from("<Q", code, 40), *struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, at + k * entry) for k in range(count)]
    found = []
    for kind, offset, size, link in ((s[1], s[4], s[5], s[6]) for s in sections):
        if kind != 2:  # SHT_SYMTAB
            continue
        for position in range(offset + 24, offset + size, 24):  # the first symbol is none
            name, _, _, section = struct.unpack_from("<IBBH", code, position)
            if section == 0:
                start = sections[link][4] + name
                found.append(code[start : code.index(b"\0", start)].decode())
    return found


def run_native(
    function: Function, m: Machine, arrays: Sequence[np.ndarray], sizes: Sequence[int] = ()
) -> None:
    """Compiles and runs a function; `out` arrays are written."""
    library, call = compile_function(function, m)
    call(*(a.ctypes.data for a in arrays), *sizes)
    del library


def run_both(
    function: Function, m: Machine, arrays: Sequence[np.ndarray], sizes: Sequence[int] = ()
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All arrays after the interpreter and after native code."""
    semantics = {name: o.semantics for name, o in m.operations.items()}
    verify_functions({function.name: function}, semantics)
    expected, given = [a.copy() for a in arrays], [a.copy() for a in arrays]
    operations = {name: operation_function(nest) for name, nest in semantics.items()}
    interpret({function.name: function}, function.name, expected, sizes, operations)
    run_native(function, m, given, sizes)
    return expected, given
