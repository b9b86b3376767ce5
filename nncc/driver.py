"""From a model to something that runs: import → pipeline → back end.

load("model.onnx")                        a Module; of a compiled model's folder: an Executable
compile("model.onnx", "cpu")              an Executable
lower(module, "cpu").before("emit")       the scheduled nests, on the way
save(module, "model.nn")                  or .onnx
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from nncc import __version__
from nncc.arrays import load_arrays
from nncc.diagnostics import FrontendError, Location, NnccError, PassError, TargetError
from nncc.ir.graph import Module
from nncc.machines import load as load_machine
from nncc.machines.machine import Machine
from nncc.passes import find
from nncc.passes.base import Pass
from nncc.passes.observers import Snapshots, TimePasses
from nncc.passes.pipeline import CompilerBug, Observer, remaining, run
from nncc.passes.text import parse, spell_pipeline
from nncc.runtime.executable import Executable

if TYPE_CHECKING:
    import onnx

Model = Union[str, Path, Module, "onnx.ModelProto"]
Data = Mapping[str, np.ndarray]
Precision = Literal["int8"]


def load(path: str | Path) -> Module | Executable:
    """What is in a file: a module from `.onnx` or `.nn`, a compiled model from its folder.

    Raises NnccError (FrontendError, VerifyError, UnsupportedError, TargetError) that says what is
    wrong with it.
    """
    path = Path(path)
    return load_compiled(path) if path.is_dir() else load_module(path)


def load_module(model: Model) -> Module:
    """The module of a file, or of a model in memory. Raises NnccError."""
    if isinstance(model, Module):
        return model
    if isinstance(model, str | Path):
        path = Path(model)
        if path.is_dir():
            raise FrontendError("is a folder, not a model", Location(str(path)))
        if path.suffix == ".nn":
            return _load_text(path)
    from nncc.frontend.onnx import load as load_onnx

    return load_onnx(model)


def _load_text(path: Path) -> Module:
    """The module of a `.nn` file; schedules in it may have been written by hand and are proved.

    Raises PassError with the dependence that a schedule breaks.
    """
    from nncc.frontend.dsl import load_nn

    module = load_nn(path)
    scheduled = [n for n in module.nests.values() if n.schedule is not None]
    if scheduled:
        from nncc.passes.poly import check_schedule

        for nest in scheduled:
            check_schedule(nest)
    return module


def load_compiled(folder: str | Path, *, threads: int = 1) -> Executable:
    """A compiled model. Raises TargetError if it is damaged or not for this computer."""
    from nncc.backends.cpu.compiler import load_artifact

    return load_artifact(folder, version=__version__, threads=threads)


def save(module: Module, path: str | Path, *, opset: int | None = None) -> None:
    """Writes a module as `.nn` (any level) or `.onnx` (the graph), whole or not at all.

    Args:
        opset: of an ONNX file; None: the oldest from 17 on that expresses the graph.

    Raises FrontendError for another suffix or a folder that is not there, UnsupportedError for
    nodes that ONNX cannot express.
    """
    path = Path(path)
    try:
        if path.suffix == ".nn":
            from nncc.ir.text import write_module

            write_module(module, path)
        elif path.suffix == ".onnx":
            from nncc.frontend.onnx import save as save_onnx

            save_onnx(module, path, opset=opset)
        else:
            raise FrontendError(
                f"'{path.suffix}' is no kind of module", Location(str(path)), "use .nn or .onnx"
            )
    except OSError as error:
        where = Location(str(path))
        raise FrontendError(f"cannot be written: {error.strerror}", where) from error


@dataclass(frozen=True)
class Compilation:
    """A module on its way through a pipeline.

    Args:
        source: what went in; `steps`: the passes that ran.
        after: the module after each step.
        timer: what each step took; `notes`: what passes tell the user, by the pass's name.
    """

    source: Module
    machine: Machine
    steps: tuple[Pass, ...]
    after: tuple[Module, ...]
    timer: TimePasses
    notes: Mapping[str, str]

    @property
    def module(self) -> Module:
        """What came out."""
        return self.after[-1] if self.after else self.source

    def before(self, name: str) -> Module:
        """The module that the first pass of this name got; without one, what came out."""
        names = [s.name for s in self.steps]
        if name not in names:
            return self.module
        position = names.index(name)
        return self.after[position - 1] if position else self.source


def lower(
    model: Model,
    target: str | Path | Machine = "cpu",
    *,
    pipeline: str | Sequence[Pass] | None = None,
    calib: Data | str | Path | None = None,
    precision: Precision | None = None,
    host: bool = True,
    observers: Sequence[Observer] = (),
) -> Compilation:
    """Runs the pipeline on a model; arguments as of `compile`."""
    module = load_module(model)
    machine = target if isinstance(target, Machine) else load_machine(target)
    notes: dict[str, str] = {}
    steps = _reporting(steps_for(module, machine, pipeline, calib, precision, host), notes)
    snapshots, timer = Snapshots(), TimePasses()
    run(module, machine, steps, (*observers, timer, snapshots))
    return Compilation(module, machine, steps, tuple(m for _, m in snapshots.modules), timer, notes)


def steps_for(
    module: Module,
    machine: Machine,
    pipeline: str | Sequence[Pass] | None = None,
    calib: Data | str | Path | None = None,
    precision: Precision | None = None,
    host: bool = True,
) -> tuple[Pass, ...]:
    """The passes to run: those given, or what the target's preset leaves to do for the module.

    `calib` or `precision` put `quantize` into a preset that lacks it. Raises PassError if there is
    data but nothing to use it.
    """
    preset = pipeline is None
    given = machine.pipeline if pipeline is None else pipeline
    steps = parse(given) if isinstance(given, str) else tuple(given)
    wants_quantize = calib is not None or precision == "int8"
    if wants_quantize and not any(s.name == "quantize" for s in steps):
        if not preset:
            raise PassError("the pipeline does not quantize", help="put quantize into it")
        steps = _with_quantize(steps)
    if preset:
        steps = remaining(steps, module)
    if calib is not None:
        data = calib if isinstance(calib, Mapping) else load_arrays(calib, module.graph.inputs)
        steps = tuple(replace(s, calib=data) if s.name == "quantize" else s for s in steps)  # type: ignore[call-arg]
    if not host:
        steps = tuple(_without_host(s) for s in steps)
    return steps


def _with_quantize(steps: tuple[Pass, ...]) -> tuple[Pass, ...]:
    """Quantization comes where the graph is clean and not yet legalized for the target."""
    names = [s.name for s in steps]
    if "legalize" not in names:
        raise PassError("the target's pipeline has no place for quantize: it has no legalize")
    position = names.index("legalize")
    return (*steps[:position], find("quantize")(), *steps[position:])


def _reporting(steps: Sequence[Pass], notes: dict[str, str]) -> tuple[Pass, ...]:
    """The steps, with the report of `quantize` put into the notes unless it goes elsewhere."""

    def note(report: object) -> None:
        notes["quantize"] = str(report)

    return tuple(
        replace(s, on_report=note)  # type: ignore[call-arg]
        if s.name == "quantize" and getattr(s, "on_report", note) is None
        else s
        for s in steps
    )


def _without_host(step: Pass) -> Pass:
    if any(f.name == "host" for f in fields(step)):
        return replace(step, host=False)  # type: ignore[call-arg]
    return step


def build(compilation: Compilation, *, threads: int = 1, name: str = "model") -> Executable:
    """The executable of a lowered model; it can be saved.

    Raises TargetError if the target has no back end or this computer cannot run its code,
    PassError if the pipeline did not reach the back end.
    """
    from nncc.passes.plan import program as program_of

    compiler = back_end(compilation.machine)
    module = compilation.module
    program = program_of(module, name)
    report = report_of(compilation)
    try:
        executable: Executable = compiler.compile_program(
            program, compilation.machine, threads=threads, report=report
        )
    except (NnccError, OSError):
        raise
    except Exception as error:
        raise CompilerBug(f"bug in nncc: the back end failed: {error!r}", module=module) from error

    def write(folder: Path) -> None:
        from nncc.listing import texts

        compiler.write_artifact(
            program, compilation.machine, folder, version=__version__,
            pipeline=report["pipeline"], texts=texts(compilation, name), report=report,
        )  # fmt: skip

    executable.writer = write
    return executable


def back_end(machine: Machine) -> Any:
    """The module `compiler` of a machine's back end. Raises TargetError if it has none."""
    name = f"nncc.backends.{machine.backend}"
    if not machine.backend or find_spec(name) is None:
        raise TargetError(
            f"target '{machine.name}' has no back end",
            help="its pipeline can still be run: nncc opt --target …",
        )
    return import_module(f"{name}.compiler")


