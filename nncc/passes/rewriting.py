"""Rewriting a graph by rules, one node at a time, front to back.

    RULES = (
        # x * 1 == x
        Rule("mul-one", ("Mul",), _mul_one),
    )
    module = rewrite(module, RULES)

A rule is given a node and its surroundings (`Rewriter`) and gives None (it does not apply), the
name of a value that is equal to the node's output, or nodes that compute it. Whatever a rule
makes is offered to the rules again. Nodes that become useless are removed. Which rule fired
where is logged at level DEBUG.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nncc.diagnostics import NOWHERE, PassError
from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType
from nncc.ops.builder import GraphBuilder
from nncc.passes.dce import remove_dead

log = logging.getLogger(__name__)

Result = None | str | Sequence[Node]

# More rewrites of one node than any chain of rules needs: a rule undoes another.
MAX_STEPS = 64


@dataclass(frozen=True)
class Rule:
    """A rewrite: its name for traces, the ops it looks at (empty: all), and the function."""

    name: str
    ops: tuple[str, ...]
    apply: Callable[[Node, Rewriter], Result]


class Rewriter:
    """The graph as rewritten so far, as rules see it."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.builder = GraphBuilder(module.symbols, module.nests)
        self.builder.reserve(*module.graph.types)
        self.pinned = {*module.graph.outputs, *(v for _, v in module.graph.updates)}
        self._equal: dict[str, str] = {}
        self._producer: dict[str, Node] = {}
        self._reads = Counter(i for n in module.graph.nodes for i in n.inputs if i)
        self._reads.update(self.pinned)
        for name in module.graph.inputs:
            self.builder.input(name, module.graph.types[name])

    # -- what rules ask ----------------------------------------------------------------------
    def type(self, name: str) -> TensorType:
        """The type of a value or symbol."""
        return self.builder.type(name)

    def producer(self, name: str, op: str = "") -> Node | None:
        """The node that makes a value, if it is an `op` and nothing else reads the value."""
        node = self._producer.get(name)
        if node is None or (op and (node.op != op or self._reads[name] != 1)):
            return None
        return node

    def weight(self, name: str) -> np.ndarray | None:
        """The data of a constant or parameter, of any size; None for other values."""
        symbol = self.builder.symbols.get(name)
        return None if symbol is None or symbol.kind == "state" else symbol.data.array

    def is_constant(self, name: str) -> bool:
        symbol = self.builder.symbols.get(name)
        return symbol is not None and symbol.kind != "state"

    def kind(self, *names: str) -> Literal["const", "param"]:
        """`param` if one of the constants is one: what is made of a weight is a weight."""
        return "param" if any(self.builder.symbols[n].kind == "param" for n in names) else "const"

    def symbol(self, array: np.ndarray, hint: str, *made_of: str) -> str:
        """A new symbol of a kind that follows from the symbols it is made of."""
        name = self.builder.fresh(hint)
        kind = self.kind(*made_of)
        self.builder.symbols[name] = Symbol(kind, Tensor(array))
        return name

    def define(self, name: str, array: np.ndarray, *made_of: str) -> str:
        """Makes the value `name` of a node a symbol of the same name."""
        self.builder.symbols[name] = Symbol(
            self.kind(*made_of) if made_of else "const",
            Tensor(array),
        )
        return name

    # -- the driver --------------------------------------------------------------------------
    def resolved(self, name: str) -> str:
        """The name that now stands for a value."""
        while name in self._equal:
            name = self._equal[name]
        return name

    def add(self, node: Node, rules: Sequence[Rule], steps: int = 0) -> bool:
        """Adds what becomes of a node; True if a rule applied."""
        node = self._with_resolved_inputs(node)
        if steps > MAX_STEPS:
            raise PassError("the rules go round in circles at this node", node.location)
        for rule in rules:
            if rule.ops and node.op not in rule.ops:
                continue
            result = rule.apply(node, self)
            if result is None:
                continue
            log.debug("%s: %s (%s)", rule.name, node.name, node.op)
            if isinstance(result, str):
                if not self._alias(node, result):
                    continue
                return True
            for made in result:
                # a rule that keeps an earlier node's place (a folded convolution) states it
                location = node.location if made.location == NOWHERE else made.location
                self.add(replace(made, location=location), rules, steps + 1)
            return True
        old = self.module.graph.types
        known = all(o in old for o in node.outputs if o) and node.op in self.module.definitions
        types = tuple(old[o] for o in node.outputs) if known else None
        self.builder.add(node, types)
        self._producer.update((o, node) for o in node.outputs if o)
        return False

    def _with_resolved_inputs(self, node: Node) -> Node:
        inputs = tuple(self.resolved(i) for i in node.inputs)
        return node if inputs == node.inputs else replace(node, inputs=inputs)

    def _alias(self, node: Node, value: str) -> bool:
        """The node's output is `value` from now on; False if that would change nothing.

        Outputs of the graph keep their names: the node that makes `value` makes the output
        instead, and where that is not possible an Identity remains.
        """
        output = node.outputs[0]
        if output == value:  # the rule made it a symbol
            return True
        if output not in self.pinned:
            self._equal[output] = value
            self._reads[value] += self._reads[output] - 1
            return True
        if value in self._producer and value not in self.pinned:
            self._rename(value, output)
            return True
        if node.op == "Identity":
            return False
        copy = Node("Identity", (value,), (output,), location=node.location)
        self.builder.add(copy)
        self._producer[output] = copy
        return True

    def _rename(self, old: str, new: str) -> None:
        def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(new if n == old else n for n in names)

        for k, node in enumerate(self.builder.nodes):
            if old in node.inputs or old in node.outputs:
                node = replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs))
                self.builder.nodes[k] = node
                self._producer.update((o, node) for o in node.outputs if o)
        self.builder.types[new] = self.builder.types.pop(old)
        del self._producer[old]
        self._equal[old] = new
        self._reads[new] += self._reads[old] - 1


def rewrite(module: Module, rules: Sequence[Rule]) -> Module:
    """The module with its main graph rewritten; the same object if no rule applied."""
    rewriter = Rewriter(module)
    changed = False
    for node in module.graph.nodes:
        changed |= rewriter.add(node, rules)
    if not changed:
        return module
    built = rewriter.builder.graph(module.graph.name, module.graph.outputs)
    built = replace(built, updates=module.graph.updates, layouts=module.graph.layouts)
    return remove_dead(replace(module, graph=built, symbols=rewriter.builder.symbols))
