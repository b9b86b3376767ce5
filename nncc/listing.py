"""A model's levels as text, for `nncc show` and for the files of an artifact.

levels(compilation, "digits")            {"graph": "…", "nests": "…", …}, made when asked for
select(text, "conv1")                    the nest, function or node of that name in a listing
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nncc import __version__
from nncc.compilation import Compilation, back_end, calls
from nncc.diagnostics import Location, NnccError, TargetError, nearest
from nncc.ir.graph import Module
from nncc.ir.text import print_function, print_graph, print_nest
from nncc.ir.text.names import unquote, unstring
from nncc.machines import load as load_machine
from nncc.machines.machine import HOST
from nncc.passes.plan import memory_plan
from nncc.passes.plan import program as program_of
from nncc.traffic import table as traffic_table

if TYPE_CHECKING:
    from nncc.runtime.artifact import Artifact

# Files of an artifact that hold the text of a level.
FILES = {
    "graph": "graph.txt",
    "nests": "nests.txt",
    "schedule": "schedule.txt",
    "loops": "loops.txt",
    "memory": "memory.txt",
}


def show(compilation: Compilation, level: str, node: str, name: str) -> str:
    """One level of a compilation as text; with `node`, what belongs to it only."""
    parts = compilation.segments or (compilation,)
    found = []
    callees: dict[str, str] = {}
    for k, part in enumerate(parts):
        own = f"{name}_{k}" if compilation.segments else name
        made = levels(part, own)
        if level not in made:
            made |= back_end(part.machine).levels(program_of(part.module, own), part.machine)
        found.append((part.machine.name, made.get(level), tuple(made)))
        callees |= calls(part.module)
    return _joined(found, level, node, callees)


def show_artifact(folder: Path, level: str, node: str) -> str:
    """The same from a compiled model's folder. Raises NnccError if it is none, or damaged."""
    from nncc.runtime.artifact import open_artifact

    opened = open_artifact(folder, version=__version__)
    parts = [
        open_artifact(folder / p, version=__version__) for p in opened.manifest.get("parts", ())
    ]
    found = []
    callees: dict[str, str] = {}
    for part in parts or [opened]:
        made = _texts_in(part)
        found.append((str(part.manifest["target"]), made.get(level), tuple(made)))
        callees |= part.manifest["report"]["calls"]
    return _joined(found, level, node, callees)


# The name of a device, the text of a level that it may have, and the levels that it has.
_Part = tuple[str, Callable[[], str] | None, tuple[str, ...]]


def _joined(parts: Sequence[_Part], level: str, node: str, callees: Mapping[str, str]) -> str:
    """The texts of all parts that have the level, or what they say of a node."""
    having = [(k, name, text) for k, (name, text, _) in enumerate(parts) if text is not None]
    if not having:
        known = dict.fromkeys(known for _, _, levels in parts for known in levels)
        raise NnccError(f"the target has no level '{level}'", help=f"it has {', '.join(known)}")
    if node:
        return select("\n".join(text() for _, _, text in having), node, callees)
    if len(parts) == 1:
        return having[0][2]()
    return "\n\n".join(f"# segment {k}: {name}\n{text().rstrip()}" for k, name, text in having)


def _texts_in(opened: Artifact) -> dict[str, Callable[[], str]]:
    """For each level that an artifact shows, a function that gives its text."""
    try:
        name = opened.manifest["name"]
        features = frozenset(opened.manifest.get("features", ()))
        assert isinstance(opened.manifest["report"]["calls"], dict)
    except (KeyError, TypeError, AssertionError) as error:
        where = Location(str(opened.folder))
        raise TargetError(f"the manifest is wrong: {error!r}", where) from error

    def read(file: str) -> Callable[[], str]:
        return lambda: opened.read(file).decode()

    made = {level: read(file) for level, file in FILES.items()}
    for file in opened.manifest["files"]:
        if file.endswith(".txt") and file not in FILES.values():
            made[file.removesuffix(".txt")] = read(file)
    if opened.manifest.get("backend", HOST) == HOST:
        made |= {"llvm": read(f"{name}.ll"), "asm": lambda: _assembly(made["llvm"](), features)}
    return made


def _assembly(llvm: str, features: frozenset[str]) -> str:
    """The assembly of LLVM IR for a CPU with these features."""
    from nncc.backends.cpu.target import assembly

    return assembly(llvm, replace(load_machine(HOST), features=features))


def levels(compilation: Compilation, name: str) -> dict[str, Callable[[], str]]:
    """For each level down to Loops, a function that gives its text; `name` is the program's."""

    def nests(module: Module) -> str:
        return "\n\n".join(print_nest(n) for n in module.nests.values())

    scheduled = compilation.scheduled
    return {
        "graph": lambda: print_graph(compilation.before("lower").graph),
        "nests": lambda: nests(compilation.before(_first_scheduling(compilation))),
        "schedule": lambda: nests(scheduled),
        "loops": lambda: "\n\n".join(
            print_function(f) for f in compilation.module.functions.values()
        ),
        "memory": lambda: memory_table(compilation.module),
        "traffic": lambda: traffic_table(compilation),
    }


