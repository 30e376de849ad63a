"""`dead-letters`: the keys of which an event has failed; try them again, or leave their events out."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, get_args

from reactive_orch import dead_letters
from reactive_orch.commands.command import Command, connected, operator
from reactive_orch.commands.dead_letters_shown import whole
from reactive_orch.commands.problems import same_address
from reactive_orch.commands.terminal import LEVELS, Styled, confirm, count, cut, show_table, shown_time
from reactive_orch.core.letters import Shown, as_json, error_of, named, whole_as_json
from reactive_orch.core.remedies import psql
from reactive_orch.errors import ConfigError, ReactiveOrchError
from reactive_orch.model.keys import KeyRequest
from reactive_orch.postgres import dead_letters as stored
from reactive_orch.postgres import migrations, projections
from reactive_orch.postgres.grants import quoted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from reactive_orch.model.keys import FailingKey
    from reactive_orch.postgres.connection import AnyConnection

ERROR_WIDTH = 80
HEAD = ("PROJECTION", "KEY", "STATE", "EVENTS", "FIRST AT", "ATTEMPTS", "SINCE", "ERROR")

_ASK = {"retry": dead_letters.retry, "skip": dead_letters.skip, "discard": dead_letters.discard}
_DONE = {"retry": "tried again", "skip": "left out", "discard": "left out"}


async def _dead_letters(options: argparse.Namespace, url: str) -> None:
    async with connected(url) as connection:
        await migrations.check(connection)
        keys = await _wanted(connection, options)
        if options.action == "list":
            await _list(connection, options, keys)
        elif options.action == "show":
            await _show(connection, options, keys)
        else:
            await _act(connection, options, keys)


async def _wanted(connection: AnyConnection, options: argparse.Namespace) -> Sequence[FailingKey]:
    """Return the keys that the options mean; --key may be an id, or what `list` shows of it."""
    listed = partial(
        dead_letters.listed,
        connection,
        options.replica_set,
        projection=options.projection,
        aggregate_type=options.type,
        bounded_context=options.context,
    )
    return await listed(key=options.key) or [key for key in await listed() if named(key) == options.key]


async def _list(connection: AnyConnection, options: argparse.Namespace, keys: Sequence[FailingKey]) -> None:
    if options.json:
        print(json.dumps(list(map(as_json, keys))))
    elif keys:
        rests = await _rests(connection, options.replica_set)
        show_table(HEAD, [_row(key, rests.get(key.projection)) for key in keys])
    else:
        print("no failing keys")


async def _show(connection: AnyConnection, options: argparse.Namespace, keys: Sequence[FailingKey]) -> None:
    rests = await _rests(connection, options.replica_set)
    events = await stored.first_events(connection, keys)
    payloads = await _payloads(connection, keys) if options.payload else {}
    shown = [
        Shown(options.replica_set, key, events.get(key.id), rests.get(key.projection), payloads.get(key.id))
        for key in keys
    ]
    if options.json:
        print(json.dumps(list(map(whole_as_json, shown))))
    else:
        print("\n\n".join(map(whole, shown)) or "no failing keys")
        if shown and options.database_url is not None:
            print(same_address())


async def _payloads(connection: AnyConnection, keys: Sequence[FailingKey]) -> Mapping[int, str]:
    """Return key's id → payload of its first event; none, and it is said, where this role may not read them."""
    if (role := await stored.may_not_read_payloads(connection)) is not None:
        grant = f"GRANT SELECT (payload) ON reactive_orch.event_log TO {quoted(role)}"
        print(f"payloads are not shown, {role} may not read them: {psql(grant)}", file=sys.stderr, flush=True)
        return {}
    return await stored.first_payloads(connection, keys)


async def _rests(connection: AnyConnection, replica_set: str) -> Mapping[str, str]:
    """Return projection → how it rests, of those that do."""
    return {of.projection: rest.state for of, rest in (await projections.resting(connection, replica_set)).items()}


