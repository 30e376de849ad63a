"""`append`: events from standard input, one JSON object a line, or one from options."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import select
import signal
import sys

from reactive_orch.commands import lines
from reactive_orch.commands.command import Command, connected
from reactive_orch.errors import ConfigError
from reactive_orch.model import Expected, NewEvent
from reactive_orch.postgres import log, migrations
from reactive_orch.postgres.faults import translated

APPENDED_AT_ONCE = 1000
"""So many lines go into one statement: of the 5 s that it may take it needs few. All are in one transaction."""


_OF_ONE = (*lines.REQUIRED, "bounded_context", "partition_key", "payload")
"""Options that describe an event: with any of them, standard input is not read."""


def _read_events(options: argparse.Namespace) -> None:
    """Read what is to be appended, before the event loop runs: so any signal ends the wait for standard input."""
    if any(vars(options)[name] is not None for name in _OF_ONE):
        options.events = [_single_event(options)]
    elif sys.stdin is None:
        msg = "append: standard input is closed: give lines, or one event by options (--help shows them)"
        raise ConfigError(msg)
    else:
        options.events = lines.events_of(_all_of(sys.stdin.fileno()).readlines())


def _all_of(file: int) -> io.BytesIO:
    """Return all that a file holds. Raises ConfigError when it cannot be read, or not to its end.

    It waits for signals too: one that comes just before the wait would not end it.
    """
    signalled, signal_end = os.pipe()
    os.set_blocking(signal_end, False)
    before = signal.set_wakeup_fd(signal_end)
    contents, more, waiting = io.BytesIO(), True, select.poll()  # select() knows no descriptor above 1023
    for each in (file, signalled):
        waiting.register(each, select.POLLIN)
    try:
        while more:
            if file in dict(waiting.poll()):
                more = bool(contents.write(os.read(file, 1 << 20)))
    except OSError as error:
        msg = f"append: standard input cannot be read: {error.strerror}; nothing was appended"
        raise ConfigError(msg) from error
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)
        os.close(signal_end)
    contents.seek(0)
    return contents


async def _append(options: argparse.Namespace, url: str) -> None:
    events = options.events
    async with connected(url) as connection:
        await migrations.check(connection)
        try:
            with translated():
                async with connection.transaction():
                    await log.append_columns(connection, log.columns_of(events), options.expected, APPENDED_AT_ONCE)
        except ValueError as error:
            msg = f"append: {error}"
            raise ConfigError(msg) from error
    print(f"appended {len(events)} event{'' if len(events) == 1 else 's'}")


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
)
