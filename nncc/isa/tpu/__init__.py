"""Programs of machines with a systolic array, such as the TPU.

program = assemble(text, machine)           see `assembler.py`
text = disassemble(program)                 and back
bits = encode(program, machine)             the binary, see `binary.py` and `encoding.py`
program = decode(bits, machine)             and back
print(listing(program, outcome.cycles()))   positions, cycles, instructions, origins

`instructions` says what the machine does, one frozen dataclass each, `program` what belongs to it.
"""

from nncc.isa.tpu.assembler import assemble
from nncc.isa.tpu.binary import decode, encode
from nncc.isa.tpu.printer import disassemble, instruction_text, listing
from nncc.isa.tpu.verify import verify

__all__ = [
    "assemble",
    "decode",
    "disassemble",
    "encode",
    "instruction_text",
    "listing",
    "verify",
]
