"""What a back end is: a package `nncc.backends.<name>` with a module `compiler` like this.

A machine names its back end (`backend = "tpu"`); adding a target is adding a package, or only a
machine file where the back end stands. A back end gets a `Program`: the Loops functions of one
segment of a model, every op of which the machine's `supports` table has. Segments have no state
unless the machine is the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nncc.ir.program import Program
    from nncc.machines.machine import Machine
    from nncc.runtime.executable import Executable


class BackEnd(Protocol):
    """The module `nncc.backends.<name>.compiler`.

    Attributes:
        STATIC_SIZES: whether programs may have no named sizes. The driver then puts numbers in
            their place, and splits a run of more samples into several calls.
    """

    STATIC_SIZES: bool

    def compile_program(
        self,
        program: Program,
        machine: Machine,
        *,
        threads: int = 1,
        report: Mapping[str, Any] | None = None,
    ) -> Executable:
        """The program, ready to be called in this process.

        `Executable.report` has what `report` has, and besides `target` and `variant` (of the
        machine), `code_bytes`, `weights_bytes` and `arena_bytes`. Raises TargetError if the
        program does not fit the machine.
        """

    def write_artifact(
        self,
        program: Program,
        machine: Machine,
        folder: str | Path,
        *,
        version: str,
        pipeline: str = "",
        texts: Mapping[str, str] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the program as a folder, by `nncc.runtime.artifact.write_artifact`.

        The manifest has `name`, `backend`, `target`, `variant`, `pipeline`, `signature` and
        `report`, and the machine's own file is in the folder (`artifact.machine_file`). Texts of
        `levels` are files `<level>.txt`; `texts` are further ones by file name.
        """

    def load_artifact(self, folder: str | Path, *, version: str, threads: int = 1) -> Executable:
        """What `write_artifact` wrote, ready to be called. Raises TargetError if it is damaged."""

    def levels(self, program: Program, machine: Machine) -> Mapping[str, Callable[[], str]]:
        """What the back end makes of Loops, as text by the level's name: `asm`, `listing`, …"""
