"""How all of it stands, drawn in so many lines of so many columns: from values to lines, without any I/O.

What comes from the database is taken as text, never as markup, and what would steer a terminal is escaped.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from reactive_orch.commands.problems import NO_PROBLEMS, one_line
from reactive_orch.commands.terminal import GOOD, LEVELS, UNITS, count
from reactive_orch.core.badges import letter
from reactive_orch.core.news import generation, worker_state
from reactive_orch.core.overview import is_silent
from reactive_orch.core.room import Wanted, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from reactive_orch.core.lags import Lags
    from reactive_orch.model import MemberId
    from reactive_orch.model.overview import (
        GenerationSeen,
        LogOverview,
        Overview,
        ProjectionOverview,
        ReplicaSetOverview,
        WorkerOverview,
    )
    from reactive_orch.model.problems import Problem

COLOURS = (75, 114, 215, 176, 80, 186, 147, 173, 110, 150, 139, 180)
"""Of workers, behind black letters: from the 256 of xterm, far enough from each other, and none as red as a problem."""
STATES = {"halted": "bold red", "suspended": "yellow", "unserved": "yellow", "refused": "yellow", "paused": "cyan"}
QUIET = "bright_black"
PROBLEM_LINES_MAX = 4
TEXT_AT = 13
"""Where a problem's text begins, behind its level and its age."""
SHOWN_LEAST = 3
"""So many problems are shown before anything has more room; workers and projections, too, of the only replica set."""
NARROWEST = 20
"""What is drawn for a window that is narrower is cut."""
MANY = 100_000
INDENT = 2
NAME_WIDTH_MIN = 8
UNOWNED, ELSEWHERE = "·", "?"
_WORDS = re.compile(r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+")
"""Of a command, with what is quoted in one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """All that is drawn."""

    where: str
    """The database's address, without its password."""
    overview: Overview
    problems: Sequence[Problem]
    badges: Mapping[str, Mapping[MemberId, int]]
    """Replica set → worker → the number of its letter and colour."""
    lags: Lags
    missing: str | None = None
    """Since when the database cannot be reached, and why; None if it can."""


class _Item(NamedTuple):
    """One of a list, in forms of growing height, which are drawn when there is room for them."""

    heights: Sequence[int]
    drawn: Callable[[int], Sequence[Text]]
    """By the number of the form."""


def _item(*forms: Sequence[Text]) -> _Item:
    return _Item(list(map(len, forms)), forms.__getitem__)


class _Cut(NamedTuple):
    """A list of things of which as much is shown as there is room for."""

    items: Sequence[_Item]
    least: int
    what: str
    """The name of one, for the line that says how many more there are; empty if that is not worth a line."""

    def wanted(self) -> Wanted:
        return Wanted([item.heights for item in self.items], self.least, silent=not self.what)

    def lines(self, forms: Sequence[int]) -> Iterator[Text]:
        for item, form in zip(self.items, forms, strict=False):
            yield from item.drawn(form)
        if self.what and len(forms) < len(self.items):
            yield Text(f"{' ' * INDENT}… and {count(len(self.items) - len(forms), f'more {self.what}')}", QUIET)


class _Block(NamedTuple):
    """Lines that are always there, and the list under them."""

    head: Sequence[Text]
    list: _Cut


def picture(shown: Shown, width: int, height: int) -> list[Text]:
    """Return the lines to show, at most `height`, none wider than `width`."""
    blocks, left_out = _blocks(shown, max(width, NARROWEST), height)
    fixed = sum(len(block.head) for block in blocks) + bool(left_out)
    forms = fit([block.list.wanted() for block in blocks], height - fixed)
    lines = [line for block, of in zip(blocks, forms, strict=True) for line in (*block.head, *block.list.lines(of))]
    if left_out:
        lines.append(Text(f"… and {count(left_out, 'more replica set')}: --replica-set NAME shows one", QUIET))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def _blocks(shown: Shown, width: int, height: int) -> tuple[list[_Block], int]:
    """Return what is to be shown, of as many replica sets as have room, and how many have none."""
    top = [*_top(shown, width)]
    sets = shown.overview.replica_sets
    of_sets = [[*_of_replica_set(each, shown, width)] for each in sets]
    least = sum(map(_least, top))
    room = 0
    for number, blocks in enumerate(of_sets):
        room += sum(map(_least, blocks))
        if number and least + room > height - 1:
            of_sets = of_sets[:number]
            break
    return [*top, *(block for blocks in of_sets for block in blocks)], len(sets) - len(of_sets)


def _least(block: _Block) -> int:
    shown = block.list.items[: block.list.least]
    return len(block.head) + sum(item.heights[0] for item in shown) + (len(shown) < len(block.list.items))


def _top(shown: Shown, width: int) -> Iterator[_Block]:
    now = f"{shown.overview.at.astimezone(UTC):%H:%M:%SZ}"
    lines = [_apart(Text.assemble(("reactive_orch", "bold"), f"  {one_line(shown.where)}"), f"{now}  q ends", width)]
    if shown.missing is not None:
        lines += [Text(line, LEVELS["bad"]) for line in textwrap.wrap(one_line(shown.missing), width)[:3]]
    if not shown.problems and shown.missing is None:
        lines.append(Text(NO_PROBLEMS, GOOD))
    yield _Block(lines, _Cut([_problem(each, width) for each in shown.problems], SHOWN_LEAST, "problem"))
    logs = shown.overview.logs
    yield _Block((), _Cut([_item([line]) for log in logs for line in _log(log)], len(logs), "log line"))
    if not shown.overview.replica_sets:
        hint = "no replica set yet: python -m reactive_orch --replica-set NAME starts a worker"
        yield _Block([Text(hint, QUIET)], _Cut((), 0, ""))


def _apart(left: Text, right: str, width: int) -> Text:
    left.truncate(max(width - len(right) - 2, 0), overflow="ellipsis", pad=True)
    return Text.assemble(left, "  ", (right, QUIET))


def _problem(problem: Problem, width: int) -> _Item:
    """Return its forms: a line; the whole text; with what helps."""
    age = "" if problem.age_s is None else lasting(problem.age_s)
    said = one_line(f"{problem.text}{f' ({problem.who})' if problem.who else ''}")
    level, indent = (f"{problem.level:<5}", LEVELS[problem.level]), " " * TEXT_AT
    room = max(width - TEXT_AT, 1)
    first, *more = textwrap.wrap(said, room, max_lines=PROBLEM_LINES_MAX, placeholder=" …")
    short = Text.assemble(level, f"{age:>6}  ", said)
    whole = [Text.assemble(level, f"{age:>6}  ", first), *(Text(f"{indent}{line}") for line in more)]
    command = [Text(f"{indent}{line}", QUIET) for line in _command(problem.command, room)]
    forms = [[short], whole] if more else [[short]]
    return _item(*forms, [*whole, *command]) if command else _item(*forms)


def _command(command: str, width: int) -> list[str]:
    """Return a command in as many lines as it needs, so that a shell takes them as one."""
    lines: list[str] = []
    for word in _WORDS.findall(one_line(command)):
        if lines and len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _log(log: LogOverview) -> Iterator[Text]:
    settled = "unknown" if log.settled is None else str(log.settled)
    rate = "" if log.events_per_s is None else f", {log.events_per_s:.1f} events/s"
    last = f"last position {log.seen.head}, settled {settled}{rate}, {log.seen.partitions} partitions"
    yield Text.assemble((f"log {one_line(log.seen.name)}", "bold"), f"  {last}")
    for holder in log.seen.holders:
        yield Text(f"{' ' * INDENT}held by {one_line(str(holder))}", QUIET)


def _of_replica_set(of: ReplicaSetOverview, shown: Shown, width: int) -> Iterator[_Block]:
    title = f"── replica set {one_line(of.name)} "
    heading = Text(title + "─" * max(width - len(title), 0))
    least = SHOWN_LEAST if len(shown.overview.replica_sets) == 1 else 1
    badges = shown.badges.get(of.name, {})
    generations = [_item([_generation(each, of.generation)]) for each in of.generations]
    yield _Block([heading], _Cut(generations, 1, ""))
    if of.workers:
        row = partial(_row, _columns(_WORKER, list(map(_name, of.workers)), width))
        workers = [_item([_worker(worker, badges, row)]) for worker in of.workers]
        yield _Block([_head(row, _WORKER)], _Cut(workers, least, "worker"))
    else:
        yield _Block([Text("no worker", LEVELS["warn"])], _Cut((), 0, ""))
    if of.projections:
        names = [one_line(each.seen.subscription.projection) for each in of.projections]
        columns = _columns(_PROJECTION, names, width)
        plot = partial(shown.lags.plot, of.name, width=columns[-1] if len(columns) == len(_PROJECTION) else 0)
        projections = [_projection(each, badges, partial(_row, columns), plot, width) for each in of.projections]
        yield _Block([_head(partial(_row, columns), _PROJECTION)], _Cut(projections, least, "projection"))


def _generation(seen: GenerationSeen, last: GenerationSeen | None) -> Text:
    style = LEVELS["warn"] if seen is last and seen.complete_s is None else QUIET
    words, _, settled = generation(seen, last).rpartition(", ")
    return Text.assemble(words, (f", {settled}", style), (f", {lasting(seen.age_s)} ago", QUIET))


class _Column(NamedTuple):
    """A column of a table. The first one, of names, has all of its width before the last ones have any."""

    title: str
    width: int
    right: bool = True


_WORKER = (
    _Column("worker", 30, right=False),
    _Column("state", 13, right=False),
    _Column("partitions", 10),
    _Column("heartbeat", 9),
    _Column("up", 6),
    _Column("version", 8, right=False),
)
_PROJECTION = (
    _Column("projection", 15, right=False),
    _Column("state", 9, right=False),
    _Column("waiting", 7),
    _Column("oldest", 6),
    _Column("events/s", 8),
    _Column("left", 6),
    _Column("failing", 7),
    _Column("last 2 min", 13, right=False),
)
NAME_WIDTH_MAX = 40
PLOT_WIDTH_MAX = 30
COLUMNS_LEAST = 2
"""Besides the name, which is cut for them: the state, and how many."""


def _columns(columns: Sequence[_Column], names: Sequence[str], width: int) -> list[int]:
    """Return the widths of as many columns as have room; the names have what the others leave."""
    first, *others = columns
    while others and first.width + sum(each.width + 1 for each in others) > width and len(others) > COLUMNS_LEAST:
        others.pop()
    while others and NAME_WIDTH_MIN + sum(each.width + 1 for each in others) > width:
        others.pop()
    rest = width - sum(each.width + 1 for each in others)
    name = min(max(map(len, (first.title, *(f"{name}  " for name in names)))), NAME_WIDTH_MAX, rest)
    widths = [name, *(each.width for each in others)]
    if len(widths) == len(_PROJECTION):
        widths[-1] = min(widths[-1] + rest - name, PLOT_WIDTH_MAX)
    return widths


def _row(widths: Sequence[int], cells: Sequence[Text], columns: Sequence[_Column]) -> Text:
    line = Text()
    for at, (cell, width, column) in enumerate(zip(cells, widths, columns, strict=False)):
        cut = cell.copy()
        cut.truncate(width, overflow="ellipsis")
        if column.right:
            cut.pad_left(width - cut.cell_len)
        elif at < len(widths) - 1:
            cut.pad_right(width - cut.cell_len)
        line.append(" " if at else "").append_text(cut)
    return line


def _head(row: Callable[[Sequence[Text], Sequence[_Column]], Text], columns: Sequence[_Column]) -> Text:
    return row([Text(column.title, QUIET) for column in columns], columns)


def _name(worker: WorkerOverview) -> str:
    return f" {worker.seen.id} {one_line(worker.seen.name)}"


def _worker(
    worker: WorkerOverview,
    badges: Mapping[MemberId, int],
    row: Callable[[Sequence[Text], Sequence[_Column]], Text],
) -> Text:
    seen, state = worker.seen, worker_state(worker)
    well = seen.connected and not is_silent(seen)
    cells = (
        Text.assemble(_badge(badges.get(seen.id)), _name(worker)),
        Text(one_line(state), "" if state == "serving" else LEVELS["warn"]),
        Text(str(worker.partitions)),
        Text(lasting(seen.heartbeat_age_s), "" if well else LEVELS["warn"]),
        Text("" if worker.uptime_s is None else lasting(worker.uptime_s)),
        Text(one_line(seen.account.version) if seen.account else ""),
    )
    return row(cells, _WORKER)


def _projection(
    each: ProjectionOverview,
    badges: Mapping[MemberId, int],
    row: Callable[[Sequence[Text], Sequence[_Column]], Text],
    plot: Callable[..., str],
    width: int,
) -> _Item:
    """Return its forms: a line; with a map under it, of one line, two, four, …, of a cell for each partition."""
    seen = each.seen
    cells = (
        Text(one_line(seen.subscription.projection), "bold"),
        Text(each.state, STATES.get(each.state, "")),
        Text("?" if each.lag_events is None else number(each.lag_events)),
        Text("" if each.lag_s is None else lasting(each.lag_s)),
        Text(f"{each.events_per_s:.1f}" if each.events_per_s < MANY else number(int(each.events_per_s))),
        Text(lasting(each.eta_s) if each.eta_s else ""),
        Text(number(seen.failing_keys), LEVELS["warn"] if seen.failing_keys else ""),
        Text(plot(seen.subscription), "cyan"),
    )
    line = row(cells, _PROJECTION)
    parts, cells_max = len(seen.owners), width - INDENT
    sizes = [*_per_cell(parts, cells_max)]
    return _Item(
        [1, *(1 + _map_height(parts, each, cells_max) for each in sizes)],
        lambda form: [line, *_map(seen.owners, badges, sizes[form - 1], cells_max)] if form else [line],
    )


def _per_cell(partitions: int, width: int) -> Iterator[int]:
    """Yield how many partitions are in a cell of a map of one line, of two, of four, and so on."""
    room, each = width, partitions
    while partitions and each > 1:
        each = 1 if partitions <= room else -(-partitions // max(room - len(_note(partitions)), 1))
        yield each
        room *= 2


def _note(each: int) -> str:
    return f" {each} a cell" if each > 1 else ""


def _map_height(partitions: int, each: int, width: int) -> int:
    return -(-(-(-partitions // each) + len(_note(each))) // width)


def _map(owners: Sequence[MemberId], badges: Mapping[MemberId, int], each: int, width: int) -> list[Text]:
    """Return the lines of a map. A cell that stands for several partitions has the sign of most of them."""
    cells = [Counter(owners[at : at + each]).most_common(1)[0][0] for at in range(0, len(owners), each)]
    lines = [Text(" " * INDENT) for _ in range(_map_height(len(owners), each, width))]
    for line, at in zip(lines, range(0, len(cells), width), strict=False):
        for owner, same in groupby(cells[at : at + width]):
            times = len(list(same))
            line.append_text(_badge(badges.get(owner), times) if owner else Text(UNOWNED * times, QUIET))
    lines[-1].append(_note(each), QUIET)
    return lines


def _badge(number: int | None, times: int = 1) -> Text:
    """Return the sign of a worker, so many times; that of one that is no member is a question mark."""
    if number is None:
        return Text(ELSEWHERE * times, LEVELS["bad"])
    return Text(letter(number) * times, f"black on color({COLOURS[number % len(COLOURS)]})")


def number(count: int) -> str:
    """Return a number in at most six characters."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= max(size, MANY):
            return f"{count / size:.1f}{unit}" if count < 100 * size else f"{count // size}{unit}"
    return str(count)


def lasting(seconds: float) -> str:
    """Return a time in its largest unit: seldom another text while time passes."""
    for unit, size in UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"
