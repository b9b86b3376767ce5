"""Machines with a systolic array in files, and resized."""

from pathlib import Path

import pytest

from nncc.cli import main
from nncc.compilation import back_end
from nncc.diagnostics import TargetError
from nncc.ir.nests import ASSIGN
from nncc.isa.tpu.instructions import ACTIVATIONS, mnemonic
from nncc.machines import list_machines, load
from nncc.machines.systolic.model import MEMORIES
from nncc.machines.systolic.sizes import array_of, resized

TPU = load("tpu")
SPATIAL = '[[spatial]]\nname = "rows"'
ODD = "nest o(out y: i8[A]; A) { s: for a in 0..A { y[a] = 1 } }"
FOLDER = Path(load.__code__.co_filename).parent


def test_the_published_machine():
    a = TPU.array
    assert (a.rows, a.columns, a.unified_rows, a.accumulator_rows) == (256, 256, 98304, 4096)
    sizes = {s.name: s.bytes for s in TPU.storage}
    assert sizes["unified_buffer"] == 24 << 20
    assert sizes["accumulators"] == 4 << 20
    assert sizes["weight_fifo"] == 4 * 65536
    assert sizes["weight_memory"] == 8 << 30
    assert {s.name: s.above for s in TPU.storage} == {
        "host": "", "weight_memory": "host", "weight_fifo": "weight_memory",
        "unified_buffer": "host", "accumulators": "unified_buffer",
    }  # fmt: skip
    assert TPU.memory("weight_memory").read_bytes_per_cycle == pytest.approx(34e9 / 700e6)
    assert TPU.vector_bytes == 256


def test_operations_are_nests_on_memories():
    wanted = {"matmul", "matmul_unsigned", *(mnemonic(k) for k in ACTIVATIONS)}
    assert TPU.operations.keys() == wanted
    for o in TPU.operations.values():
        places = dict(o.places)
        assert set(places.values()) <= set(MEMORIES)
        for p in o.semantics.params:
            assert (p.name in places) == (p.type.rank > 0)
        (statement,) = o.semantics.statements
        assert (statement.combine == ASSIGN) != o.is_reduction


def test_targets_lists_and_prints(capsys):
    assert "tpu" in list_machines()
    assert main(["targets", "tpu"]) == 0
    text = capsys.readouterr().out
    assert "256 x 256, 91.75 TOPS at 700 MHz; 4096 accumulator rows of 256 x i32" in text
    assert "FIFO of 4 tiles, one from memory in 1349.27 cycles" in text
    assert main(["targets", "tpu", "--json"]) == 0
    assert '"accumulator_rows": 4096' in capsys.readouterr().out


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("rows = 256\ncolumns", "rows = 0\ncolumns", "array.rows is 0; it must be an integer"),
        ("fifo_tiles = 4", "fifo_tile = 4", "array.fifo_tile is not a field"),
        ("fifo_tiles = 4\n", "", "array.fifo_tiles is missing"),
        ("rows = 256\ncolumns", "rows = 70000\ncolumns", "array.rows is 70000, not in 1..65535"),
        ("unified_bytes = 25_165_824", "unified_bytes = 255",
         "array.unified_bytes: rows is 0, not in 1..16777216"),
        ('name = "weight_fifo"\n', 'name = "fifo"\n', "storage has no weight_fifo"),
        ('name = "host"\n', 'name = "host"\nbytes = 3\n', "storage[0].bytes follows from"),
        (SPATIAL, f'[[storage]]\nname = "l1"\nabove = "host"\n\n{SPATIAL}',
         "storage[5].name: 'l1' is none of its"),
        (SPATIAL, f"{SPATIAL}\ncount = 256", "spatial[0].count follows from the array"),
        (SPATIAL, SPATIAL.replace("rows", "row"),
         "'row' is none of its\n  help: the fan-out of an array is rows and columns"),
        ('name = "weight_fifo"\n', 'name = "weight_fifo"\n\n[[storage]]\nmanaged = true\n',
         "storage[3].name: 'None' is none of its"),
        ("weight_bytes_per_second = 34_000_000_000", "weight_bytes_per_second = 0",
         "array.weight_bytes_per_second is 0; it must be an integer of at least 1"),
        ("queue_depth = 16", "queue_depth = 1.5", "array.queue_depth is 1.5; it must be"),
        ("host_latency = 700", "host_latency = -1", "array.host_latency is -1; it must be"),
        ('name = "host"\n', '', "storage has no host"),
        ('frequency_hz = 7.0e8', 'frequency_hz = 0', "frequency_hz is 0; it must be a number"),
        (SPATIAL, f'{SPATIAL}\nbelow = "host"\n\n{SPATIAL}',
         "spatial[1].name: 'rows' is there twice"),
        (SPATIAL, f'[[operation]]\nname = "matmull"\nenergy = 1\n\n{SPATIAL}',
         "operation[0].name: there is no operation 'matmull'\n  help: did you mean 'matmul'"),
        (SPATIAL, f'[[operation]]\nname = "pool_max"\nsemantics = "{ODD}"\n\n{SPATIAL}',
         "operation[0].semantics is the same for all machines with an array: leave it out"),
        (SPATIAL, f'[[operation]]\nname = "matmul"\nenergy = -1\n\n{SPATIAL}',
         "operation[0].energy is -1; it must be a number of at least 0"),
        ("frequency_hz = 7.0e8", "frequency_hz = inf", "frequency_hz is inf; it must be a number"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path, old, new, message):
    text = (FOLDER / "tpu.toml").read_text()
    assert text.count(old) == 1
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(TargetError) as error:
        load(path)
    assert message in str(error.value)


