"""Programs that people write: examples, weak numbers, what may be left out, data by rule."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nncc.diagnostics import FrontendError
from nncc.frontend.dsl import load_nn, read_nn
from nncc.ir.definition import instantiate
from nncc.ir.expr import Const
from nncc.ir.graph import Module
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.text import parse_module, print_definition, print_module, write_module
from nncc.ir.types import f32

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = {p.stem: p.read_text("utf-8") for p in sorted(FOLDER.glob("*.nn"))}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str, tmp_path: Path, golden: Callable[[str], None]) -> None:
    module = load_nn(FOLDER / f"{name}.nn")
    golden(print_module(module))
    assert parse_module(print_module(module)) == module
    write_module(module, tmp_path / "m.nn")
    again = load_nn(tmp_path / "m.nn")
    assert again == module
    for symbol, content in module.symbols.items():
        np.testing.assert_array_equal(again.symbols[symbol].data.array, content.data.array)


def call(module: Module, op: str, *arrays: np.ndarray, **attrs: float) -> list[np.ndarray]:
    """A definition applied to arrays, by the interpreter of nests."""
    from nncc.ir.tensor import Tensor

    definition = module.definitions[op]
    nest = instantiate(definition, [Tensor(a).type for a in arrays], attrs)
    inputs = {p.name: a for p, a in zip(nest.inputs, arrays, strict=True)}
    found = interpret_nest(nest, inputs, {})
    return [found[p.name] for p in nest.outputs]


def test_the_filter_keeps_its_memory_between_blocks() -> None:
    module = load_nn(FOLDER / "iir.nn")
    b, a, memory = (module.symbols[n].data.array for n in ("b", "a", "memory"))
    x = np.random.default_rng(0).standard_normal(60).astype(np.float32)
    (whole, _) = call(module, "biquad", x, b, a, memory)
    blocks = []
    for block in np.split(x, [7, 8, 40]):
        y, memory = call(module, "biquad", block, b, a, memory)
        blocks.append(y)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    expected = np.zeros(60)
    for t in range(60):
        past = [(x[t - k], expected[t - k]) if t >= k else (0, 0) for k in (1, 2)]
        expected[t] = b[0] * x[t] + sum(
            b[k] * u - a[k - 1] * v for k, (u, v) in zip((1, 2), past, strict=True)
        )
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-6)


def test_neurons_fire_and_start_again() -> None:
    module = load_nn(FOLDER / "lif.nn")
    w = module.symbols["weight"].data.array
    state = module.symbols["potential"]
    assert str(state.type) == "f32[N,10]"
    assert state.data.type.shape == ()
    v = np.zeros((3, 10), np.float32)
    rng = np.random.default_rng(1)
    total = 0.0
    for _ in range(20):
        x = rng.random((3, 16)).astype(np.float32)
        u = np.float32(0.95) * v + x @ w.T
        fired, after = call(module, "lif", x, w, v, leak=0.95)
        sure = np.abs(u - 1) > 1e-4
        np.testing.assert_array_equal(fired[sure], (u >= 1)[sure])
        np.testing.assert_allclose(after[sure], np.where(u >= 1, 0, u)[sure], atol=1e-4)
        v, total = after, total + fired.sum()
    assert 0 < total < 20 * 30


def test_random_weights_follow_the_stated_rule() -> None:
    text = "nncc 1\nparam `a:0`: f32[5,7] = random(seed=3, mean=0.5, std=0.25)\ngraph m() -> () {}"
    found = read_nn(text).symbols["a:0"].data.array
    rng = np.random.default_rng([3, zlib.crc32(b"a:0")])
    normal = rng.standard_normal((5, 7), np.float32)
    np.testing.assert_array_equal(found, normal * np.float32(0.25) + np.float32(0.5))
    assert found.dtype == np.float32
    # the numbers themselves, so that a change of the generator is noticed
    assert found[0, :2].tolist() == pytest.approx(EXPECTED_RANDOM, rel=1e-6)


EXPECTED_RANDOM = [0.6134793758392334, 0.6123390197753906]


def test_types_are_inferred_and_attributes_brought_into_form() -> None:
    module = read_nn("""
        nncc 1
        size N
        graph main(x: f32[N,3,8,8]) -> (y) {
          a = LeakyRelu(x) {alpha=1}
          b = Transpose(a) {perm=[0,2,3,1]}
          p, q = Split(b) {axis=3, num_outputs=2}   # of unequal parts
          y = Concat(q, p) {axis=3}
        }
    """)
    types = {k: str(v) for k, v in module.graph.types.items()}
    assert types["q"] == "f32[N,8,8,1]"
    assert types["y"] == "f32[N,8,8,3]"
    assert repr(module.graph.nodes[0].attrs["alpha"]) == "1.0"
    assert module.graph.nodes[0].location.line == 5


def test_weak_numbers_take_their_siblings_type() -> None:
    module = read_nn("""
        nncc 1
        def f(x: f32[N], k: i8[N]; a: float = 2.0) -> (y: f32[N], z: i8[N]) {
          y[i] = max(x[i] * a, 0) + select(k[i] > 3, 1, 2.5) + f32(a + 1) * cast(f32, k[i])
          z[i] = -1
        }
        graph m() -> () {}
    """)
    (y, z) = module.definitions["f"].body
    assert z.values == (Const(-1, z.values[0].dtype),)
    assert y.values[0].dtype is f32
    text = print_definition(module.definitions["f"])
    assert (
        "y[i] = max(x[i] * a, 0.0) + select(k[i] > 3, 1.0, 2.5) + (a + 1.0) * cast(f32, k[i])"
        in text
    )


def test_combines_of_the_module_are_kept_by_those_who_use_them() -> None:
    text = """
        nncc 1
        combine larger(f32) = (max(a0, b0)) identity (-inf)
        combine unused(f32) = (a0 + b0) identity (0.0)
        def f(x: f32[N]) -> (y: f32[]) { y[] = larger(k)(x[k]) }
        def g(x: f32[N]) -> (y: f32[N]) { y[k] = x[k] }
        graph m() -> () {}
    """
    module = read_nn(text)
    assert [c.name for c in module.definitions["f"].combines] == ["larger"]
    assert module.definitions["g"].combines == ()
    x = np.array([1.0, 3.0, 2.0], np.float32)
    assert call(module, "f", x)[0] == 3.0


def test_groups_are_read_with_their_regions() -> None:
    module = read_nn("""
        nncc 1
        graph main(x: f32[4]) -> (y) {
          y = Group(x) {device="cpu"} graph body(a: f32[4]) -> (c) { b = Relu(a)  c = Neg(b) }
        }
    """)
    assert str(module.graph.types["y"]) == "f32[4]"
    assert str(module.graph.nodes[0].regions[0].types["b"]) == "f32[4]"


def test_spacing_and_comments_mean_nothing() -> None:
    text = EXAMPLES["conv2d"]
    body = "\n".join(line.split("#")[0] for line in text.splitlines())
    squeezed = " ".join(body.split())
    assert read_nn(squeezed) == load_nn(FOLDER / "conv2d.nn")
    assert read_nn(body.replace("\n", "\r\n  # more\r\n")) == read_nn(squeezed)


def test_data_of_another_text_is_refused(tmp_path: Path) -> None:
    module = load_nn(FOLDER / "conv2d.nn")
    write_module(module, tmp_path / "a.nn")
    data = tmp_path / "a.safetensors"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    changed = parse_module((tmp_path / "a.nn").read_text("utf-8"), folder=tmp_path)
    with pytest.raises(FrontendError, match="its sha256 differs"):
        for symbol in changed.symbols.values():
            _ = symbol.data.array
    data.write_bytes(b"not a data file")
    changed = parse_module((tmp_path / "a.nn").read_text("utf-8"), folder=tmp_path)
    with pytest.raises(FrontendError, match="has no readable tensor 'w1'"):
        _ = changed.symbols["w1"].data.array


def test_data_is_loaded_when_it_is_used(tmp_path: Path) -> None:
    write_module(load_nn(FOLDER / "conv2d.nn"), tmp_path / "a.nn")
    module = parse_module((tmp_path / "a.nn").read_text("utf-8"), folder=tmp_path)
    (tmp_path / "a.safetensors").unlink()
    assert print_module(module)  # the digest is in the text
    with pytest.raises(FrontendError, match="has no readable tensor"):
        _ = module.symbols["w1"].data.array


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret").write_bytes(b"")
    (inner / "link").symlink_to(tmp_path / "secret")
    for name in ("link", "../secret", str(tmp_path / "secret"), "a/../../secret"):
        text = (
            f'nncc 1\nparam w: f32[3] = file("{name}", sha256="{"0" * 64}")\ngraph m() -> () {{}}'
        )
        with pytest.raises(FrontendError, match="leaves the folder"):
            parse_module(text, folder=inner)
    with pytest.raises(FrontendError, match="stands in no folder"):
        parse_module(text)
