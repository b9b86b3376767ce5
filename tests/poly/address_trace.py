"""Traffic of a level of memory, counted by running a scheduled nest element by element.

This is the other side of the data-reuse model's test: it walks the schedule tree in plain Python,
evaluates subscripts from their text and keeps sets of addresses. It shares nothing with
`nncc.passes.reuse`.
"""

from collections import defaultdict

from nncc.ir.expr import loads
from nncc.ir.nests import ASSIGN, Band, Leaf


def trace(nest, cut, sizes=None):
    """{tensor: (loads, stores)} of a level that holds what one iteration of the first `cut`
    bands around each statement touches."""
    walker = Walker(nest, cut, sizes or {})
    whole = {}
    for s in nest.statements:
        for d in s.dims:
            whole.setdefault(s.name, {})[d.name] = (walker.number(d.lo), walker.number(d.hi))
    walker.walk(nest.schedule, whole, ())
    return {tensor: count(nest.param(tensor), tiles) for tensor, tiles in walker.tiles.items()}


class Walker:
    def __init__(self, nest, cut, sizes):
        self.cut = cut
        self.sizes = sizes
        self.statements = {s.name: self.compiled(nest, s) for s in nest.statements}
        self.tiles = defaultdict(list)  # tensor -> [(tile, [(address, is it written)])]

    def number(self, size):
        return eval(str(size), {}, dict(self.sizes))

    def compiled(self, nest, s):
        """Dimensions, constraints and accesses of a statement, subscripts as Python code."""

        def code(e):
            return compile(str(e), "nest", "eval")

        def access(tensor, indices, written):
            shape = [self.number(e) for e in nest.param(tensor).type.shape]
            return tensor, shape, [code(i) for i in indices], written

        accesses = [access(x.tensor, x.indices, False) for v in s.values for x in loads(v)]
        for target in s.targets:
            if s.combine != ASSIGN:
                accesses.append(access(target.tensor, target.indices, False))
            accesses.append(access(target.tensor, target.indices, True))
        return [d.name for d in s.dims], [code(w) for w in s.where], accesses

    def walk(self, tree, ranges, path):
        for node in tree:
            if isinstance(node, Leaf):
                self.leaf(node.statement, ranges[node.statement], path)
            elif isinstance(node, Band):
                self.band(node, ranges, path)
            else:
                self.walk(node.body, ranges, path)

    def band(self, band, ranges, path):
        below = set(leaves(band.body))
        lo = min(ranges[s][band.dim][0] for s in below)
        hi = max(ranges[s][band.dim][1] for s in below)
        for at in range(lo, hi, band.step):
            piece = (at, min(at + band.step, hi))
            inner = {**ranges, **{s: {**ranges[s], band.dim: piece} for s in below}}
            self.walk(band.body, inner, (*path, (band.dim, at)))

    def leaf(self, name, ranges, path):
        dims, wheres, accesses = self.statements[name]
        tile = path[: self.cut]
        for tensor, *_ in accesses:
            tiles = self.tiles[tensor]
            if not tiles or tiles[-1][0] != tile:
                tiles.append((tile, []))

        def run(k, env):
            if k < len(dims):
                for value in range(*ranges[dims[k]]):
                    env[dims[k]] = value
                    run(k + 1, env)
                return
            if any(eval(w, {}, env) < 0 for w in wheres):
                return
            for tensor, shape, subscripts, written in accesses:
                address = tuple(eval(s, {}, env) for s in subscripts)
                if all(0 <= a < n for a, n in zip(address, shape, strict=True)):
                    self.tiles[tensor][-1][1].append((address, written))

        run(0, dict(self.sizes))


def leaves(tree):
    for node in tree:
        if isinstance(node, Leaf):
            yield node.statement
        else:
            yield from leaves(node.body)


def count(param, tiles):
    """(loads, stores) when the level holds exactly what the current tile touches."""
    last_use = {}
    for time, (_, events) in enumerate(tiles):
        for address, _ in events:
            last_use[address] = time
    held, dirty, defined = set(), set(), set()
    loads_, stores = 0, 0

    def leave(addresses, time):
        needed = (a for a in addresses & dirty if param.role != "local" or last_use[a] >= time)
        return len(list(needed))

    for time, (_, events) in enumerate(tiles):
        now = {address for address, _ in events}
        stores += leave(held - now, time)
        dirty &= now
        held &= now
        for address, written in events:
            if address not in held:
                held.add(address)
                loads_ += not written and (param.role == "in" or address in defined)
            if written:
                dirty.add(address)
                defined.add(address)
    return loads_, stores + leave(held, len(tiles))
