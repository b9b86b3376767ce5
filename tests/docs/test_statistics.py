"""docs/statistics.md has the fields that `--json` prints."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

from nncc.runtime.statistics import Layer, MemoryUse, OperationUse, Statistics, total

DOCUMENT = Path(__file__).parents[2] / "docs" / "statistics.md"
RUN = Statistics(
    "m", 1e6, 10, 4,
    (
        Layer("a", 6, 3, 12, {"x": 3}, {"ram": MemoryUse(8, 4, 2.0)}, {"alu": 1.0},
              {"mul": OperationUse(5, 1.0)}),
        Layer("", 4, 1, 0, {"x": 1, "y": 2}, {"rom": MemoryUse(2, 0, 0.5)}, {"bus": 0.25}),
    ),
    {"alu": 4},
)  # fmt: skip


def test_the_document_has_every_field() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    first_columns = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    documented = {name for cell in first_columns for name in re.findall(r"`(\w+)`", cell)}
    assert documented == RUN.as_json().keys()
    for record in (MemoryUse, OperationUse):
        assert all(f"`{f.name}`" in text for f in fields(record))
    layer = RUN.as_json()["layers"][0]
    (described,) = re.findall(r"^\| `layers` \| (.*) \|$", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", described)) == layer.keys()


def test_layers_add_up() -> None:
    found = json.loads(json.dumps(total([RUN, RUN]).as_json()))
    assert (found["cycles"], found["macs"], found["calls"]) == (20, 24, 2)
    assert found["stalls"] == {"x": 8, "y": 4}
    assert found["units"] == {
        "alu": {"cycles": 8, "energy_pj": 2.0}, "bus": {"cycles": 0, "energy_pj": 0.5}
    }  # fmt: skip
    assert found["operations"] == {"mul": {"count": 10, "energy_pj": 2.0}}
    assert found["memories"]["ram"] == {"read_bytes": 16, "written_bytes": 8, "energy_pj": 4.0}
    assert found["energy_pj"] == 2 * (2.0 + 1.0 + 0.5 + 0.25)
    assert [layer["name"] for layer in found["layers"]] == ["a", ""]
    assert "\ncalls: 2\n" in str(total([RUN, RUN])) and "calls" not in str(RUN)
    filled = replace(RUN, fillers=3)
    assert "\ncalls: 1; 3 samples only filled up the last one\n" in str(filled)
    assert "energy of units: alu 2e-06 µJ, bus 5e-07 µJ\n" in str(total([RUN, RUN]))
