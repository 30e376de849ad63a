"""What finds room on a screen that is too small for all: lists are cut, and their items shown in a shorter form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Wanted:
    """A list that wants room."""

    heights: Sequence[Sequence[int]]
    """Item by item, how many lines each of its forms takes, the shortest first."""
    least: int
    """So many items come before anything that other lists have beyond theirs."""
    silent: bool = False
    """What is cut off is not worth a line that says so."""

    def height(self, forms: Sequence[int]) -> int:
        """Return the lines that its first items take in these forms, with the one that says how many are left out."""
        cut = len(forms) < len(self.heights) and not self.silent
        return sum(heights[form] for heights, form in zip(self.heights, forms, strict=False)) + cut


def fit(lists: Sequence[Wanted], room: int) -> list[list[int]]:
    """Return for each list the forms of the items that are shown, the first ones of the list; the others are cut off.

    First every list gets its least, then what is shown gets its second form, then more items are shown, then the rest
    of the room goes to longer forms.
    """
    forms: list[list[int]] = [[] for _ in lists]
    _add(lists, forms, room, least=True)
    _lengthen(lists, forms, room, most=1)
    _add(lists, forms, room, least=False)
    _lengthen(lists, forms, room, most=max((len(each) for one in lists for each in one.heights), default=1) - 1)
    return forms


def _add(lists: Sequence[Wanted], forms: list[list[int]], room: int, *, least: bool) -> None:
    """Show one more item of each list in turn, until nothing more fits."""
    more = True
    while more:
        more = False
        for index, wanted in enumerate(lists):
            limit = min(wanted.least, len(wanted.heights)) if least else len(wanted.heights)
            if len(forms[index]) < limit:
                more |= _take(lists, forms, room, index, [*forms[index], 0])


def _lengthen(lists: Sequence[Wanted], forms: list[list[int]], room: int, most: int) -> None:
    """Give what is shown its next form, one step a time, up to the one with this number."""
    for step in range(1, most + 1):
        for index, wanted in enumerate(lists):
            for item, form in enumerate(forms[index]):
                if form == step - 1 and step < len(wanted.heights[item]):
                    longer = [*forms[index][:item], step, *forms[index][item + 1 :]]
                    _take(lists, forms, room, index, longer)


def _take(lists: Sequence[Wanted], forms: list[list[int]], room: int, index: int, instead: list[int]) -> bool:
    others = sum(wanted.height(forms[at]) for at, wanted in enumerate(lists) if at != index)
    fits = others + lists[index].height(instead) <= room
    if fits:
        forms[index] = instead
    return fits
