"""Legality of schedules: by example, and against runs on symbols."""

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nncc.diagnostics import NnccError, PassError, VerifyError
from nncc.ir.expr import apply
from nncc.ir.index import Element, atom, var
from nncc.ir.nests import Access, Band, Dim, Leaf, Local, Nest, Param, Scan
from nncc.ir.types import TensorType, i64
from nncc.passes import poly
from tests.poly.nest_builder import band, dims, fused, load, local, param, statement
from tests.poly.symbolic_run import original, scheduled

i, j, k, m, n = map(var, "ijkmn")


def legal(nest, *tree):
    try:
        poly.check_schedule(replace(nest, schedule=tree))
    except PassError:
        return False
    return True


def chain(extent=6, shift=-1):
    """first: t[i] = x[i];  second: y[i] = t[i] + t[i + shift]."""
    neighbour = load("t", i + shift, other=0)
    return Nest(
        "chain",
        (),
        (param("x", (extent,)), param("t", (extent,), "local"), param("y", (extent,), "out")),
        (
            statement("first", dims(i=extent), ("t", i), "=", load("x", i)),
            statement(
                "second", dims(i=extent), ("y", i), "=", apply("add", load("t", i), neighbour)
            ),
        ),
    )


def recurrence(steps=4, width=3):
    """scan k: h[k+1,m] = max(h[k,m], x[k,m]), then y[k,m] = h[k+1,m] through t[m]."""
    return Nest(
        "recurrence",
        (),
        (
            param("x", (steps, width)),
            param("h", (steps + 1, width), "local"),
            param("t", (width,), "local"),
            param("y", (steps, width), "out"),
        ),
        (
            statement("start", dims(m=width), ("h", 0, m), "=", load("x", 0, m)),
            Scan(
                Dim("k", 0, steps),
                (
                    statement(
                        "step", dims(m=width), ("t", m), "=",
                        apply("max", load("h", k, m), load("x", k, m)),
                    ),
                    statement("keep", dims(m=width), ("h", k + 1, m), "=", load("t", m)),
                    statement("give", dims(m=width), ("y", k, m), "=", load("t", m)),
                ),
            ),
        ),
    )  # fmt: skip


# -- examples ------------------------------------------------------------------------------


def test_tiled_fused_and_symbolic():
    core = local("init", band("c", "acc"), "out")
    assert legal(fused(), band("n", band("m", core, by=3), kind="parallel"))
    assert legal(fused(), band("n", band("m", core, by=5), by=7))
    assert legal(fused(), Leaf("init"), band("c", "acc"), Leaf("out"))


def test_the_message_states_the_dependence_and_an_example():
    tree = (band("n", band("m", band("c", "acc"), "init", "out")),)
    with pytest.raises(PassError) as error:
        poly.check_schedule(replace(fused(), schedule=tree))
    text = error.value.render()
    assert (
        "the schedule of nest fused breaks the flow dependence of acc on init through t: "
        "acc runs before init" in text
    )
    assert re.search(r"\[N\] -> \{ init\[n, m\] -> acc\[n' = n, m' = m, c\] : .*0 <= n < N", text)
    found = re.search(
        r"for example init\[n=(\d+), m=(\d+)\] -> acc\[n=(\d+), m=(\d+), c=\d\] "
        r"through t\[(\d+), (\d+)\], N = (\d+)",
        text,
    )
    a, b, c, d, e, f, size = map(int, found.groups())
    assert a == c == e < size and b == d == f < 8


def test_parallel_bands_carry_nothing():
    nest = fused(n=4)
    inner = ("init", band("c", "acc"), "out")
    assert legal(nest, band("m", *inner, kind="parallel"))
    tree = (Leaf("init"), band("c", "acc", kind="parallel"), Leaf("out"))
    with pytest.raises(PassError, match="acc on acc through t: the parallel band over c carries"):
        poly.check_schedule(replace(nest, schedule=tree))
    assert not legal(chain(), band("i", "first", "second", kind="parallel"))
    assert legal(chain(shift=0), band("i", "first", "second", kind="parallel"))
    assert legal(chain(), band("i", "first", kind="parallel"), band("i", "second", kind="parallel"))


def test_a_parallel_band_binds_only_what_is_below_it():
    first = band("m", band("m", "init", kind="parallel"), by=2, kind="parallel")
    assert legal(fused(n=2, m=4, c=2), band("n", first, band("m", "acc", "out")))


