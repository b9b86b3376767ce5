"""Say what of a model cannot be compiled for a target, all at once, and how much works.

Exit status 0 if everything can be compiled, 1 if not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nncc.commands.options import add_json, add_model

if TYPE_CHECKING:
    from nncc.doctor import Findings
    from nncc.hosting import HostNode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--target", default="cpu", metavar="NAME|FILE")
    parser.add_argument(
        "--no-host", action="store_true", help="what is left to the host is not supported"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from nncc.doctor import examine

    findings = examine(args.model, args.target, host=not args.no_host)
    if args.json:
        print(json.dumps(record(findings), indent=1))
    else:
        print(describe(findings))
    return 1 if findings.problems else 0


def record(findings: Findings) -> dict[str, Any]:
    """The findings for scripts."""
    return {
        "model": findings.model,
        "target": findings.target,
        "nodes": findings.nodes,
        "ops": findings.ops,
        "parameters": findings.parameters,
        "macs": findings.macs,
        "supported_macs": findings.supported_macs,
        "host": [asdict(n) for n in findings.host],
        "problems": [
            {"node": d.location.node, "message": d.message, "help": d.help}
            for d in findings.problems
        ],
    }


def host_line(node: HostNode) -> str:
    """What the host does for a node, why, and how much that is."""
    return (
        f"{node.node} ({node.op}): {node.macs_share:.1%} of the MACs, {node.bytes_share:.1%} of "
        f"the bytes; {node.reason}"
    )


def describe(findings: Findings) -> str:
    """The findings as text."""
    lines = [f"{findings.model} on {findings.target}"]
    if findings.ops:
        ops = ", ".join(f"{op} {n}" for op, n in sorted(findings.ops.items()))
        lines.append(f"  nodes       {findings.nodes} ({ops})")
        lines.append(f"  parameters  {findings.parameters}")
    lines.append(f"  MACs        {findings.macs} with every named size at 1")
    if findings.macs:
        lines.append(f"  covered     {findings.supported_macs / findings.macs:.1%} of the MACs")
    if findings.host:
        lines += ["  the host computes", *(f"    {host_line(n)}" for n in findings.host)]
    if not findings.problems:
        return "\n".join([*lines, "  everything can be compiled"])
    lines.append(f"  {len(findings.problems)} cannot be compiled:")
    for problem in findings.problems:
        lines += [f"    {line}" for line in problem.render().splitlines()]
    return "\n".join(lines)
