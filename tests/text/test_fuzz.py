"""Whatever is done to a text, reading it gives a module or a FrontendError."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.diagnostics import FrontendError
from nncc.frontend.dsl import read_nn
from nncc.ir.text import parse_module, print_module
from tests.text import strategies as random
from tests.text.test_errors import CASES
from tests.text.test_programs import EXAMPLES

TOKEN = re.compile(r'"[^"\n]*"|`[^`\n]*`|[A-Za-z_][\w.]*|\d+(?:\.\d+)?|\.\.|\s+|[^\w\s]')
SEEDS = [*EXAMPLES.values(), *CASES.values()]
WORDS = ["nncc", "1", "0", "-1", "1e39", "2.5", "inf", "nan", "true", "(", ")", "[", "]", "{", "}",
         ",", ";", ":", "=", "+", "-", "*", "//", "%", "/", "<", "<<", "..", "@", "else", "in",
         "for", "where", "x", "N", "f32", "f32[2]", "f32x4", "i64", '"t"', "`q`", "sum", "max",
         "cast", "value", "graph", "def", "nest", "scan", "state", "as", "at", "_", "\n", "é", "$",
         '"', "`", "#", "\\", "99999999999999999999", "d0", "step", "schedule"]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    tokens = TOKEN.findall(draw(texts))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(tokens)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del tokens[at : at + draw(st.integers(1, 3))]
        elif kind == 1:
            tokens.insert(at, draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=3))))
        elif kind == 2 and tokens:
            tokens.insert(at, draw(st.sampled_from(tokens)))
        elif at + 1 < len(tokens):
            tokens[at], tokens[at + 1] = tokens[at + 1], tokens[at]
    return "".join(tokens)


def accepts(text: str) -> bool:
    """Whether the text is read; any other exception than FrontendError is a bug."""
    try:
        module = parse_module(text)
        printed = print_module(module)  # which looks at small tensors, whose data may be missing
    except FrontendError as error:
        assert error.render()
        return False
    assert parse_module(printed) == module
    return True


@settings(max_examples=400, deadline=None)
@given(mutated(st.sampled_from(SEEDS)))
def test_mutations_of_programs(text: str) -> None:
    if not accepts(text):
        return
    try:
        read_nn(text)
    except FrontendError as error:
        assert error.render()


@settings(max_examples=100, deadline=None)
@given(mutated(random.modules().map(print_module)))
def test_mutations_of_printed_modules(text: str) -> None:
    accepts(text)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_noise(text: str) -> None:
    accepts(text)
    accepts(f"nncc 1\n{text}")
