"""Programs of transport-triggered machines as LLVM code that simulates them.

`layout.py` places the machine's state in one block of memory; `meaning.py` writes what an
operation computes from `values.py`. Blocks, for speed: `unit.py` makes a function of those that
follow one another, `block.py` writes one, over `block_operations.py` and `block_values.py`.
Plain code, for single cycles and exact faults: `code.py` writes instructions and the tail of every
cycle, `units.py` what happens at a trigger, `control.py` jumps and loops. Scalar functions are
those of the CPU's back end: there is no second emitter of them.
"""
