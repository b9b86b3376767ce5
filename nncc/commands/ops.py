"""Print the support matrix of the ops, or describe one op."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from nncc.commands.options import add_json

if TYPE_CHECKING:
    from nncc.ops.table import AttrDecl, Op, Operand


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="OP")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import nncc.ops  # noqa: F401  (fills the table)
    from nncc.diagnostics import NnccError, nearest
    from nncc.ops.table import TABLE

    if args.name and args.name not in TABLE:
        raise NnccError(f"there is no op '{args.name}'", help=nearest(args.name, TABLE, "ops"))
    chosen = [TABLE[args.name]] if args.name else [TABLE[n] for n in sorted(TABLE)]
    if args.json:
        print(json.dumps([row(op) for op in chosen], indent=1))
    elif args.name:
        print(describe(chosen[0]))
    else:
        print(matrix(chosen))
    return 0


def way(op: Op) -> str:
    """How an op is compiled: `nest`, `decompose`, or `none`."""
    if op.nest:
        return "nest"
    return "decompose" if op.decompose else "none"


def row(op: Op) -> dict[str, Any]:
    """What the table says of an op, for scripts."""
    return {
        "name": op.name,
        "domain": op.domain,
        "since": op.since,
        "compiled": way(op),
        "reason": op.no_nest,
        "reference": "numpy" if op.reference else "onnx.reference",
        "deviation": op.deviation,
        "traits": sorted(op.traits),
        "doc": op.doc,
    }


def matrix(ops: list[Op]) -> str:
    """One line an op."""
    width = max(len(op.name) for op in ops)
    lines = [f"{'op':{width}}  {'domain':8} opset  {'compiled':9}  what it does"]
    for op in ops:
        first = " ".join(op.doc.split()).partition(". ")[0].rstrip(".")
        lines.append(f"{op.name:{width}}  {op.domain:8} {op.since:5d}  {way(op):9}  {first}")
    return "\n".join(lines)


def describe(op: Op) -> str:
    """All that the table says of one op, as text."""
    signature = f"{_operands(op.inputs)} -> {_operands(op.outputs)}"
    lines = [f"{op.name}: {signature}", f"{op.domain}, opset {op.since}", "", op.doc]
    if op.attrs:
        lines += ["", "Attributes:"]
        lines += [f"    {name}: {_attribute(a)}" for name, a in op.attrs.items()]
    lines += ["", f"Compiled by: {way(op)}{f' ({op.no_nest})' if op.no_nest else ''}"]
    if op.traits:
        lines.append(f"Traits: {', '.join(sorted(op.traits))}")
    if op.deviation:
        lines.append(f"Deviates from onnx.reference: {op.deviation}")
    return "\n".join(lines)


def _operands(operands: tuple[Operand, ...]) -> str:
    return ", ".join(o.name + "?" * o.optional + "*" * o.variadic for o in operands)


def _attribute(a: AttrDecl) -> str:
    if a.required:
        default = "required"
    elif a.fill is not None:
        default = f"each {a.fill} by default"
    else:
        default = "absent by default" if a.default is None else f"default {a.default}"
    return f"{a.kind}, {default}{f'; {a.doc}' if a.doc else ''}"
