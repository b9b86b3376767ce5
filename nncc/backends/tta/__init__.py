"""Loops to programs of transport-triggered machines.

memory     where tensors live; views of `main` as addresses
simplify   named sizes put in, loops that run on through memory made one
lower      statements → operations over virtual registers, in loops and branches, by its parts
  scope       names, buffers, open loops; shared by the parts
  words       arithmetic on words of 32 bits; wide: of 64
  addresses   integer expressions as pointers that loops step; accesses: loads and stores
  operations  what `select` finds by the machine's records, with its operands
  scalars     scalar expressions; vectors: those of lanes; lanes: what runs lane by lane
optimize   common subexpressions, code out of loops, dead code
allocate   virtual registers → registers, spilling to data memory
schedule   operations → moves in cycles: buses, ports, bypassing, software pipelining
overlap    the end of one block with the begin of the next, rounds of loops with each other
proof      schedules proved: moves do what the operations do (dataflow: which values moves carry)
link       blocks → a program
compiler   all of it, and the executable on the simulators
"""