def report_of(compilation: Compilation) -> dict[str, Any]:
    """Facts about a compilation that are known before code is made."""
    return {
        "pipeline": spell_pipeline(compilation.steps),
        "passes": [
            {"pass": t.step, "seconds": t.seconds, "isl_calls": t.isl_calls}
            for t in compilation.timer.timings
        ],
        "notes": dict(compilation.notes),
        "kernels": len(compilation.module.nests),
        "calls": calls(compilation.module),
    }


def calls(module: Module) -> dict[str, str]:
    """The nest that each node of the main graph calls, by the node's name and its outputs."""
    found = {}
    for node in module.graph.nodes:
        if callee := node.attrs.get("callee"):
            for name in (node.name, *filter(None, node.outputs)):
                found[name] = str(callee)
    return found


def compile(
    model: Model,
    target: str | Path | Machine = "cpu",
    *,
    pipeline: str | Sequence[Pass] | None = None,
    calib: Data | str | Path | None = None,
    precision: Precision | None = None,
    threads: int = 1,
    host: bool = True,
    check: bool | Data = False,
    observers: Sequence[Observer] = (),
) -> Executable:
    """Compiles a model; the result's `run` calls it.

        net = nncc.compile("digits.onnx", calib={"image": images})
        net.run({"image": images[:7]})["logits"]

    Args:
        model: path of an .onnx or .nn file, a module (at any level), or an onnx.ModelProto.
        target: name of a target or path of a machine file.
        pipeline: passes as text or objects, instead of the target's preset.
        calib: arrays by input name, axis 0 = samples (or the path of an .npz file or a folder of
            .npy files); quantizes the model by them.
        precision: "int8" without `calib` quantizes by random inputs, with a warning.
        threads: how many threads a call uses.
        host: whether what the target cannot do may be left to the host.
        check: True, or arrays by input name: compare every level with the interpreter of the
            graph, on these or on random inputs; see `nncc.check`.
        observers: see `nncc.passes.observers`.

    Raises NnccError: what is wrong with the model, the options or the target; CheckError if a
    level differs from the graph.
    """
    compilation = lower(
        model, target, pipeline=pipeline, calib=calib, precision=precision, host=host,
        observers=observers,
    )  # fmt: skip
    executable = build(compilation, threads=threads, name=compilation.module.graph.name)
    if check is not False:
        from nncc.check import check as check_levels

        check_levels(compilation, executable, None if check is True else check)
    return executable
