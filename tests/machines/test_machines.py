"""Machine files: what `load` gives, and what it says about files that are wrong."""

import re
from pathlib import Path

import numpy as np
import pytest

from nncc.diagnostics import TargetError
from nncc.ir.expr import loads
from nncc.ir.index import evaluate
from nncc.machines import list_machines, load
from nncc.machines.host import parse_features, parse_size

AVX512 = {
    "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx2", "avx", "fma", "sse2",
}  # fmt: skip
AVX2 = {"avx2", "avx", "fma", "sse2"}


@pytest.mark.parametrize(
    "features, variant, vector, registers, absent, present",
    [
        (AVX512, "avx512", 64, 32, set(), {"fma16", "dot4x16", "dot4x8", "dot4x4", "fma1"}),
        (AVX512 - {"avx512vnni"}, "avx512", 64, 32, {"dot4x16", "dot4x4"}, {"dot2x16"}),
        (
            AVX2,
            "avx2",
            32,
            16,
            {"fma16", "dot4x8", "dot2x16"},
            {"fma8", "fma8v", "dot2x8", "dot2x4"},
        ),
        (AVX2 | {"avxvnni"}, "avx2", 32, 16, {"dot4x16"}, {"dot4x8", "dot4x4"}),
        ({"sse2"}, "baseline", 16, 16, {"fma8", "fma1"}, {"muladd4", "muladd1", "mla4"}),
        ((), "baseline", 16, 16, {"fma4"}, {"muladd4"}),
    ],
)
def test_cpu_variants_follow_features(features, variant, vector, registers, absent, present):
    cpu = load("cpu", features)
    assert (cpu.variant, cpu.vector_bytes, cpu.vector_registers) == (variant, vector, registers)
    assert present <= cpu.operations.keys()
    assert not absent & cpu.operations.keys()
    assert cpu.memory("registers").bytes == vector * registers


def test_a_named_variant_leaves_features_unused():
    cpu = load("cpu-avx2", AVX512)
    assert cpu.variant == "avx2"
    assert cpu.features == AVX2
    assert load("cpu-scalar", AVX512).features == {"sse2"}
    assert load("cpu-scalar", ()).vector_bytes == 4
    with pytest.raises(TargetError, match="variant avx512 needs avx512f, avx512bw"):
        load("cpu-avx512", AVX2)


def test_the_machine_that_runs_this():
    cpu = load("cpu")
    assert cpu.backend == "cpu" and cpu.pipeline.startswith("fold")
    sizes = [s.bytes for s in cpu.storage]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 0
    assert [s.above for s in cpu.storage] == ["", "dram", "l3", "l2", "l1"]
    assert load("cpu") is cpu


def test_list_and_nearest_names():
    assert set(list_machines()) >= {"cpu", "cpu-avx512", "cpu-avx2", "cpu-scalar", "example_npu"}
    with pytest.raises(TargetError, match="unknown target 'cpy'") as error:
        load("cpy")
    assert "'cpu'" in error.value.help
    with pytest.raises(TargetError, match="there is no machine file"):
        load("nowhere/machine.toml")


def test_machines_with_managed_memories_have_fan_out_and_links():
    npu = load("example_npu")
    assert npu.memory("scratchpad").managed
    assert [(s.name, s.count, s.below) for s in npu.spatial] == [
        ("rows", 8, "scratchpad"),
        ("columns", 8, "scratchpad"),
    ]
    assert npu.spatial[0].multicast and npu.spatial[1].reduce
    assert (npu.links[0].source, npu.links[0].target) == ("dram", "scratchpad")
    with pytest.raises(KeyError):
        npu.memory("l1")


# -- operations ----------------------------------------------------------------------------

OPERATIONS = list(load("cpu", AVX512).operations.values())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_spellings_use_their_operands(operation):
    holes = re.findall(r"{(\w+)}", operation.spelling)
    assert {p.name for p in operation.semantics.params} <= set(holes)
    assert "$" not in operation.spelling + "".join(operation.declares) + operation.name
    defined = re.findall(r"^{(\w+)} =", operation.spelling, re.MULTILINE)
    assert defined[-1] == "result" and len(set(defined)) == len(defined)
    assert all(line.startswith("{") for line in operation.spelling.splitlines())
    called = set(re.findall(r"call .*?(@[\w.]+)\(", operation.spelling))
    assert called == {re.search(r"@[\w.]+", d).group() for d in operation.declares}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_semantics_are_multiply_and_add(operation):
    """Evaluated by hand: acc[m] + sum over k of a * b."""
    (statement,) = operation.semantics.statements
    y, a, b = operation.semantics.params
    rng = np.random.default_rng(1)
    tensors = {
        p.name: rng.integers(-100, 100, p.type.static_shape).astype(p.type.dtype.numpy)
        for p in (a, b)
    }
    offset = 128 if operation.name.startswith("dot4") else 0
    wide = {name: t.astype(np.int64) for name, t in tensors.items()}
    if y.type.rank == 0:
        expected = wide["a"] * wide["b"]
    elif b.type.rank == 2:
        expected = ((wide["a"] + offset) * wide["b"]).sum(axis=1)
    else:
        expected = wide["a"] * wide["b"]
    assert statement.combine == "sum"
    assert {x.tensor for x in loads(statement.values[0])} == {"a", "b"}
    result = np.zeros(y.type.static_shape, np.int64)
    grid = np.ndindex(*(d.hi for d in statement.dims))
    for point in grid:
        env = dict(zip((d.name for d in statement.dims), point, strict=True))
        at = tuple(evaluate(i, env) for i in statement.targets[0].indices)
        factors = [
            int(wide[x.tensor][tuple(evaluate(i, env) for i in x.indices)])
            for x in loads(statement.values[0])
        ]
        result[at] += (factors[0] + offset) * factors[1]
    assert (result == expected).all()


