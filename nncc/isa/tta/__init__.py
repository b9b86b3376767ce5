"""Programs of transport-triggered machines.

program = assemble(text, machine)           OpenASIP's move syntax, see `assembly.lark`
text = disassemble(program, machine)        and back
bits = encode(program, machine)             the binary, see `binary.py`
program = decode(bits, machine)             and back
print(listing(program, machine))            addresses, bits, moves, source nodes
"""

from nncc.isa.tta.assembler import assemble
from nncc.isa.tta.binary import decode, encode
from nncc.isa.tta.printer import disassemble, listing
from nncc.isa.tta.verify import allocate_ports, verify

__all__ = [
    "allocate_ports",
    "assemble",
    "decode",
    "disassemble",
    "encode",
    "listing",
    "verify",
]
