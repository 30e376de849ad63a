"""`watch`: what `status` tells, live. On a terminal a picture that is drawn anew, elsewhere a line for each change."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from reactive_orch.commands.command import Command, connected, monitors
from reactive_orch.commands.problems import one_line
from reactive_orch.commands.terminal import can_draw, shown_time
from reactive_orch.config import shown as without_password
from reactive_orch.core.badges import Badges
from reactive_orch.core.lags import Lags
from reactive_orch.core.news import news, summary
from reactive_orch.core.overview import overview
from reactive_orch.core.problems import problems
from reactive_orch.errors import Locked, ReactiveOrchError, Unavailable
from reactive_orch.looking.eyes import Eyes, Sight
from reactive_orch.postgres import overview as looking
from reactive_orch.postgres.faults import took_too_long
from reactive_orch.process import last_resort
from reactive_orch.process.abandonable import abandonable
from reactive_orch.process.streams import is_closed_at_the_other_end, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from anyio.abc import TaskStatus
    from rich.text import Text

    from reactive_orch.commands.watch_picture import Shown
    from reactive_orch.commands.watch_terminal import Terminal
    from reactive_orch.model.overview import Overview
    from reactive_orch.postgres.connection import AnyConnection

LOOK_GAP_S = 1.0
"""From one look to the next, however much is notified."""
SUMMARY_EVERY_S = 10.0
REBALANCES = 5
"""So many generations are shown."""
GIVE_BACK_S = 1.0
"""For giving the terminal back: one that somebody holds up takes no characters."""


class _View(Protocol):
    """Whoever is told of what was seen."""

    async def show(self, now: Overview) -> None:
        """Take what one look has shown."""

    async def miss(self, error: ReactiveOrchError) -> None:
        """Take it that the database could not be looked at."""


async def _watch(options: argparse.Namespace, url: str) -> None:
    terminal = _terminal()
    eyes = eyes_on(url, options.replica_set)
    try:
        first = await eyes.look()
        if terminal is not None:
            await _on_screen(eyes, first, terminal, without_password(url))
        else:
            await _in_lines(eyes, first)
    finally:
        await eyes.close()


def _terminal() -> Terminal | None:
    """Return where the picture is drawn; None where one cannot draw."""
    if not sys.stdout.isatty():
        return None
    if not can_draw():
        say(
            "there is no picture without another package (pip install 'reactive_orch[cli]'), but a line for each change"
        )
        return None
    from reactive_orch.commands.watch_terminal import Terminal, is_terminal

    return Terminal() if is_terminal() else None


def eyes_on(url: str, replica_set: str | None) -> Eyes[Overview]:
    """Return eyes on one replica set, or on all."""

    async def see(connection: AnyConnection) -> Overview:
        return overview(await looking.look(connection, replica_set, back=REBALANCES - 1))

    return Eyes(
        Sight(connect=lambda first: connected(url, first=first), see=see, replica_set=replica_set, gap_s=LOOK_GAP_S)
    )


async def look_on(eyes: Eyes[Overview], first: Overview, view: _View) -> None:
    """Tell a view of what was seen first, and then of each look, for ever."""
    await view.show(first)
    while True:
        await eyes.rest()
        try:
            now = await eyes.look()
        except ReactiveOrchError as error:
            await view.miss(error)
        else:
            await view.show(now)


def _misses(error: ReactiveOrchError, since: str = "") -> str:
    """Return why nothing could be seen."""
    if took_too_long(error):
        return f"the database does not answer{since}"
    if isinstance(error, Unavailable):
        return f"the database is not reachable{since}: {error}"
    return f"nothing can be seen of the database{since}: {error}"


def _unchanging(error: ReactiveOrchError) -> str:
    return error.who if isinstance(error, Locked) else _misses(error)


async def _until_asked(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """Cancel a scope at the first SIGINT or SIGTERM."""
    with anyio.open_signal_receiver(*last_resort.SIGNALS) as signals:
        task_status.started()
        async for _ in signals:
            last_resort.end_after()
            scope.cancel()


async def _in_lines(eyes: Eyes[Overview], first: Overview) -> None:
    async with anyio.create_task_group() as tasks:
        await tasks.start(_until_asked, tasks.cancel_scope)  # before anything is seen to which one could answer
        await look_on(eyes, first, _Lines())


class _Lines:
    """A line for each change, and now and then one that sums up."""

    def __init__(self) -> None:
        """Nothing has been said."""
        self._before: Overview | None = None
        self._missing = ""
        """Why nothing can be seen now, as far as that does not change from look to look."""
        self._summed_up_s: float | None = None

    async def show(self, now: Overview) -> None:
        """Say what has changed."""
        lines = ["the database can be seen again"] if self._missing else []
        lines += news(self._before, now)
        self._before, self._missing = now, ""
        if self._summed_up_s is None or time.monotonic() - self._summed_up_s >= SUMMARY_EVERY_S:
            self._summed_up_s = time.monotonic()
            lines += summary(now)
        await _write(lines)

    async def miss(self, error: ReactiveOrchError) -> None:
        """Say why, once."""
        before, self._missing = self._missing, _unchanging(error)
        if before != self._missing:
            await _write([_misses(error)])


async def _write(lines: Iterable[str]) -> None:
    at = shown_time(datetime.now(UTC))
    text = "".join(f"{at} {one_line(line)}\n" for line in lines)
    if text:
        # In a thread: a signal ends also what waits for a reader.
        await abandonable(partial(print, text, end="", flush=True))
    elif is_closed_at_the_other_end():
        raise BrokenPipeError


async def _on_screen(eyes: Eyes[Overview], first: Overview, terminal: Terminal, where: str) -> None:
    screen = _Screen(terminal, where)
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(_heed_signals, screen, tasks.cancel_scope)
            tasks.start_soon(_heed_keys, terminal, tasks.cancel_scope)
            tasks.start_soon(screen.draw_on)
            await look_on(eyes, first, screen)
    finally:
        await _give_back(terminal)


async def _heed_keys(terminal: Terminal, scope: anyio.CancelScope) -> None:
    await terminal.until_q()
    await _end(terminal, scope)


async def _heed_signals(screen: _Screen, scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    job_control = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
    with anyio.open_signal_receiver(*last_resort.SIGNALS, *job_control) as signals:
        task_status.started()
        async for number in signals:
            if number in last_resort.SIGNALS:
                await _end(screen.terminal, scope)
            elif number == signal.SIGTSTP:
                await _give_back(screen.terminal)
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                if number == signal.SIGCONT:
                    screen.terminal.take()
                screen.draw_anew()


async def _end(terminal: Terminal, scope: anyio.CancelScope) -> None:
    """Give the terminal back first: a connection that is being made is waited for."""
    last_resort.end_after()
    await _give_back(terminal)
    scope.cancel()


async def _give_back(terminal: Terminal) -> None:
    with anyio.move_on_after(GIVE_BACK_S, shield=True):
        await abandonable(terminal.leave)


class _Screen:
    """The picture, drawn when it has changed, beside the looking: a terminal may be slow, or held up."""

    def __init__(self, terminal: Terminal, where: str) -> None:
        """Nothing is drawn yet."""
        self.terminal = terminal
        self._where = where
        self._lags = Lags()
        self._badges: dict[str, Badges] = {}
        self._shown: Shown | None = None
        self._missing_since = ""
        self._drawn: tuple[list[Text], os.terminal_size] | None = None
        self._changed = anyio.Event()

    async def show(self, now: Overview) -> None:
        """Draw what was seen."""
        from reactive_orch.commands.watch_picture import Shown

        self._lags.add(now)
        for each in now.replica_sets:
            self._badges.setdefault(each.name, Badges()).give(worker.seen.id for worker in each.workers)
        badges = {name: badges.of for name, badges in self._badges.items()}
        self._shown = Shown(where=self._where, overview=now, problems=problems(now), badges=badges, lags=self._lags)
        self._changed.set()

    async def miss(self, error: ReactiveOrchError) -> None:
        """Leave the picture as it was, and say so."""
        if self._shown is not None:
            if self._shown.missing is None:
                self._missing_since = f"{datetime.now(UTC):%H:%M:%SZ}"
            self._shown = replace(self._shown, missing=_misses(error, f" since {self._missing_since}"))
            self._changed.set()

    def draw_anew(self) -> None:
        """Draw it in any case: the window has another size, or somebody else has had it."""
        self._drawn = None
        self._changed.set()

    async def draw_on(self) -> None:
        """Draw whatever has changed, for ever."""
        from reactive_orch.commands.watch_picture import picture

        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            size = self.terminal.size
            drawn = picture(self._shown, *size) if self._shown else [], size
            if drawn != self._drawn:
                self._drawn = drawn
                await abandonable(partial(self.terminal.draw, *drawn))


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", metavar="NAME", help="only this one")


WATCH = Command(
    "the same as status, live: on a terminal a picture, elsewhere a line a change",
    _watch_arguments,
    _watch,
    purpose=monitors,
)