# -- wrong files ---------------------------------------------------------------------------

GOOD = """
format = 1
name = "toy"
backend = "none"
pipeline = "fold"
frequency_hz = 1e6
vector_bytes = 16
vector_registers = 4

[[storage]]
name = "dram"
bytes = 65536

[[storage]]
name = "sram"
above = "dram"
bytes = 1024
managed = true
"""
OPERATION = """
[[operation]]
name = "mac"
semantics = "nest mac(out y: i32[], in a: i8[], in b: i8[]) { acc: { y[] sum= cast(i32, a[]) } }"
spelling = "mac"
"""


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(GOOD + OPERATION)
    machine = load(path)
    assert machine.name == "toy" and list(machine.operations) == ["mac"]
    assert machine.features == frozenset()


@pytest.mark.parametrize(
    "old, new, message, help",
    [
        ("format = 1", "format = 2", "format is 2; this nncc reads format 1", ""),
        ('backend = "none"', "", "backend is missing: it is a text", ""),
        ("bytes = 1024", "byte = 1024", "storage[1].byte is not a field", "'bytes'"),
        ("bytes = 1024", "bytes = 0", "storage[1].bytes is 0; it must be an integer of at", ""),
        ("bytes = 1024", "", "storage[1].bytes is missing: it is an integer", ""),
        ("managed = true", "managed = 1", "storage[1].managed is 1; it must be true or false", ""),
        ('above = "dram"', "", "storage[1].above is missing: what is sram filled from?", ""),
        ('above = "dram"', 'above = "dran"', "there is no memory 'dran' before it", "'dram'"),
        ('name = "sram"', 'name = "dram"', "storage[1].name: there are two memories 'dram'", ""),
        ("managed = true", 'holds = ["input"]', "must be a list out of 'in', 'out', 'local'", ""),
        ("managed = true", 'detect = "cache"', "it must be one of 'cache1'", "did you mean"),
        ("vector_bytes = 16", "", "vector_bytes is missing", ""),
        ("bytes = 65536", "bytes = ", "cannot read the machine file", ""),
        ("nest mac(out y", "nest mac(in y", "the first parameter must be the accumulator", ""),
        ("y[] sum=", "y[] =", "there must be one statement, a reduction", ""),
        ("y[] sum=", "y[ sum=", "operation[0].semantics: ", ""),
        ('spelling = "mac"', 'spelling = "mac"\n[[link]]', "link[0].name is missing", ""),
        ('spelling = "mac"', 'spelling = "mac"\nper_cycle = 0', "a number of at least 1e-06", ""),
    ],
)
def test_errors_name_the_field(tmp_path, old, new, message, help):
    text = GOOD + OPERATION
    assert old in text
    path = tmp_path / "toy.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TargetError) as error:
        load(path)
    assert message in error.value.message
    assert help in error.value.help
    assert error.value.location.file == str(path)


# -- the host ------------------------------------------------------------------------------


def test_features_by_their_names_in_llvm():
    text = "processor : 0\nflags\t\t: sse2 sse4_1 avx512_vnni avx_vnni pni\nflags : none\n"
    assert parse_features(text) == {"sse2", "sse4.1", "avx512vnni", "avxvnni", "sse3"}
    assert parse_features("Features : fp asimd") == {"fp", "neon"}
    assert parse_features("") == frozenset()


def test_sizes_of_caches():
    assert parse_size("32K") == 32768
    assert parse_size("1M") == 1 << 20
    assert parse_size("") is None
    assert parse_size("K2") is None


def test_energies_cite_their_source():
    text = (Path(load.__code__.co_filename).parent / "cpu.toml").read_text()
    assert "ISCA 2021, table 2" in text
    # 16 multiply-adds of 1.31 + 0.38 pJ; 64 of 0.07 + 0.03
    operations = load("cpu", AVX512).operations
    assert operations["fma16"].energy == pytest.approx(16 * 1.69)
    assert operations["dot4x16"].energy == pytest.approx(6.4)
