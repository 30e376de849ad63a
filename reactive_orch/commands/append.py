"""`append`: events from standard input, one JSON object a line, or one from options."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import select
import signal
import stat
import sys
from typing import TYPE_CHECKING

from reactive_orch.commands import lines
from reactive_orch.commands.command import Command, connected
from reactive_orch.commands.progress import Progress, progress
from reactive_orch.commands.spool import Spool
from reactive_orch.commands.waiting import telling_who
from reactive_orch.errors import ConfigError, Exhausted, ReactiveOrchError, Unavailable
from reactive_orch.model import Expected, NewEvent
from reactive_orch.postgres import many, migrations
from reactive_orch.postgres.faults import translated
from reactive_orch.process.streams import nobody_reads, say, write_to_nobody

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 1 << 16
PATIENCE_S = 3600.0
"""To number tens of millions of events takes minutes, in one statement; most take milliseconds."""

UNKNOWN = "it is not known whether the events were appended: look before you append them again"

_OF_ONE = (*lines.REQUIRED, "bounded_context", "partition_key", "payload")
"""Options that describe an event: with any of them, standard input is not read."""


async def _look(_: argparse.Namespace, url: str) -> None:
    """Raise what is wrong with the database before standard input is read, which may take hours.

    No connection is kept meanwhile: it might be lost.
    """
    async with connected(url) as connection:
        await migrations.check(connection)


def _is_of_one(options: argparse.Namespace) -> bool:
    return any(vars(options)[name] is not None for name in _OF_ONE)


def _read_events(options: argparse.Namespace) -> None:
    """Read what is to be appended, before the event loop runs: so any signal ends the wait for standard input."""
    with contextlib.ExitStack() as stack:
        spool = stack.enter_context(contextlib.closing(Spool()))
        if _is_of_one(options):
            spool.add(0, _single_event(options))
        elif sys.stdin is None:
            msg = "append: standard input is closed: give lines, or one event by options (--help shows them)"
            raise ConfigError(msg)
        else:
            if sys.stdin.isatty():
                say("append: events are read from standard input, a JSON object a line; Ctrl-D ends them")
            _read_lines(spool, sys.stdin.fileno())
        spool.end()
        if not spool.count and options.expected is not Expected.ANY:
            msg = "append: there is no event, so --expected says nothing of any aggregate; nothing was appended"
            raise ConfigError(msg)
        options.spool = spool
        stack.pop_all()


def _read_lines(spool: Spool, file: int) -> None:
    with progress("append") as shown:
        for line, event in lines.events_of(lines.lines_of(_blocks_of(file, shown))):
            spool.add(line, event)


def _blocks_of(file: int, shown: Progress) -> Iterator[bytes]:
    """Yield all that a file holds. Raises ConfigError when it cannot be read, or not to its end.

    It waits for signals too: one that comes just before the wait would not end it.
    """
    signalled, signal_end = os.pipe()
    os.set_blocking(signal_end, False)
    before = signal.set_wakeup_fd(signal_end)
    waiting = select.poll()  # select() knows no descriptor above 1023
    for each in (file, signalled):
        waiting.register(each, select.POLLIN)
    done, total = 0, _size_of(file)
    try:
        while True:
            if file in dict(waiting.poll()):
                if not (block := os.read(file, BLOCK_BYTES)):
                    return
                yield block
                done += len(block)
                shown.at("reading", done, total, "bytes")
    except OSError as error:
        msg = f"append: standard input cannot be read: {error.strerror}; nothing was appended"
        raise ConfigError(msg) from error
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)
        os.close(signal_end)


def _size_of(file: int) -> int | None:
    """Return how much is still to be read of a file; None for a pipe, which does not know."""
    found = os.fstat(file)
    return found.st_size - os.lseek(file, 0, os.SEEK_CUR) if stat.S_ISREG(found.st_mode) else None


async def _append(options: argparse.Namespace, url: str) -> None:
    spool: Spool = options.spool
    with contextlib.closing(spool), progress("append") as shown:
        course = _Course(shown, spool.count)
        with course.told():
            async with connected(url, PATIENCE_S) as connection:
                await migrations.check(connection)
                try:
                    async with telling_who(url, connection, shown):
                        await many.append(connection, spool, options.expected, course.at)
                        course.done()
                except ValueError as error:
                    msg = f"append: {error}"
                    raise ConfigError(msg) from error
    _say_done(course.outcome)


class _Course:
    """How far it is, and what has become of the events if it ends there."""

    def __init__(self, shown: Progress, total: int) -> None:
        self.outcome = "nothing was appended"
        self._shown, self._total, self._committed = shown, total, False

    def at(self, doing: str, done: int | None) -> None:
        """As `many.append` tells."""
        self.outcome = UNKNOWN if doing == many.COMMITTING else "nothing was appended"
        if done is None:
            self._shown.still(doing)
        else:
            self._shown.at(doing, done, self._total)

    def done(self) -> None:
        """All is committed: whatever happens to the connection now."""
        self._committed = True
        self.outcome = f"appended {self._total} event{'' if self._total == 1 else 's'}"

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Add to an interrupt, and to a lost connection, what has become of the events."""
        try:
            with translated():
                yield
        except asyncio.CancelledError:
            say(f"append: interrupted; {self.outcome}")
            raise
        except Unavailable as error:
            if self._committed:
                return
            if self.outcome == UNKNOWN and not isinstance(error, Exhausted):  # of which the server itself has told
                msg = f"append: the connection was lost: {error}; {UNKNOWN}"
                raise ReactiveOrchError(msg) from error.__cause__
            msg = f"{error}; nothing was appended"
            raise type(error)(msg) from error.__cause__


