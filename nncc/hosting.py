"""What of a model is left to the host, why, and how much of the work that is.

nodes = host_nodes(legalized, decisions)      one HostNode for each, with its MACs and bytes
print(summary(nodes, share))                  in a line or two
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nncc.ir.graph import Module, Node
from nncc.ir.index import Size, ceildiv, evaluate
from nncc.ops.cost import node_macs
from nncc.passes.legalize import Decision
from nncc.passes.partition import is_alias, on_host


@dataclass(frozen=True)
class HostNode:
    """A node that the host computes, with every named size at 1.

    Args:
        macs, bytes: of it: multiply-accumulates, and bytes of what it reads and writes, weights
            included; `macs_share`, `bytes_share`: as parts of those of the whole model.
    """

    node: str
    op: str
    reason: str
    macs: int
    bytes: int
    macs_share: float
    bytes_share: float


def host_nodes(module: Module, decisions: Sequence[Decision]) -> tuple[HostNode, ...]:
    """The nodes of a legalized module that are the host's, in order."""
    ones = dict.fromkeys(module.sizes, 1)
    reasons: dict[str, list[str]] = {}  # several nodes may have one name
    for d in decisions:
        if d.action == "host":
            reasons.setdefault(d.node, []).append(d.reason)
    work = [int(evaluate(count, ones)) for count in node_macs(module)]
    moved = [int(evaluate(_bytes(module, n), ones)) for n in module.graph.nodes]
    all_macs, all_bytes = sum(work), sum(moved)
    found = []
    for node, own, count in zip(module.graph.nodes, work, moved, strict=True):
        if on_host(node):
            ops = ", ".join(n.op for n in node.regions[0].nodes)
            shares = own / (all_macs or 1), count / (all_bytes or 1)
            told = reasons.get(node.name)
            reason = told.pop(0) if told else ""
            found.append(HostNode(node.name, ops, reason, own, count, *shares))
    return tuple(found)


def _bytes(module: Module, node: Node) -> Size:
    """What a node reads and writes; a view that is its input's buffer moves nothing."""
    inner = node.regions[0].nodes if on_host(node) else (node,)
    if all(is_alias(n) for n in inner):
        return 0
    names = dict.fromkeys((*node.inputs, *node.outputs))
    bits: Size = 0
    for name in filter(None, names):
        t = module.type_of(name)
        bits = bits + t.elements * t.dtype.bits
    return ceildiv(bits, 8)


def summary(nodes: Sequence[HostNode], target: str) -> str:
    """What the host does, in one line."""
    if not nodes:
        return f"everything runs on {target}"
    ops = ", ".join(f"{op} {count}" for op, count in Counter(n.op for n in nodes).items())
    macs_share, bytes_share = (sum(x) for x in zip(*(_shares(n) for n in nodes), strict=True))
    return (
        f"on the host: {len(nodes)} node{'s' if len(nodes) > 1 else ''} ({ops}), "
        f"{macs_share:.1%} of the MACs, {bytes_share:.1%} of the bytes"
    )


def _shares(node: HostNode) -> tuple[float, float]:
    return node.macs_share, node.bytes_share


def records(nodes: Sequence[HostNode]) -> list[dict[str, Any]]:
    """The nodes for scripts."""
    return [asdict(n) for n in nodes]
