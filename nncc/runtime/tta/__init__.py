"""Simulators of transport-triggered machines.

`Interpreter` (interpreter.py) is the definition of what a program does; `Translated`
(translated.py) does the same through LLVM, much faster. Both run programs cycle by cycle, stop on
faults, and count. They are imported from their modules, so that each loads only what it needs.
"""
