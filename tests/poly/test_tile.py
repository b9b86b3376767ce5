"""The `tile` pass: schedules that are legal and follow the choice of the model."""

from dataclasses import replace

import pytest

from nncc.diagnostics import PassError
from nncc.ir.expr import Const
from nncc.ir.graph import Graph, Module
from nncc.ir.index import var
from nncc.ir.nests import Band, Dim, Leaf, Nest
from nncc.ir.types import f32
from nncc.machines import load as load_machine
from nncc.passes.emission.tree import emit_nest
from nncc.passes.poly import check_schedule
from nncc.passes.reuse import predict, schedule_loops, scheduled_traffic
from nncc.passes.text import parse
from nncc.passes.tile import Tile
from tests.poly.nest_builder import band, conv, dims, fused, load, local, matmul, param, statement

NPU = load_machine("example_npu")


def module(*nests):
    return Module(graph=Graph("main", (), (), (), {}), nests={n.name: n for n in nests})


def tiled(nest, **options):
    return Tile(**options).run(module(nest), NPU).nests[nest.name]


def test_single_statement():
    nest = tiled(matmul(128, 128, 128))
    loops = schedule_loops(nest, "acc")
    assert loops and all(step > 0 for _, step in loops)
    check_schedule(nest)
    whole = sum(t.bytes for t in predict(nest, (("m", 1), ("n", 1), ("k", 1))))
    assert sum(t.bytes for t in predict(nest, loops)) < whole / 4


def test_statements_share_the_loops_that_all_have():
    nest = tiled(fused(n=256, m=256, c=64))
    check_schedule(nest)
    (root,) = nest.schedule
    assert isinstance(root, Band)
    paths = {s: schedule_loops(nest, s) for s in ("init", "acc", "out")}
    assert [d for d, _ in paths["init"]] == [d for d, _ in paths["acc"] if d != "c"]


def test_given_sizes_win():
    nest = fused(n=8, m=64, c=16, name="conv1")
    node = tiled(nest, sizes={"m": 32, "c": 4}, node="conv1", memory=4096)
    steps = dict(schedule_loops(node, "acc"))
    assert (steps["m"], steps["c"]) == (32, 4)
    check_schedule(node)


def test_what_fits_is_left_alone():
    m = module(matmul(4, 4, 4))
    assert Tile().run(m, NPU) is m


def test_scheduled_nests_and_elementwise_nests_are_left_alone():
    scheduled = replace(matmul(128, 128, 128), schedule=(band("m", "acc"),))
    m = module(scheduled)
    assert Tile().run(m, NPU) is m
    i = var("i")
    copy = Nest(
        "copy", (), (param("x", (99999,)), param("y", (99999,), "out")),
        (statement("s", dims(i=99999), ("y", i), "=", load("x", i)),),
    )  # fmt: skip
    assert Tile().run(module(copy), NPU).nests["copy"].schedule is None


def test_statements_that_must_not_share_loops_get_their_own():
    # out reads what acc computes for the other end of i
    i, k = var("i"), var("k")
    nest = Nest(
        "turned",
        (),
        (param("x", (5000, 4)), param("t", (5000,), "local"), param("y", (5000,), "out")),
        (
            statement("acc", dims(i=5000, k=4), ("t", i), "sum", load("x", i, k)),
            statement("last", dims(i=5000), ("y", i), "=", load("t", 4999 - i)),
        ),
    )
    found = tiled(nest)
    check_schedule(found)
    assert len(found.schedule) == 2
    shared = (band("i", local("acc", "last"), by=100),)
    with pytest.raises(PassError, match="flow dependence"):
        check_schedule(replace(nest, schedule=shared))


def test_ranges_that_depend_on_other_dimensions_are_left_alone():
    i, j = var("i"), var("j")
    over = (Dim("i", 0, 500), Dim("j", 0, i + 1))
    nest = Nest(
        "triangle", (), (param("x", (500, 500)), param("y", (500,), "out")),
        (statement("acc", over, ("y", i), "sum", load("x", i, j)),),
    )  # fmt: skip
    assert tiled(nest) is nest


def test_only_equal_ranges_share_loops():
    i, k = var("i"), var("k")
    nest = Nest(
        "ranges",
        (),
        (param("x", (4000, 4)), param("t", (5000,), "local"), param("y", (5000,), "out")),
        (
            statement("init", dims(i=5000), ("t", i), "=", Const(0.0, f32)),
            statement("acc", dims(i=4000, k=4), ("t", i), "sum", load("x", i, k)),
            statement("last", dims(i=5000), ("y", i), "=", load("t", i)),
        ),
    )
    found = tiled(nest)
    assert len(found.schedule) == 3
    check_schedule(found)
    emit_nest(found, NPU.operations)


def test_errors():
    with pytest.raises(PassError, match="there is no nest 'con1'") as error:
        Tile(node="con1").run(module(replace(matmul(), name="conv1")), NPU)
    assert "did you mean 'conv1'?" in error.value.help
    with pytest.raises(PassError, match="statement acc has no dimension 'z'"):
        tiled(matmul(), sizes={"z": 2}, node="matmul")
    assert tiled(matmul(), sizes={"z": 2}).schedule is None


def test_options_as_text():
    (step,) = parse("tile[conv1]{m=32, c=64, memory=4096}")
    assert step == Tile(sizes={"m": 32, "c": 64}, memory=4096, node="conv1")


def test_loops_are_added_around_a_register_tile():
    cpu = load_machine("cpu")
    caches = {"l3": 1 << 25, "l2": 1 << 20, "l1": 1 << 15}
    cpu = replace(
        cpu, storage=tuple(replace(s, bytes=caches.get(s.name, s.bytes)) for s in cpu.storage)
    )
    nest = conv(256, 64, 56, 56, 1, 1, pad=0)
    core = band("f", band("f", band("m", "acc", by=16, kind="unroll"), kind="unroll"), by=14)
    nest = replace(nest, schedule=(band("m", band("e", core), by=16),))
    m = Module(graph=Graph("main", (), (), (), {}), nests={"conv": nest})
    found = Tile().run(m, cpu).nests["conv"]
    check_schedule(found)
    loops = schedule_loops(found, "acc")
    assert loops[-2:] == (("f", 1), ("m", 16)) and ("f", 14) in loops and len(loops) > 5
    assert scheduled_traffic(found, cpu).cost < 0.9 * scheduled_traffic(nest, cpu).cost
    given = Tile(sizes={"e": 24}, node="conv").run(m, cpu).nests["conv"]
    assert ("e", 24) in schedule_loops(given, "acc")
    check_schedule(given)
    # where arithmetic sets the pace, loops for the memories gain nothing
    fast = replace(nest, schedule=(band("m", band("e", band("f", Leaf("acc", "muladd1")))),))
    m = replace(m, nests={"conv": fast})
    assert Tile().run(m, cpu) is m
