"""The nncc language: printing every level, and reading it back.

    parse_module(print_module(m)) == m

`grammar.lark` is the syntax of all levels. What it does not say:
 - A name is an identifier, perhaps with dots; any other one, and the words of the language, stand
   in back quotes: `x:0`. `_` among the operands or results of a node: absent.
 - Between brackets, in ranges and in shapes stand sizes: integers, named sizes and dims with
   + - * // % min max ceildiv, and elements of integer tensors with their range: (idx[i] in 0..N).
 - Everything else is a typed scalar. A number takes the dtype of its siblings, else that of where
   the value goes; by itself it is written f32(1.0). Conversions are cast(f32, x), sizes as
   numbers value(i64, n + 1). x[i] else v is v outside of x.
 - sum(c, r in 0..3)(…) reduces inside an expression (definitions only); t[i] sum= … in a
   statement; a declared combine of several components writes as many targets: v[n], i[n] best= ….
 - What a definition leaves out follows by the rules in `nncc.ir.definition`; the content of
   tensors is described in `data.py`.
 - at "name" is the node of the user's model that something comes from; it is no part of equality.

The printers are light; the parser (lark) is loaded when something is first parsed.
"""

from __future__ import annotations

from pathlib import Path

from nncc.ir.graph import Module
from nncc.ir.loops import Function
from nncc.ir.nests import Definition, Nest
from nncc.ir.text.files import write_module
from nncc.ir.text.print_expr import print_expr, print_layout, print_size, print_type
from nncc.ir.text.print_graph import print_graph, print_module
from nncc.ir.text.print_loops import print_function, print_stmts
from nncc.ir.text.print_nests import (
    print_definition,
    print_nest,
    print_schedule,
    print_statement,
)


def parse_module(text: str, *, file: str = "<text>", folder: str | Path | None = None) -> Module:
    """The module that `text` describes. Raises FrontendError.

    Types that the text leaves out are absent in `Graph.types`, and what it states about types
    is believed: `nncc.frontend.dsl.load_nn` infers and checks, the verifier checks.

    Args:
        file: the text's name, for errors and locations.
        folder: where the text's data files are.
    """
    from nncc.ir.text.parser import read
    from nncc.ir.text.read_module import read_module

    where = None if folder is None else Path(folder)
    return read(text, "module", file, lambda t: read_module(t, file, where))


def parse_nest(text: str, *, file: str = "<text>") -> Nest:
    """A single nest. Raises FrontendError."""
    from nncc.ir.text.parser import read
    from nncc.ir.text.read_nests import read_nest

    return read(text, "nest", file, lambda t: read_nest(t, file))


def parse_definition(text: str, *, file: str = "<text>") -> Definition:
    """A single definition. Raises FrontendError."""
    from nncc.ir.text.parser import read
    from nncc.ir.text.read_nests import read_definition

    return read(text, "definition", file, lambda t: read_definition(t, file, {}))


def parse_function(text: str, *, file: str = "<text>") -> Function:
    """A single loops function. Raises FrontendError."""
    from nncc.ir.text.parser import read
    from nncc.ir.text.read_loops import read_function

    return read(text, "function", file, lambda t: read_function(t, file))


__all__ = [
    "parse_definition",
    "parse_function",
    "parse_module",
    "parse_nest",
    "print_definition",
    "print_expr",
    "print_function",
    "print_graph",
    "print_layout",
    "print_module",
    "print_nest",
    "print_schedule",
    "print_size",
    "print_statement",
    "print_stmts",
    "print_type",
    "write_module",
]
