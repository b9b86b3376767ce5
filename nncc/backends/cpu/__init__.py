"""The CPU back end: Loops to LLVM IR to machine code, in this process or as an artifact.

    emit          Loops functions → LLVM IR text
    entry         the exported functions of a compiled model (the C ABI)
    target, jit   LLVM IR → object code → callable addresses
    header        the C header of an artifact
    compiler      a module with functions → `nncc.runtime.Executable`, or an artifact

Nothing outside of this package imports llvmlite; it is loaded when code is made or loaded.
"""
