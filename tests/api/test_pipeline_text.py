from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nncc.diagnostics import PassError
from nncc.passes import Tensorize
from nncc.passes.text import parse, spell_pipeline
from tests.api.toy_passes import Everything, Needy, Tiling

pytestmark = pytest.mark.usefixtures("toys")


def test_steps_and_options() -> None:
    text = """everything{count=3, ratio=1, fast=true, mode=far},   # a comment
              everything[/layer1/conv.0]{sizes=(8, 4), words=(a, "b c"), limit=none},
              needy{bits=4}"""
    assert parse(text) == (
        Everything(count=3, ratio=1.0, fast=True, mode="far"),
        Everything(node="/layer1/conv.0", sizes=(8, 4), words=("a", "b c"), limit=None),
        Needy(bits=4),
    )


def test_a_single_value_is_a_list_of_one() -> None:
    assert parse("everything{sizes=8}") == (Everything(sizes=(8,)),)


def test_real_passes() -> None:
    assert parse("tensorize[conv1]{columns=14}") == (Tensorize(node="conv1", columns=14),)
    assert spell_pipeline(parse("fold, cse,dce")) == "fold, cse, dce"


def test_options_that_a_pass_does_not_name() -> None:
    assert parse("tiling[conv1]{m=32, e=7}") == (Tiling(node="conv1", sizes={"m": 32, "e": 7}),)
    assert spell_pipeline(parse("tiling[conv1]{m=32,e=7}")) == "tiling[conv1]{m=32, e=7}"


def test_an_empty_text_is_an_empty_pipeline() -> None:
    assert parse(" # nothing\n") == ()


WRONG = [
    ("fodl", "there is no pass 'fodl'", "did you mean 'fold'"),
    ("fold cse", "expected ',', found 'cse'", ""),
    ("fold,,cse", "expected the name of a pass, found ','", ""),
    ("everything{cuont=1}", "pass 'everything' has no option 'cuont'", "did you mean 'count'"),
    ("fold{x=1}", "pass 'fold' has no option 'x'", "it has no options"),
    ("fold[conv1]", "pass 'fold' cannot be limited to a node", ""),
    ("everything[conv1", "'[' is not closed", ""),
    ("everything{count=many}", "everything{count}: many is not an integer", ""),
    ("everything{count=true}", "everything{count}: true is not an integer", ""),
    ("everything{count=1.5}", "everything{count}: 1.5 is not an integer", ""),
    ("everything{fast=1}", "everything{fast}: 1 is not true or false", ""),
    ("everything{mode=middle}", "everything{mode}: middle is not one of near, far", ""),
    ("everything{sizes=(1, a)}", "(1, a) is not a list (…, …) of which each is an integer", ""),
    ("everything{limit=a}", "a is not an integer or none", ""),
    ("everything{data=1}", "option 'data' of 'everything' holds data", ""),
    ("everything{count=1, count=2}", "option 'count' is given twice", ""),
    ("everything{count=}", "expected a value, found '}'", ""),
    ("everything{count 1}", "expected '=', found '1'", ""),
    ("everything{count=1", "expected ',', found the end", ""),
    ("tiling{m=a}", "tiling{m}: a is not an integer", ""),
    ("needy", "pass 'needy' needs the option 'bits'", ""),
    ("fold; cse", "unexpected ';'", ""),
]


@pytest.mark.parametrize(("text", "message", "help"), WRONG, ids=[w[0] for w in WRONG])
def test_errors(text: str, message: str, help: str) -> None:
    with pytest.raises(PassError) as raised:
        parse(text)
    assert message in raised.value.message
    assert help in raised.value.help


def test_an_error_shows_its_place() -> None:
    with pytest.raises(PassError) as raised:
        parse("fold,\n  everything{cuont=1}")
    assert raised.value.render().splitlines() == [
        "pipeline:2:14: pass 'everything' has no option 'cuont'",
        "    2 |   everything{cuont=1}",
        "      |              ^",
        "  help: did you mean 'count'?",
    ]


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
floats = st.floats(allow_nan=False)
everything = st.builds(
    Everything,
    count=st.integers(),
    ratio=floats,
    fast=st.booleans(),
    label=texts,
    mode=st.sampled_from(["near", "far"]),
    sizes=st.lists(st.integers(), max_size=3).map(tuple),
    words=st.lists(texts, max_size=3).map(tuple),
    limit=st.none() | st.integers(),
    node=texts,
)
words = st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True).filter(
    lambda w: w not in ("sizes", "node")
)
tiling = st.builds(Tiling, node=texts, sizes=st.dictionaries(words, st.integers(), max_size=3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(everything | tiling, max_size=3))
def test_parse_of_print(steps: list[Everything | Tiling]) -> None:
    assert parse(spell_pipeline(steps)) == tuple(steps)
