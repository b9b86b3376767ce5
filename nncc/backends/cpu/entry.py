"""The exported functions of a compiled model, in LLVM IR.

    int <name>_run(const void *weights, void *state, void *arena,
                   const nncc_tensor *in, nncc_tensor *out, const int64_t *sizes);
    int <name>_reset(const void *weights, void *state, const int64_t *sizes);

They check what they are given (see STATUS) and call the Loops functions `main` and `reset`.
"""

from __future__ import annotations

from collections.abc import Collection

from nncc.backends.cpu.sizes import Sizes
from nncc.backends.cpu.text import Writer, symbol
from nncc.ir.index import Size
from nncc.ir.program import MAIN, RESET, Program, largest_size

# What the functions return.
STATUS = {
    0: "done",
    1: "a size is less than 1 or too large",
    2: "an input has the wrong number of bytes",
    3: "an output has the wrong number of bytes",
    4: "a size is too small: a tensor inside of the model would be empty",
}  # further ones: `nncc.backends.cpu.checks`
TENSOR_BYTES = 16  # of the struct nncc_tensor: a pointer and a 64-bit number


def exported_names(name: str) -> tuple[str, str]:
    """The symbols of the two functions."""
    return f"{name}_run", f"{name}_reset"


def emit_entry(program: Program, failing: Collection[str] = ()) -> str:
    """`<name>_run` and `<name>_reset`; the functions `failing` return a status."""
    run, reset = exported_names(program.name)
    return "\n\n".join((_emit_run(run, program, failing), _emit_reset(reset, program, failing)))


def _emit_run(name: str, program: Program, failing: Collection[str]) -> str:
    w = Writer(set(), frozenset())
    sizes = Sizes(w)
    sizes.open_scope()
    _load_sizes(w, sizes, program)
    signature = program.signature
    pointers: list[str] = []
    for status, base, tensors in ((2, "in", signature.inputs), (3, "out", signature.outputs)):
        for k, (_, t) in enumerate(tensors):
            at = w.define(f"getelementptr i8, ptr %{base}, i64 {k * TENSOR_BYTES}")
            pointers.append(w.define(f"load ptr, ptr {at}, align 8"))
            at = w.define(f"getelementptr i8, ptr %{base}, i64 {k * TENSOR_BYTES + 8}")
            _require_bytes(w, w.define(f"load i64, ptr {at}, align 8"), sizes, t.bytes, status)
    arguments = [f"ptr {p}" for p in (*pointers, "%weights", "%state", "%arena")]
    _finish(w, sizes, MAIN, arguments, signature.sizes, fails=MAIN in failing)
    parameters = ("weights", "state", "arena", "in", "out", "sizes")
    return _function(name, parameters, w)


def _emit_reset(name: str, program: Program, failing: Collection[str]) -> str:
    w = Writer(set(), frozenset())
    sizes = Sizes(w)
    sizes.open_scope()
    _load_sizes(w, sizes, program)
    arguments = ["ptr %weights", "ptr %state"]
    _finish(w, sizes, RESET, arguments, program.signature.sizes, fails=RESET in failing)
    return _function(name, ("weights", "state", "sizes"), w)


def _function(name: str, parameters: tuple[str, ...], w: Writer) -> str:
    typed = ", ".join(f"ptr %{p}" for p in parameters)
    return f"define i32 {symbol(name)}({typed}) #0 {{\nentry:\n{w.text()}\n}}"


def _load_sizes(w: Writer, sizes: Sizes, program: Program) -> None:
    """Reads the named sizes and requires that each is in range.

    What depends on them is computed after the checks, so it goes where it is asked for.
    """
    limit = largest_size(program)
    for k, name in enumerate(program.signature.sizes):
        at = w.define(f"getelementptr i8, ptr %sizes, i64 {8 * k}")
        value = w.define(f"load i64, ptr {at}, align 8", name)
        low = w.define(f"icmp sge i64 {value}, 1")
        high = w.define(f"icmp sle i64 {value}, {limit}")
        _require(w, w.define(f"and i1 {low}, {high}"), 1)
        sizes.bind(name, value, nonnegative=True)
    # the next scope starts here: nothing is hoisted above the checks
    sizes.open_scope()
    for name in program.signature.sizes:
        sizes.bind(name, sizes.value_of(name), nonnegative=True)
    for extent in program.extents:
        _require(w, w.define(f"icmp sge i64 {sizes.value(extent)}, 1"), 4)


def _require_bytes(w: Writer, given: str, sizes: Sizes, expected: Size, status: int) -> None:
    _require(w, w.define(f"icmp eq i64 {given}, {sizes.value(expected)}"), status)


def _require(w: Writer, holds: str, status: int) -> None:
    """Returns `status` from the function unless the condition holds."""
    fine, wrong = w.fresh("fine"), w.fresh("wrong")
    w.line(f"br i1 {holds}, label %{fine}, label %{wrong}")
    w.label(wrong)
    w.line(f"ret i32 {status}")
    w.label(fine)


def _finish(
    w: Writer, sizes: Sizes, callee: str, pointers: list[str], names: tuple[str, ...], fails: bool
) -> None:
    numbers = [f"i64 {sizes.value_of(n)}" for n in names]
    call = f"{symbol(callee)}({', '.join(pointers + numbers)})"
    if fails:
        w.line(f"ret i32 {w.define(f'call i32 {call}')}")
        return
    w.line(f"call void {call}")
    w.line("ret i32 0")
