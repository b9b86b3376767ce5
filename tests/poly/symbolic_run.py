"""What a schedule computes, by running it on symbols: the other side of legality's tests.

Every input element is a symbol of its own and every operation builds a term, so that two runs end
in equal terms only if each read saw the same write. Folds gather their terms as a multiset.
Parallel bands run forwards or backwards, vector bands read all lanes before they write, and a
`Local` tensor is new in each iteration around it.
"""

from collections import Counter

from nncc.ir.expr import Apply, Load
from nncc.ir.index import evaluate
from nncc.ir.nests import ASSIGN, Leaf, Local, Scan


def original(nest):
    """The outputs' terms when every statement is complete before the next."""
    run = Run(nest, backwards=False)

    def visit(items, env):
        for item in items:
            if isinstance(item, Scan):
                for k in range(item.dim.lo, item.dim.hi):
                    visit(item.body, {**env, item.dim.name: (k, k + 1)})
            else:
                ranges = {d.name: (d.lo, d.hi) for d in item.dims}
                run.instances(item.name, {**env, **ranges})

    visit(nest.body, {})
    return run.outputs()


def scheduled(nest, *, backwards):
    """The outputs' terms under the nest's schedule."""
    run = Run(nest, backwards)
    run.walk(nest.schedule, {name: dict(ranges) for name, ranges in run.ranges.items()})
    return run.outputs()


class Run:
    def __init__(self, nest, backwards):
        self.nest = nest
        self.backwards = backwards
        self.memory = {p.name: {} for p in nest.params}
        self.statements = {s.name: s for s in nest.statements}
        self.order = {}
        self.ranges = {}

        def visit(items, scans):
            for item in items:
                if isinstance(item, Scan):
                    visit(item.body, (*scans, item.dim))
                else:
                    dims = (*scans, *item.dims)
                    self.order[item.name] = [d.name for d in dims]
                    self.ranges[item.name] = {d.name: (d.lo, d.hi) for d in dims}

        visit(nest.body, ())

    def outputs(self):
        return {p.name: self.memory[p.name] for p in self.nest.outputs}

    def walk(self, tree, ranges, vector=False):
        for node in tree:
            if isinstance(node, Leaf):
                self.instances(node.statement, ranges[node.statement], vector)
            elif isinstance(node, Local):
                kept = {t: self.memory[t] for t in node.tensors}
                self.memory |= {t: {} for t in node.tensors}
                self.walk(node.body, ranges, vector)
                self.memory |= kept
            elif node.kind == "vector":
                self.walk(node.body, ranges, vector=True)
            else:
                self.band(node, ranges)

    def band(self, band, ranges):
        below = list(leaves(band.body))
        lo = min(ranges[s][band.dim][0] for s in below)
        hi = max(ranges[s][band.dim][1] for s in below)
        steps = range(lo, hi, band.step)
        for at in reversed(steps) if band.kind == "parallel" and self.backwards else steps:
            inner = dict(ranges)
            for s in below:
                a, b = ranges[s][band.dim]
                inner[s] = {
                    **ranges[s], band.dim: (max(a, at), min(b, at + band.step))
                }  # fmt: skip
            if band.kind == "parallel" and len(steps) > 1:
                self.isolated(band, inner)
            else:
                self.walk(band.body, inner)

    def isolated(self, band, ranges):
        """A parallel iteration; a fold into an element that others fold into is a race."""
        before = {t: dict(m) for t, m in self.memory.items()}
        self.walk(band.body, ranges)
        for s in leaves(band.body):
            statement = self.statements[s]
            for target in statement.targets:
                tensor = target.tensor
                if statement.combine == ASSIGN or tensor not in before:
                    continue
                for at, value in self.memory[tensor].items():
                    if before[tensor].get(at) is not value and band.dim in statement.reduction_dims:
                        self.memory[tensor][at] = ("race", value)

    def instances(self, name, ranges, vector=False):
        statement = self.statements[name]
        pending = []

        def visit(k, env):
            if k < len(self.order[name]):
                dim = self.order[name][k]
                for value in range(*ranges[dim]):
                    visit(k + 1, {**env, dim: value})
                return
            target = statement.targets[0]
            at = tuple(evaluate(i, env) for i in target.indices)
            write = (target.tensor, at, self.term(statement.values[0], env), statement.combine)
            if vector and statement.combine == ASSIGN:
                pending.append(write)
            else:
                self.write(*write)

        visit(0, {})
        for write in reversed(pending):
            self.write(*write)

    def write(self, tensor, at, term, combine):
        memory = self.memory[tensor]
        if combine == ASSIGN:
            memory[at] = term
            return
        held = memory.get(at)
        base, terms = held[1:] if isinstance(held, tuple) and held[0] == combine else (held, ())
        counted = Counter(dict(terms)) + Counter([term])
        memory[at] = (combine, base, frozenset(counted.items()))

    def term(self, e, env):
        if isinstance(e, Load):
            at = tuple(evaluate(i, env) for i in e.indices)
            shape = self.nest.param(e.tensor).type.shape
            if not all(0 <= a < n for a, n in zip(at, shape, strict=True)):
                return "outside"
            if self.nest.param(e.tensor).role == "in":
                return (e.tensor, at)
            return self.memory[e.tensor].get(at, "nothing")
        if isinstance(e, Apply):
            return (e.fn, *(self.term(a, env) for a in e.args))
        return repr(e)


def leaves(tree):
    for node in tree:
        if isinstance(node, Leaf):
            yield node.statement
        else:
            yield from leaves(node.body)
