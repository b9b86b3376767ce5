"""What can be done around passes: verify, print, time, keep, show progress.

timer = TimePasses()
run(module, target, steps, [timer, VerifyEach(), PrintAfter({"fold"}, print)])
print(timer.table())
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TextIO

from nncc.diagnostics import PassError, VerifyError, nearest
from nncc.ir.graph import Module
from nncc.ir.nests import Nest
from nncc.passes.base import Pass
from nncc.passes.pipeline import CompilerBug, Observer
from nncc.passes.text import spell_pass

MOST_COLUMNS = 79  # of a line of progress: a wrapped one could not be taken away


class VerifyEach(Observer):
    """Verifies the module before the first pass and after each one.

    A new schedule is proved to keep the dependences of its nest, with isl. A wrong module at
    the start is the user's; after a pass it is a bug of the pass.
    """

    def __init__(self) -> None:
        self._proved: set[Nest] = set()

    def begin(self, module: Module, steps: Sequence[Pass]) -> None:
        self._verify(module)

    def after(self, step: Pass, module: Module) -> None:
        try:
            self._verify(module)
        except (VerifyError, PassError) as error:
            raise CompilerBug(
                f"bug in nncc: pass '{spell_pass(step)}' gave a wrong module: {error.message}",
                error.location,
                step=step,
            ) from error

    def _verify(self, module: Module) -> None:
        from nncc.ops.verify import verify

        verify(module)
        for nest in module.nests.values():
            if nest.schedule is not None and nest not in self._proved:
                from nncc.passes.poly import check_schedule

                check_schedule(nest)
                self._proved.add(nest)


class PrintAfter(Observer):
    """Writes the module's text after the passes of these names, or after each one (`all`)."""

    def __init__(self, names: Collection[str], write: Callable[[str], object]) -> None:
        self._names, self._write = frozenset(names), write

    def begin(self, module: Module, steps: Sequence[Pass]) -> None:
        known = {"all", *(s.name for s in steps)}
        for name in sorted(self._names - known):
            raise PassError(
                f"cannot print after '{name}': the pipeline has no such pass",
                help=nearest(name, known, "its passes"),
            )

    def after(self, step: Pass, module: Module) -> None:
        if not self._names & {"all", step.name}:
            return
        from nncc.ir.text import print_module

        self._write(f"# after {spell_pass(step)}\n{print_module(module)}")


@dataclass(frozen=True)
class Timing:
    """What a pass took: seconds, and calls of isl."""

    step: str
    seconds: float
    isl_calls: int


class TimePasses(Observer):
    """Measures the passes; `timings` has one entry for each run pass, in order."""

    def __init__(self) -> None:
        self.timings: list[Timing] = []
        self._started = (0.0, 0)

    def before(self, step: Pass, module: Module) -> None:
        self._started = (time.perf_counter(), _isl_calls())

    def after(self, step: Pass, module: Module) -> None:
        seconds, calls = self._started
        self.timings.append(
            Timing(spell_pass(step), time.perf_counter() - seconds, _isl_calls() - calls)
        )

    def table(self) -> str:
        """The timings as text, one pass a line."""
        total = Timing("total", *map(sum, zip((0.0, 0), *self._numbers(), strict=True)))
        rows = [f"{t.seconds * 1e3:10.1f} ms {t.isl_calls:8d}  {t.step}" for t in self.timings]
        end = f"{total.seconds * 1e3:10.1f} ms {total.isl_calls:8d}  {total.step}"
        return "\n".join([f"{'time':>13} {'isl':>8}  pass", *rows, end])

    def _numbers(self) -> list[tuple[float, int]]:
        return [(t.seconds, t.isl_calls) for t in self.timings]


class Snapshots(Observer):
    """Keeps the module after each pass; `modules` pairs the pass's name with it, in order."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, Module]] = []

    def after(self, step: Pass, module: Module) -> None:
        self.modules.append((step.name, module))


class Progress(Observer):
    """Shows the running pass on a terminal once the pipeline takes longer than a second."""

    def __init__(self, stream: TextIO, patience: float = 1.0) -> None:
        self._stream, self._patience = stream, patience
        self._steps: Sequence[Pass] = ()
        self._done = 0
        self._started = time.monotonic()

    def begin(self, module: Module, steps: Sequence[Pass]) -> None:
        self._steps, self._done, self._started = steps, 0, time.monotonic()

    def before(self, step: Pass, module: Module) -> None:
        # of a model in several segments some passes run for each
        total = max(len(self._steps), self._done + 1)
        self.say(f"[{self._done + 1}/{total}] {step.name}")

    def after(self, step: Pass, module: Module) -> None:
        self._done += 1
        self.clear()

    def say(self, text: str) -> None:
        """Shows what is done now."""
        if time.monotonic() - self._started > self._patience:
            self._stream.write(f"\r\x1b[K{text[:MOST_COLUMNS]}")
            self._stream.flush()

    def clear(self) -> None:
        """Takes the line away."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()


def _isl_calls() -> int:
    """Calls of isl so far; 0 as long as nothing has loaded it."""
    poly = sys.modules.get("nncc.passes.poly")
    return int(poly.calls()) if poly is not None else 0
