"""LLVM IR text to object code and assembly, for the features that a machine states.

LLVM is initialized when the first code is made. The same object code is written to artifacts and
linked into this process.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm

from nncc.diagnostics import TargetError
from nncc.machines.machine import Machine

# The level of LLVM's code generation (not of its IR passes, none of which run). 2 costs no more
# time than 1 and saves address arithmetic in loops.
CODEGEN_LEVEL = 2


@functools.cache
def _initialized() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_triple(llvm.get_process_triple())


@functools.cache
def host_features() -> frozenset[str]:
    """What LLVM finds in the CPU of this computer, by its own names."""
    _initialized()
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


def host_triple() -> str:
    """LLVM's name of this computer's architecture and system."""
    return str(llvm.get_process_triple())


def code_version() -> str:
    """What the same text may compile differently with: LLVM and the level of code generation."""
    return f"LLVM {llvm.llvm_version_info} O{CODEGEN_LEVEL}"


def known(features: frozenset[str]) -> frozenset[str]:
    """The features that LLVM knows on this architecture.

    What the system lists beyond LLVM's names (virtualization, …) does not matter for code.
    """
    _initialized()
    return features & frozenset(llvm.get_host_cpu_features())


def feature_text(features: frozenset[str]) -> str:
    """`+avx2,+fma,…`: the features of a machine as LLVM wants them."""
    return ",".join(f"+{f}" for f in sorted(known(features)))


def check_host(features: frozenset[str]) -> None:
    """Raises TargetError if this CPU lacks any of `features`, which are LLVM's names."""
    if missing := sorted(features - host_features()):
        raise TargetError(
            f"the code needs CPU features that this computer lacks: {', '.join(missing)}",
            help="compile the model again on this computer",
        )


@functools.lru_cache(maxsize=8)
def _target_machine(features: frozenset[str], level: int = CODEGEN_LEVEL) -> Any:
    triple = host_triple()
    return _initialized().create_target_machine(
        cpu="x86-64" if triple.startswith("x86_64") else "generic",
        features=feature_text(features),
        opt=level,
        reloc="pic",
        codemodel="small",
    )


def _parse(text: str) -> Any:
    _initialized()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:  # a bug in this package: the text is not the user's
        raise AssertionError(f"LLVM refuses the code that nncc wrote: {error}") from error
    return module


def object_code(text: str, machine: Machine, level: int = CODEGEN_LEVEL) -> bytes:
    """The relocatable object file of LLVM IR text.

    Args:
        level: of code generation; 0 takes a fraction of the time, for code that rarely runs.
    """
    return bytes(_target_machine(machine.features, level).emit_object(_parse(text)))


def assembly(text: str, machine: Machine) -> str:
    """The assembly text of LLVM IR text."""
    return str(_target_machine(machine.features).emit_assembly(_parse(text)))
