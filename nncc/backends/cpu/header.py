"""The C header of a compiled model: plain C99, to be used with the object file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nncc.backends.cpu.entry import STATUS
from nncc.ir.index import Element, Size
from nncc.ir.program import Program, largest_size
from nncc.ir.types import TensorType
from nncc.runtime.native import FIRST_FAILURE

C_TYPES = {
    "f64": "double", "f32": "float", "i64": "int64_t", "i32": "int32_t", "i16": "int16_t",
    "i8": "int8_t", "u64": "uint64_t", "u32": "uint32_t", "u16": "uint16_t", "u8": "uint8_t",
    "bool": "uint8_t", "f16": "uint16_t", "bf16": "uint16_t",
}  # fmt: skip

_HELPERS = """\
#ifndef NNCC_TENSOR
#define NNCC_TENSOR
/* A dense, row-major array. `bytes` is checked. */
typedef struct {
  void *data;
  int64_t bytes;
} nncc_tensor;

static inline int64_t nncc_floordiv(int64_t a, int64_t b) { return a / b - (a % b < 0); }
static inline int64_t nncc_mod(int64_t a, int64_t b) { return a % b < 0 ? a % b + b : a % b; }
static inline int64_t nncc_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t nncc_max(int64_t a, int64_t b) { return a > b ? a : b; }
#endif
"""

_AFTER_FAILURE = [
    f"   After {FIRST_FAILURE} and higher ones outputs and state hold no meaning; nothing outside",
    "   of the given memory was read or written.",
]

_FUNCTIONS = {"//": "nncc_floordiv", "%": "nncc_mod", "min": "nncc_min", "max": "nncc_max"}


def identifier(name: str) -> str:
    """A C identifier like `name`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain and not plain[0].isdigit() else f"_{plain}"


def header(program: Program, failures: Mapping[int, str] | None = None) -> str:
    """The text of `<name>.h`; `failures` are the statuses of this model besides the common ones."""
    name, signature, memory = program.name, program.signature, program.memory
    order = {s: k for k, s in enumerate(signature.sizes)}
    sizes = [f"   sizes[{k}]: {s}" for s, k in order.items()] or ["   sizes: none; pass NULL"]
    inputs = [f"   in[{k}]: {_described(n, t)}" for k, (n, t) in enumerate(signature.inputs)]
    outputs = [f"   out[{k}]: {_described(n, t)}" for k, (n, t) in enumerate(signature.outputs)]
    status = [
        f"   {code}: {_comment(text)}" for code, text in {**STATUS, **(failures or {})}.items()
    ]
    guard = f"NNCC_{name}_H"  # names that differ in case only are two models
    lines = [
        f"/* {_comment(name)}: a neural network compiled by nncc. Link with {name}.o.",
        "",
        *sizes,
        *inputs,
        *outputs,
        "",
        f"   Each size is from 1 to {largest_size(program)}. The functions return",
        *status,
        *(_AFTER_FAILURE if failures else []),
        "   weights: the content of weights.bin. weights, state and arena start at multiples of",
        "   64 bytes; outputs, state and arena overlap nothing else. state holds what survives a",
        f"   call: call {name}_reset once before the first one. arena is scratch memory. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        _HELPERS,
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"int {name}_run(const void *weights, void *state, void *arena, const nncc_tensor *in,",
        f"    {' ' * len(name)}    nncc_tensor *out, const int64_t *sizes);",
        f"int {name}_reset(const void *weights, void *state, const int64_t *sizes);",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"enum {{ {name}_inputs = {len(inputs)}, {name}_outputs = {len(outputs)} }};",
        f"static const int64_t {name}_weights_bytes = {memory.weights_bytes};",
        _bytes_function(f"{name}_state_bytes", memory.state_bytes, order),
        _bytes_function(f"{name}_arena_bytes", memory.arena_bytes, order),
        _shape_function(f"{name}_input_shape", signature.inputs, order),
        _shape_function(f"{name}_output_shape", signature.outputs, order),
        f"#endif /* {guard} */",
    ]
    return "\n".join(lines) + "\n"


def _described(name: str, t: TensorType) -> str:
    shape = "".join(f"[{s}]" for s in t.shape)
    return f"{C_TYPES[t.dtype.name]} {_comment(name)}{_comment(shape)}  ({t.dtype.name})"


def _comment(text: str) -> str:
    """Text that may stand in a comment: on one line, beginning and ending none."""
    return re.sub(r"(?<=\*)(?=/)|(?<=/)(?=\*)|\s", " ", text)


def _bytes_function(name: str, size: Size, order: dict[str, int]) -> str:
    return (
        f"static inline int64_t {name}(const int64_t *sizes) {{\n"
        f"  (void)sizes;\n  return {expression(size, order)};\n}}"
    )


def _shape_function(
    name: str, tensors: tuple[tuple[str, TensorType], ...], order: dict[str, int]
) -> str:
    cases = []
    for k, (_, t) in enumerate(tensors):
        sets = "".join(f" shape[{j}] = {expression(e, order)};" for j, e in enumerate(t.shape))
        cases.append(f"  case {k}:{sets} return {t.rank};")
    return "\n".join([
        f"/* Writes the extents of tensor k into shape; returns how many there are, or -1. */\n"
        f"static inline int {name}(int k, const int64_t *sizes, int64_t *shape) {{",
        "  (void)sizes; (void)shape;",
        "  switch (k) {",
        *cases,
        "  default: return -1;",
        "  }",
        "}",
    ])  # fmt: skip


def expression(size: Size, order: dict[str, int]) -> str:
    """A size as a C expression over the array `sizes`."""
    if isinstance(size, int):
        return f"INT64_C({size})"
    terms = []
    for monomial, factor in size.terms:
        factors = [f"INT64_C({factor})"] if factor != 1 or not monomial else []
        for a in monomial:
            if isinstance(a, str):
                factors.append(f"sizes[{order[a]}]")
                continue
            assert not isinstance(a, Element), "sizes of a signature read no tensors"
            x, y = expression(a.a, order), expression(a.b, order)
            factors.append(f"{_FUNCTIONS[a.fn]}({x}, {y})")
        terms.append(" * ".join(factors))
    return " + ".join(terms)
