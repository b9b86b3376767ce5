"""Names, strings and numbers as text, and back.

    conv1.w      `x:0`      "any text"      0.1      -inf

Every one reads back as exactly what it was.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from nncc.ir.types import DTYPES, DType

# Words that the parser takes for keywords where a name could stand too (a test compares).
_WORDS = (
    "align alloc as at bytes call combine const declare def else false file fill for function "
    "graph if in inf layout let local nan nest parallel param perform prefetch random scan "
    "schedule sha256 size state step true unroll update value vector where while with"
)
KEYWORDS = frozenset(_WORDS.split())

_PLAIN = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_DTYPE = re.compile(rf"({'|'.join(DTYPES)})(x\d+)?")


@lru_cache(maxsize=1 << 16)
def quote(name: str) -> str:
    """`name` as text: bare if it is a plain identifier, else in back quotes.

    >>> quote("conv1.w"), quote("x:0"), quote("for")
    ('conv1.w', '`x:0`', '`for`')
    """
    reserved = name == "_" or name in KEYWORDS or _DTYPE.fullmatch(name)
    if _PLAIN.fullmatch(name) and not reserved:
        return name
    body = json.dumps(name, ensure_ascii=False)[1:-1]
    return "`" + body.replace('\\"', '"').replace("`", "\\u0060") + "`"


def unquote(text: str) -> str:
    """The name that a quoted text stands for. Raises ValueError for a wrong escape."""
    body = re.sub(r'\\.|"', lambda m: '\\"' if m[0] in ('"', '\\"') else m[0], text[1:-1])
    return _unescaped(f'"{body}"')


def string(text: str) -> str:
    """`text` as a string literal."""
    return json.dumps(text, ensure_ascii=False)


def unstring(literal: str) -> str:
    """The text of a string literal. Raises ValueError for a wrong escape."""
    if "\\" not in literal:
        return literal[1:-1]
    return _unescaped(literal)


def _unescaped(literal: str) -> str:
    text = str(json.loads(literal, strict=False))
    text.encode()  # half of a surrogate pair could not be written to a file: a ValueError
    return text


def number(value: Any, dtype: DType) -> str:
    """`value` as a literal of `dtype`: the shortest text that reads back as the same number.

    >>> from nncc.ir.types import f32, i8
    >>> number(0.10000000149011612, f32), number(2, f32), number(-3, i8)
    ('0.1', '2.0', '-3')
    """
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.is_integer:
        return str(int(value))
    if dtype.name == "f64":
        return repr(float(value))
    text = str(dtype.numpy.type(value))
    return text if re.search(r"[.en]", text) else f"{text}.0"  # bfloat16 writes 1 for 1.0


def read_number(text: str) -> bool | int | float:
    """The number that a literal stands for: `true`, `12`, `-0.5`, `1e-3`, `-inf`, `nan`."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return float(text)
