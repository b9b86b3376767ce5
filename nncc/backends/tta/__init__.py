"""Loops to programs of transport-triggered machines.

memory     where tensors live; views of `main` as addresses
simplify   named sizes put in, loops that run on through memory made one
lower      statements → operations over virtual registers, in loops and branches
select     which operation of the machine computes an expression
optimize   common subexpressions, code out of loops, dead code
allocate   virtual registers → registers, spilling to data memory
schedule   operations → moves in cycles: buses, ports, bypassing, software pipelining
link       blocks → a program
compiler   all of it, and the executable on the simulators
"""