def test_neighbours_decide_the_order():
    assert legal(chain(shift=-1), band("i", "first", "second"))
    assert not legal(chain(shift=1), band("i", "first", "second"))
    assert legal(chain(shift=1), band("i", "first", by=3), band("i", "second", by=2))
    # pieces of a local tensor must hold what is read in them
    assert not legal(chain(shift=-1), band("i", local("first", "second"), by=2))
    assert legal(chain(shift=-1), local(band("i", "first", "second", by=2)))


def test_reductions_may_be_reordered_and_split():
    tree = (Leaf("init"), band("c", band("m", band("n", "acc", by=2), by=3)), Leaf("out"))
    assert legal(fused(n=5), *tree)


def test_vector_lanes_are_independent():
    assert legal(chain(), band("i", "first", "second", kind="vector"))
    own = Nest(
        "own", (), (param("y", (9,), "out"), param("x", (9,))),
        (
            statement("start", dims(i=9), ("y", i), "=", load("x", i)),
            statement("next", (Dim("i", 0, 8),), ("y", i + 1), "=", load("y", i)),
        ),
    )  # fmt: skip
    assert legal(own, Leaf("start"), band("i", "next"))
    assert not legal(own, Leaf("start"), band("i", "next", kind="vector"))
    assert not legal(own, Leaf("start"), band("i", band("i", "next", by=4, kind="vector"), by=8))


def test_scans_run_in_order():
    body = ("step", "keep", "give")
    assert legal(recurrence(), Leaf("start"), band("k", *body))
    assert legal(recurrence(), Leaf("start"), band("k", local("step", "keep", "give")))
    assert not legal(recurrence(), Leaf("start"), band("k", "keep", "step", "give"))
    assert legal(recurrence(), band("m", "start", band("k", *body), kind="parallel"))
    assert not legal(recurrence(), band("k", *body), Leaf("start"))


def test_subscripts_through_tensors_may_be_anything():
    ids = Param("ids", TensorType(i64, (6,)))
    where = atom(Element("ids", (i,), 0, 6))
    nest = replace(
        chain(),
        params=(*chain().params, ids),
        body=(
            chain().body[0],
            replace(chain().body[1], targets=(Access("y", (i,)),), values=(load("t", where),)),
        ),
    )
    assert not legal(nest, band("i", "first", "second"))
    assert legal(nest, Leaf("first"), band("i", "second", kind="parallel"))
    scatter = replace(
        nest, body=(nest.body[0], replace(nest.body[1], targets=(Access("y", (where,)),)))
    )
    assert not legal(scatter, Leaf("first"), band("i", "second", kind="parallel"))


def test_products_of_sizes_are_parameters():
    a, b = var("A"), var("B")
    nest = Nest(
        "flat", ("A", "B"), (param("x", (a * b,)), param("y", (a * b,), "out")),
        (statement("s", (Dim("i", 0, a * b),), ("y", i), "=", load("x", i)),),
    )  # fmt: skip
    assert legal(nest, band("i", "s", by=16, kind="parallel"))
    assert "q0" in str(poly.domain(nest, "s"))
    # i*B + j with a symbolic B is no affine subscript: two iterations may meet
    flat = replace(
        nest, body=(statement("s", dims(i=a, j=b), ("y", i * b + j), "=", load("x", i * b + j)),)
    )
    assert not legal(flat, band("i", "s", kind="parallel"))


def test_wrong_trees_are_refused_before():
    with pytest.raises(VerifyError, match="statement out is not scheduled"):
        poly.check_schedule(replace(fused(), schedule=(Leaf("init"), Leaf("acc"))))
    with pytest.raises(PassError, match="the step of band n by N is not a number"):
        poly.check_schedule(
            replace(
                fused(),
                schedule=(Band("n", var("N"), "serial", (Leaf("init"),)), Leaf("acc"), Leaf("out")),
            )
        )
    assert poly.check_schedule(fused()) is None


def test_names_that_isl_does_not_take():
    nest = fused(n=4)
    rename = {"init": "a.b", "acc": "a b", "out": "and"}
    nest = replace(nest, body=tuple(replace(s, name=rename[s.name]) for s in nest.body))
    assert legal(nest, Leaf("a.b"), Leaf("a b"), Leaf("and"))
    with pytest.raises(PassError, match="a_b_ runs before a_b"):
        poly.check_schedule(replace(nest, schedule=(Leaf("a b"), Leaf("a.b"), Leaf("and"))))


def test_answers_are_kept_by_normalised_form():
    tree = (band("n", band("m", "init", band("c", "acc"), "out", by=4)),)
    poly.check_schedule(replace(fused(m=11), schedule=tree))
    poly.reset_calls()
    poly.check_schedule(replace(fused("K", m=11, name="other"), schedule=tree))
    assert poly.calls() == 0
    poly.check_schedule(replace(fused(m=12), schedule=tree))
    assert poly.calls() > 0


