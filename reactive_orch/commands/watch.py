"""`watch`: what `status` tells, live. On a terminal a picture that is drawn anew, elsewhere a line for each change.

It looks when a replica set has changed, as workers do, and every two seconds: how far workers are they say with their
heartbeats. So it need not hear of appends: it never arms the bell, and writers ring no more often than without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from reactive_orch.commands.command import Command, connected, monitors
from reactive_orch.commands.locks import explained
from reactive_orch.commands.problems import one_line
from reactive_orch.commands.terminal import shown_time
from reactive_orch.config import shown as without_password
from reactive_orch.core.badges import Badges
from reactive_orch.core.lags import Lags
from reactive_orch.core.news import news, summary
from reactive_orch.core.overview import overview
from reactive_orch.core.problems import problems
from reactive_orch.errors import Locked, ReactiveOrchError, Unavailable
from reactive_orch.postgres import membership, migrations
from reactive_orch.postgres import overview as looking
from reactive_orch.postgres.channels import GENERATIONS_CHANNEL
from reactive_orch.postgres.faults import took_too_long, translated
from reactive_orch.postgres.projections import demand_replica_set
from reactive_orch.process import last_resort
from reactive_orch.process.abandonable import abandonable
from reactive_orch.process.streams import is_closed_at_the_other_end

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from anyio.abc import TaskStatus
    from rich.text import Text

    from reactive_orch.commands.watch_picture import Shown
    from reactive_orch.commands.watch_terminal import Terminal
    from reactive_orch.model.overview import Overview
    from reactive_orch.postgres.connection import AnyConnection

LOOK_EVERY_S = 2.0
"""Also without a notification."""
LOOK_GAP_S = 1.0
"""From one look to the next, however much is notified."""
COST_MAX = 0.05
"""Of the time, for looks: where one takes long, the next one comes later."""
LOOK_AT_LEAST_EVERY_S = 30.0
"""However long one takes."""
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
    from reactive_orch.commands.watch_terminal import Terminal, is_terminal

    eyes = Eyes(url, options.replica_set)
    try:
        first = await eyes.look()
        if is_terminal():
            await _on_screen(eyes, first, Terminal(), without_password(url))
        else:
            await _in_lines(eyes, first)
    finally:
        await eyes.close()


class Eyes:
    """A connection that is made anew when it is lost, and what was notified on it."""

    def __init__(self, url: str, replica_set: str | None) -> None:
        """Look at one replica set, or at all."""
        self._url, self._replica_set = url, replica_set
        self._stack = contextlib.AsyncExitStack()
        self._found = False
        """It has connected once, and there was such a replica set."""
        self._connection: AnyConnection | None = None
        self._notified = anyio.Event()
        self._began_s = self._took_s = 0.0

    async def look(self) -> Overview:
        """Look once. Raises ReactiveOrchError: the next look connects anew."""
        self._notified, self._began_s, self._took_s = anyio.Event(), time.monotonic(), 0.0
        try:
            with translated():
                connection = self._connection or await self._connect()
                begun_s = time.monotonic()
                seen = await looking.look(connection, self._replica_set, back=REBALANCES - 1)
                self._took_s = time.monotonic() - begun_s
        except ReactiveOrchError as error:
            told = await explained(self._connection, error) if self._connection else error
            await self.close()
            raise told  # noqa: B904 - it may be the same, and has its cause
        except BaseException:
            await self.close()
            raise
        return overview(seen)

    async def _connect(self) -> AnyConnection:
        connection = self._connection = await self._stack.enter_async_context(
            connected(self._url, first=not self._found)
        )
        await migrations.check(connection)
        if self._replica_set is not None and not self._found:
            demand_replica_set(self._replica_set, await membership.replica_sets(connection))
        self._found = True
        connection.add_termination_listener(lambda _: self._notified.set())
        await connection.add_listener(GENERATIONS_CHANNEL, lambda *told: self._heed(str(told[-1])))
        return connection

    def _heed(self, replica_set: str) -> None:
        if self._replica_set in {None, replica_set}:
            self._notified.set()

    async def rest(self) -> None:
        """Wait until it is time for the next look."""
        cost_s = min(self._took_s / COST_MAX, LOOK_AT_LEAST_EVERY_S)
        with anyio.move_on_after(max(LOOK_EVERY_S, cost_s)):
            await self._notified.wait()
        await anyio.sleep(max(self._began_s + max(LOOK_GAP_S, cost_s) - time.monotonic(), 0.0))

    async def close(self) -> None:
        """End the connection, without a word to the server: that may be away."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        await self._stack.aclose()


async def look_on(eyes: Eyes, first: Overview, view: _View) -> None:
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


async def _in_lines(eyes: Eyes, first: Overview) -> None:
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


async def _on_screen(eyes: Eyes, first: Overview, terminal: Terminal, where: str) -> None:
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
