"""Compile a model into a folder with code, weights and a manifest.

The folder is loaded by `nncc run`, `nncc show` and `nncc.load`; it also holds an object file and a
C header. With --check, every level is compared with the interpreter of the graph first.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.commands.options import (
    Observers,
    add_compilation,
    add_json,
    add_model,
    add_observers,
    add_threads,
    lowered,
)

if TYPE_CHECKING:
    from nncc.runtime.executable import Executable

_MOST_NODES = 8  # that one line names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="default: the model's name with .nncc"
    )
    parser.add_argument(
        "--check", nargs="?", const=True, metavar="DATA",
        help="compare graph, nests, loops and what is run on these data (.npz or folder; one "
        "sample does, and is quickest), or on random ones",
    )  # fmt: skip
    add_compilation(parser)
    add_threads(parser)
    add_observers(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from nncc.driver import build

    observers = Observers(args)
    compilation = lowered(args, observers.all)
    observers.finish()
    executable = build(compilation, threads=args.threads, name=Path(args.model).stem)
    checked = ""
    if args.check:
        from nncc.arrays import load_arrays
        from nncc.check import check

        inputs = compilation.source.graph.inputs
        data = None if args.check is True else load_arrays(args.check, inputs)
        progress = observers.progress
        try:
            found = check(compilation, executable, data, progress.say if progress else None)
        finally:
            if progress:
                progress.clear()
        checked = str(found)
    folder = Path(args.output or f"{Path(args.model).stem}.nncc")
    executable.save(folder)
    if args.json:
        print(json.dumps({"output": str(folder), "check": checked, **executable.report}, indent=1))
        return 0
    for note in compilation.notes.values():
        print(note)
    if checked:
        print(f"checked: {checked}")
    if slow := lane_by_lane(executable.report):
        print(slow)
    print(f"{folder}: {summary(executable)}")
    return 0


def lane_by_lane(report: Mapping[str, Any]) -> str:
    """Which nodes have vectors that the target has no operation for, in one line; "" if none."""
    found: Counter[str] = Counter()
    for part in report.get("segments") or [report]:
        found.update(part.get("lane_by_lane", {}))
    if not found:
        return ""
    shown = [f"{node} ({count})" for node, count in found.most_common(_MOST_NODES)]
    if len(found) > len(shown):
        shown.append(f"{len(found) - len(shown)} more nodes")
    target = report["target"]
    return f"vectors that '{target}' has no operation for go lane by lane: {', '.join(shown)}"


def summary(executable: Executable) -> str:
    """What was made, in one line."""
    report = executable.report
    target = "-".join(filter(None, (report["target"], report["variant"])))
    if segments := report.get("segments"):
        parts = ", ".join(f"{s['target']} {s['kernels']}" for s in segments)
        plural = "" if len(segments) == 1 else "s"
        return (
            f"{len(segments)} segment{plural} (kernels: {parts}), {report['code_bytes']} bytes of "
            f"code, {report['weights_bytes']} of weights"
        )
    return (
        f"{report['kernels']} kernels for {target}, {report['code_bytes']} bytes of code, "
        f"{report['weights_bytes']} of weights, {report['arena_bytes']} of working memory"
    )
