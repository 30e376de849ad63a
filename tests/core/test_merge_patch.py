"""A merge patch makes of one object the other, and says no more than has changed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from integration_test.harness.viewers import merged
from reactive_orch.core.merge_patch import merge_patch

LEAVES = st.integers() | st.text() | st.lists(st.integers() | st.none()) | st.booleans()
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES),
    lambda inner: st.dictionaries(st.sampled_from("abc"), LEAVES | inner),
)


@given(OBJECTS, OBJECTS)
def test_it_makes_the_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, merge_patch(before, after)) == after


@given(OBJECTS)
def test_what_has_not_changed_is_not_said(value: dict[str, Any]) -> None:
    assert not merge_patch(value, dict(value))


def test_only_what_has_changed_is_said() -> None:
    assert merge_patch({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "d": 3}) == {"a": {"c": 4}}


def test_null_and_missing_are_the_same() -> None:
    assert not merge_patch({"a": None}, {})
    assert merge_patch({"a": 1}, {"a": None}) == {"a": None}