def texts(compilation: Compilation, name: str) -> dict[str, str]:
    """The texts that an artifact keeps, by file name."""
    made = levels(compilation, name)
    return {file: made[level]() + "\n" for level, file in FILES.items()}


def _first_scheduling(compilation: Compilation) -> str:
    """The pass after `lower`; without one, the nests are what came in."""
    names = [s.name for s in compilation.steps]
    return names[names.index("lower") + 1] if "lower" in names[:-1] else names[0] if names else ""


def memory_table(module: Module) -> str:
    """The memory plan: one line for each tensor, by block and place."""
    plan = memory_plan(module)
    rows = [("block", "offset", "bytes", "alive", "tensor")]
    for p in sorted(plan.placements, key=lambda p: ("weights", "state", "arena").index(p.space)):
        rows.append((p.space, str(p.offset), str(p.bytes), f"{p.first}..{p.last}", p.tensor))
    widths = [max(len(r[k]) for r in rows) for k in range(4)]
    lines = [
        "  ".join((r[0].ljust(widths[0]), *(r[k].rjust(widths[k]) for k in (1, 2, 3)), r[4]))
        for r in rows
    ]
    sizes = (
        f"weights {plan.weights_bytes} bytes, state {plan.state_bytes} bytes, "
        f"arena {plan.arena_bytes} bytes"
    )
    return "\n".join([*lines, "", sizes])


def select(text: str, name: str, calls: Mapping[str, str]) -> str:
    """What a listing says of one node: the blocks or lines that are its own.

    Args:
        calls: the nest of each node, for listings of nests and functions.

    Raises NnccError with the nearest names if there is nothing.
    """
    wanted = {name, calls.get(name, name)}
    lines = text.splitlines()
    found: list[str] = []
    known: set[str] = set()
    end = 0
    for k, line in enumerate(lines):
        if k < end:
            continue
        names = _begun(line)
        known |= names
        if names & wanted:
            end = _end(lines, k)
            found += lines[k:end]
        elif line.startswith("define "):  # the labels in LLVM IR are no names of the model
            end = _end(lines, k)
    if not found:
        known |= {n for n, callee in calls.items() if callee in known}
        raise NnccError(f"there is nothing named '{name}' here", help=nearest(name, known, "names"))
    return "\n".join(found)


def _name(text: str) -> str:
    return unquote(text) if text.startswith("`") else text


def _label(text: str) -> str:
    return unstring(text) if text.startswith('"') else text


def _symbol(text: str) -> str:
    def decoded(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("\\", "")).decode()

    return re.sub(r"(?:\\[0-9A-F]{2})+", decoded, text.strip('"'))


_NAME = r"`[^`]*`|[^\W\d][\w.]*"
_STRING = r'"(?:[^"\\]|\\.)*"'
# How a line begins a section of instructions, which goes on to the next such line.
_SECTIONS: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"-- (.+)$"), str),  # listings
    (re.compile(rf"(?::source|\.origin) ({_STRING})"), unstring),  # assembly of simulated machines
)
# How a line begins something that has a name, and how the name is read.
_BEGINNINGS: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(rf"\s*(?:nest|function) ({_NAME})\("), _name),
    (re.compile(rf"\s*({_NAME}): "), _name),  # a node of the graph
    (re.compile(rf".* at ({_STRING})"), unstring),  # the origin of a node or statement
    (re.compile(rf"define [^@]*@({_STRING}|[^\s(]+)\("), _symbol),  # LLVM IR
    (re.compile(rf"({_STRING}|[^\W\d][\w.$]*):$"), _label),  # assembly
    (re.compile(r"(?:weights|state|arena) .*\.\.\d+  (.+)$"), str),  # the memory plan
    *_SECTIONS,
)


def _begun(line: str) -> set[str]:
    """The names of what a line begins."""
    return {read(match[1]) for pattern, read in _BEGINNINGS if (match := pattern.match(line))}


def _is_section(line: str) -> bool:
    return any(pattern.match(line) for pattern, _ in _SECTIONS)


def _end(lines: list[str], start: int) -> int:
    """The line after the block that begins at `start`."""
    if _is_section(lines[start]):
        after = range(start + 1, len(lines))
        return next((k for k in after if _is_section(lines[k])), len(lines))
    if lines[start].endswith(":"):  # assembly: up to the next function
        after = range(start + 1, len(lines))
        return next((k for k in after if lines[k].startswith(".Lfunc_end")), len(lines))
    depth = 0
    head = lines[start].endswith("(")  # the parameters follow, each on a line of its own
    for k in range(start, len(lines)):
        depth += lines[k].count("{") - lines[k].count("}")
        head = head and depth == 0
        if depth <= 0 and not head:
            return k + 1
    return len(lines)