def _say_done(text: str) -> None:
    """Say what is committed. That nobody hears it is no failure: whoever tries again after one would append twice."""
    try:
        print(text, flush=True)
    except OSError as error:
        if not nobody_reads():
            write_to_nobody()
            say(f"{text}, but standard output cannot be written: {error.strerror}")


def _append_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--event-type", metavar="TYPE", help="append one event from options instead of standard input")
    parser.add_argument("--aggregate-type", metavar="TYPE")
    parser.add_argument("--aggregate-id", metavar="ID")
    parser.add_argument("--bounded-context", metavar="NAME", help="default: default")
    parser.add_argument("--partition-key", metavar="KEY", help="what it is ordered with, instead of its aggregate")
    parser.add_argument("--payload", metavar="JSON", help="default: {}")
    parser.add_argument(
        "--expected",
        type=_expected,
        default=Expected.ANY,
        metavar="any|none|VERSION",
        help="what the aggregate's stream must be at (default any); an exact version is for one aggregate",
    )


def _expected(text: str) -> int | Expected:
    words = {"any": Expected.ANY, "none": Expected.NO_STREAM}
    if text not in words and not re.fullmatch("[0-9]{1,9}", text):
        msg = f"{text!r} is neither any, none nor a version"
        raise argparse.ArgumentTypeError(msg)
    return words[text] if text in words else int(text)


def _single_event(options: argparse.Namespace) -> NewEvent:
    missing = [f"--{name.replace('_', '-')}" for name in lines.REQUIRED if not vars(options)[name]]
    if missing:
        msg = f"append of one event needs {' and '.join(missing)} too"
        raise ConfigError(msg)
    names = ("event_type", "aggregate_type", "aggregate_id", "bounded_context", "partition_key")
    columns = json.dumps({name: vars(options)[name] for name in names})
    try:
        payload = "{}" if options.payload is None else lines.checked(options.payload)
    except ValueError as error:
        msg = f"--payload is not JSON: {error}"
        raise ConfigError(msg) from error
    try:
        return lines.event_of(f'{columns[:-1]}, "payload": {payload}}}')
    except ValueError as error:
        msg = f"append: {error}"
        raise ConfigError(msg) from error


APPEND = Command(
    "append events, JSON lines from standard input or one from options",
    _append_arguments,
    _append,
    _read_events,
    purpose=lambda _: "appender",
    look=lambda options: None if _is_of_one(options) else _look,
)
