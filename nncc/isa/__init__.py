"""Instruction sets: programs of accelerators as data, as text and as bits."""