def test_wrong_pipelines_and_back_ends(tmp_path, capsys):
    text = (FOLDER / "tpu.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("fold, cse", "folld, cse"))
    assert main(["targets", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: pipeline: " in error and "'folld'" in error and "'fold'" in error
    for wrong in ("tpx", "interface", "../cpu", ""):
        path.write_text(text.replace('backend = "tpu"', f'backend = "{wrong}"'))
        with pytest.raises(TargetError, match=f"has no back end: there is no '{wrong}'") as told:
            back_end(load(path))
        assert "back ends: cpu, tpu, tta;" in str(told.value)


def test_a_small_machine_in_a_file(tmp_path):
    text = (FOLDER / "tpu.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("rows = 256\ncolumns = 256", "rows = 16\ncolumns = 8"))
    machine = load(path)
    assert machine.memory("accumulators").bytes == 4096 * 8 * 4
    assert machine.array.unified_rows == 1572864


def test_energies_of_operations_in_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    own = '\n[[operation]]\nname = "matmul"\nenergy = 0.07\n'
    path.write_text((FOLDER / "tpu.toml").read_text() + own)
    machine = load(path)
    assert machine.operations["matmul"].energy == 0.07
    assert machine.operations["matmul"].semantics == TPU.operations["matmul"].semantics
    assert machine.operations["add_rows"] == TPU.operations["add_rows"]


def test_resized():
    small = resized(TPU, rows=4, columns=3, unified_bytes=4 * 64 + 3, accumulator_rows=16)
    sizes = {s.name: s.bytes for s in small.storage}
    assert sizes["unified_buffer"] == 256  # whole rows
    assert sizes["accumulators"] == 16 * 3 * 4
    assert {s.name: s.count for s in small.spatial} == {"rows": 4, "columns": 3}
    assert small.memory("unified_buffer").read_pj_per_byte == 12.5
    tiny = resized(TPU, rows=1, columns=1)  # only what instructions can address is there
    assert (tiny.array.unified_rows, tiny.array.weight_tiles) == (1 << 24, 1 << 32)
    assert tiny.memory("weight_memory").bytes == 1 << 32
    with pytest.raises(TargetError, match=r"array\.accumulator_rows is 65537, not in 1\.\.65536"):
        resized(TPU, accumulator_rows=65537)
    with pytest.raises(TargetError, match="machine 'example_npu' has no systolic array"):
        array_of(load("example_npu"))