def test_dependences_and_maps_as_isl_text():
    kinds = {(d.kind, d.source, d.sink) for d in poly.dependences(fused())}
    assert kinds == {
        ("flow", "init", "acc"), ("flow", "init", "out"), ("flow", "acc", "out"),
        ("output", "init", "acc"),
    }  # fmt: skip
    folds = {(d.kind, d.source) for d in poly.dependences(fused(), reductions=True) if d.reduction}
    assert folds == {("flow", "acc"), ("anti", "acc"), ("output", "acc")}
    assert (
        str(poly.domain(fused(m=2), "init")) == "[N] -> { init[n, m] : 0 <= n < N and 0 <= m <= 1 }"
    )
    text = str(poly.schedule_map(chain(), (band("i", "first", "second", by=4),)))
    assert "first[i] -> [o0, 0, i]" in text and "second[i] -> [o0, 1, i]" in text


# -- random schedules against runs on symbols ----------------------------------------------


@st.composite
def trees(draw, nest):
    """Any tree over the statements: shared and own bands, pieces, kinds, order, locals."""
    own = {s.name: [d.name for d in s.dims] for s in nest.statements}
    for item in nest.body:
        if isinstance(item, Scan):
            for s in item.body:
                own[s.name].insert(0, item.dim.name)
    placed = set()

    def build(names, steps, depth):
        common = [d for d in own[names[0]] if all(d in own[s] for s in names)]
        if common[0] == "k" and "k" not in steps and draw(st.integers(0, 5)):
            return (Band("k", 1, "serial", build(names, {**steps, "k": 1}, depth)),)
        open_ = [d for d in common if steps.get(d, 9) > 1]
        if depth < 4 and open_ and draw(st.integers(0, 3)):
            dim = draw(st.sampled_from(open_))
            step = draw(st.sampled_from([s for s in (1, 1, 2, 3) if s <= steps.get(dim, 9)]))
            kind = "parallel" if draw(st.integers(0, 5)) == 0 else "serial"
            body = build(names, {**steps, dim: step}, depth + 1)
            return (Band(dim, step, kind, body),)
        locals_ = [p.name for p in nest.locals if p.name not in placed]
        if locals_ and draw(st.integers(0, 4)) == 0:
            tensor = draw(st.sampled_from(locals_))
            placed.add(tensor)
            return (Local((tensor,), "stack", build(names, steps, depth + 1)),)
        if len(names) == 1:
            kinds = [d for d in open_ if draw(st.integers(0, 5)) == 0]
            leaf = Leaf(names[0])
            return (Band(kinds[0], 1, "vector", (leaf,)),) if kinds else (leaf,)
        cut = draw(st.integers(1, len(names) - 1))
        halves = [build(names[:cut], steps, depth + 1), build(names[cut:], steps, depth + 1)]
        if draw(st.integers(0, 4)) == 0:
            halves.reverse()
        return (*halves[0], *halves[1])

    return build(list(own), {}, 0)


NESTS = [fused(n=2, m=4, c=2), chain(5, -1), chain(5, 1), chain(4, 0), recurrence(3, 2)]


def compare(nest, tree):
    nest = replace(nest, schedule=tree)
    try:
        poly.check_schedule(nest)
        accepted = True
    except PassError:
        accepted = False
    except NnccError:  # a tree that is no schedule of the nest
        assume(False)
    expected = original(nest)
    same = all(scheduled(nest, backwards=b) == expected for b in (False, True))
    assert not accepted or same, "an illegal schedule was accepted"
    return accepted, same


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_accepted_computes_the_same(data):
    nest = data.draw(st.sampled_from(NESTS))
    compare(nest, data.draw(trees(nest)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_refused_does_not(data):
    # without vectors every broken dependence of these nests shows in the result
    nest = data.draw(st.sampled_from(NESTS))
    tree = data.draw(trees(nest))
    assume("vector" not in repr(tree))
    accepted, same = compare(nest, tree)
    assert accepted == same


def test_an_edited_schedule_is_read_and_checked():
    from nncc.ir.text import parse_nest, print_nest

    nest = replace(
        fused(), schedule=(band("n", band("m", local("init", band("c", "acc"), "out"), by=4)),)
    )
    text = print_nest(nest)
    poly.check_schedule(parse_nest(text))
    assert "m by 4" in text
    poly.check_schedule(parse_nest(text.replace("m by 4", "m by 3")))
    edited = text.replace("for c {", "parallel c {")
    assert edited != text
    with pytest.raises(PassError, match="parallel band over c carries it"):
        poly.check_schedule(parse_nest(edited))