async def _act(connection: AnyConnection, options: argparse.Namespace, keys: Sequence[FailingKey]) -> None:
    if not keys and options.all:
        msg = f"no key of projection {options.projection} fails: there is nothing to {options.action}"
        raise ConfigError(msg)
    if not keys:
        msg = f"no failing key of projection {options.projection} is that: dead-letters list shows them all"
        raise ConfigError(msg)
    if options.key is not None and len(keys) > 1:
        msg = f"{len(keys)} keys have this id: say which by --type and --context ({', '.join(map(named, keys))})"
        raise ConfigError(msg)
    events = len(keys) if options.action == "skip" else sum(key.events for key in keys)
    what = f"{count(events, 'event')} of {count(len(keys), 'key')} of {options.projection}"
    if options.action != "retry" and not options.yes:
        await confirm(f"leave out {what} for good?")
    asked = await _ASK[options.action](connection, options.replica_set, keys, by=operator())
    gone = "" if asked == len(keys) else f"; {len(keys) - asked} are no failing keys any more"
    print(f"{what}: to be {_DONE[options.action]} by the workers that have them{gone}", flush=True)
    if (why := await dead_letters.hindrance(connection, options.replica_set, options.projection)) is not None:
        print(why, file=sys.stderr, flush=True)
    if options.wait:
        await _wait(connection, options, keys)


async def _wait(connection: AnyConnection, options: argparse.Namespace, keys: Sequence[FailingKey]) -> None:
    """Wait until the owners have done it. Raises ReactiveOrchError when keys have failed again."""
    failed, what = await dead_letters.done(connection, keys), f"of {len(keys)} failed again"
    if options.action == "skip":
        at = f"the event at position {keys[0].first_position}"
        if not await dead_letters.left_out(connection, options.replica_set, keys):
            msg = f"nothing was left out: {at} did not wait any more"
            raise ReactiveOrchError(msg)
        what = f"failed again, at its next event: {at} was left out"
    if failed:
        msg = f"{count(failed, 'key')} {what}: dead-letters list shows why"
        raise ReactiveOrchError(msg)
    print("done")


def _row(key: FailingKey, rests: str | None) -> tuple[str, ...]:
    """Return its cells; `rests` is how its projection does, in which nothing is tried."""
    state = rests if rests and key.state == "retrying" else key.state
    state = f"{state}, {key.request} asked" if key.request else state
    counts = str(key.events), str(key.first_position), str(key.attempts)
    level = LEVELS["note" if key.state == "retrying" and not rests else "warn"]
    since = shown_time(key.failed_first_at)
    return (key.projection, named(key), Styled(state, level), *counts, since, cut(error_of(key), ERROR_WIDTH))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("list", "show", *get_args(KeyRequest)),
        help="list; show the event that failed, its traceback, what to do; retry: try the waiting events again; "
        "skip: leave out a key's first one; discard: leave out all that wait",
    )
    parser.add_argument("--replica-set", required=True, metavar="NAME")
    parser.add_argument("--projection", metavar="NAME", help="needed to act")
    parser.add_argument("--key", metavar="ID", help="one key: an aggregate id, or a partition key")
    parser.add_argument("--type", metavar="TYPE", help="its aggregate type, if there are several")
    parser.add_argument("--context", metavar="NAME", help="its bounded context, if there are several")
    parser.add_argument("--all", action="store_true", help="act on all failing keys of the projection")
    parser.add_argument("--yes", action="store_true", help="do not ask before leaving events out")
    parser.add_argument("--wait", action="store_true", help="until it is done; exit code 1 if keys fail again")
    parser.add_argument("--payload", action="store_true", help="show the payload of the event that failed, too")
    parser.add_argument("--json", action="store_true", help="list and show as JSON")


def _check(options: argparse.Namespace) -> None:
    shows = options.action in {"list", "show"}
    useless = ("all", "yes", "wait") if shows else ("json",)
    useless = useless if options.action == "show" else (*useless, "payload")
    without_effect = [name for name in useless if vars(options)[name]]
    if without_effect:
        msg = f"dead-letters {options.action} takes no {' and no '.join(f'--{name}' for name in without_effect)}"
        raise ConfigError(msg)
    if shows:
        return
    if options.projection is None:
        msg = f"dead-letters {options.action} needs --projection"
        raise ConfigError(msg)
    if (options.key is None) != options.all:
        msg = f"dead-letters {options.action} needs --key or --all, and not both"
        raise ConfigError(msg)
    if options.action == "skip" and options.all:
        msg = "dead-letters skip leaves out one event: give its --key"
        raise ConfigError(msg)


DEAD_LETTERS = Command(
    "list and show keys of which an event failed, retry or discard what waits",
    _arguments,
    _dead_letters,
    _check,
    lambda options: "monitor" if options.action in {"list", "show"} else "operator",
)
