"""Programs of transport-triggered machines as LLVM code that simulates them.

`layout.py` places the machine's state in one block of memory; `meaning.py` writes what an
operation computes; `units.py` what happens at a trigger; `control.py` jumps and loops; `code.py`
instructions and the tail of every cycle. Scalar functions are those of the CPU's back end: there
is no second emitter of them.
"""
