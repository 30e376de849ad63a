"""`rewind`: set a projection back while workers run, or accept another filter or log. It says what it does and asks."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from reactive_orch.commands.command import Command, connected, operates
from reactive_orch.commands.loading import projections_of
from reactive_orch.commands.progress import progress
from reactive_orch.commands.terminal import confirm
from reactive_orch.commands.waiting import telling_who
from reactive_orch.errors import ConfigError, Superseded
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import migrations, rewinds
from reactive_orch.postgres.faults import is_stale
from reactive_orch.postgres.projections import demand_known

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from reactive_orch.model import Position, ResetHook
    from reactive_orch.postgres.connection import AnyConnection

PATIENCE_S = 3600.0
"""To count, or to look for a time, in a log of hundreds of millions of events on a cold disk takes minutes."""


class _Plan(NamedTuple):
    """What is to be done, and what that does."""

    replica_set: str
    of: Subscription
    to: Position | None
    """None: the positions are kept."""
    since: datetime | None
    """The time that was asked for."""
    known: rewinds.Known
    effects: rewinds.Effects
    reset: ResetHook | None
    """What empties what has been filled."""

    def lines(self) -> Iterator[str]:
        """Yield what is said of it beforehand, for people."""
        effects, about = self.effects, "" if self.effects.exact else "about "
        where = "at their positions" if self.to is None else f"to position {self.to}"
        since = f", behind which is all that was created since {self.since}" if self.since else ""
        yield f"rewind of {self.of.projection}: {effects.partitions} partitions {where}{since}"
        yield from self._filter_lines()
        if self.reset is not None:
            yield "  its reset hook is called, in the same transaction"
        elif self.known.resets:
            yield "  its reset hook is not called"
        elif self.to == 0:
            yield "  it has no reset hook: what it has filled stays"
        if effects.unknown:
            yield f"  nobody knows what was handled of {effects.unknown}: their checkpoints are gone, or of another log"
        if effects.unknown < effects.partitions:
            how = "handled again" if self.known.replays else "passed over as replayed"
            yield f"  {about}{_events(effects.again)} {how}"
        if effects.again and self.known.replays:
            yield "  their effects outside the transaction happen again, unless the handler heeds event.replayed"
        if effects.left_out:
            left_out = f"{about}{_events(effects.left_out)} left out without having been handled"
            yield f"  {left_out}: refused without --skip-unhandled"
        if effects.letters_again:
            yield f"  {_events(effects.letters_again)} taken off the lists of failing keys: they come again"
        if effects.letters_dropped:
            yield f"  {_events(effects.letters_dropped)} taken off the lists of failing keys, for good"

    @property
    def question(self) -> str:
        """What is asked beforehand."""
        return f"{self._of_again()}set {self.of.projection} to position {self.to}?"

    def _of_again(self) -> str:
        effects, whose = self.effects, f"handlers of {self.of.projection}"
        if not self.known.replays or not (effects.again or effects.unknown):
            return ""
        which = f"{'' if effects.exact else 'about '}{_events(effects.again)}" if effects.again else "events"
        if self.reset is not None:
            return f"the reset hook empties what {whose} have filled, and they see {which} again: "
        return f"{whose} see {which} a second time, and what they only insert is there twice: "

    def _filter_lines(self) -> Iterator[str]:
        if self.known.proposed is not None:
            yield f"  its filter becomes {self.known.proposed}"
        if self.known.former is not None:
            yield f"  its filter stays; --to keep accepts one given up before, which a worker has: {self.known.former}"


def _events(count: int) -> str:
    return f"{count:,} event{'' if count == 1 else 's'}"


async def _rewind(options: argparse.Namespace, url: str) -> None:
    async with connected(url, PATIENCE_S) as connection:
        await migrations.check(connection)
        plan = await _plan(connection, options)
        print(*plan.lines(), sep="\n", flush=True)
        if options.dry_run:
            print("nothing was done: --dry-run", flush=True)
            _demand_done(plan, options)
            return
    if plan.to is not None and not options.yes:
        _demand_done(plan, options)
        await confirm(plan.question)
    with progress("rewind") as shown:
        async with (
            connected(url, PATIENCE_S, lent=plan.reset is not None) as connection,
            telling_who(url, connection, shown),
        ):
            effects = await _rewound(connection, plan, skip_unhandled=options.skip_unhandled)
    where = "kept where they were" if plan.to is None else f"set to position {plan.to}"
    print(f"{effects.partitions} partitions of {options.projection} {where}; running workers start over from there")
    if plan.known.proposed is not None:
        print(f"the filter is now {plan.known.proposed}: workers with another one hand over to those that have it")


def _demand_done(plan: _Plan, options: argparse.Namespace) -> None:
    """Raise ConfigError if the plan would be refused: nobody is asked then, and --dry-run tells it by its exit code."""
    if plan.effects.left_out and not options.skip_unhandled:
        when = "without --dry-run " if options.dry_run else ""
        msg = f"{when}this is refused: {_events(plan.effects.left_out)} left out need --skip-unhandled"
        raise ConfigError(msg)


async def _plan(connection: AnyConnection, options: argparse.Namespace) -> _Plan:
    """Return what is to be done. Raises ConfigError for a target that is none, and if there is nothing to do."""
    to, since = await _target(connection, options.to)
    await demand_known(connection, options.replica_set, options.projection)
    of = Subscription(options.projection, OWN_LOG)
    known = await rewinds.known(connection, options.replica_set, of, to)
    if to is None and known.proposed is None and not known.estranged:
        msg = "--to keep accepts the filter of a worker that was refused, or another log: nothing to do"
        raise ConfigError(msg)
    reset = _reset_hook(options, resets=known.resets) if to == 0 and not options.no_reset else None
    effects = await rewinds.effects(connection, options.replica_set, of, to)
    return _Plan(options.replica_set, of, to, since, known, effects, reset)


def _reset_hook(options: argparse.Namespace, *, resets: bool) -> ResetHook | None:
    """Return the projection's reset hook, from the code that is given; None if it has none.

    Raises ConfigError when it has one and no code is given, or that of something else.
    """
    if options.load is None and resets:
        msg = (
            f"projection {options.projection!r} has a reset hook, which empties what it has filled: "
            "say where its code is by --load MODULE[:ATTR], or --no-reset"
        )
        raise ConfigError(msg)
    if options.load is None:
        return None
    for loaded in projections_of([options.load], "--load"):
        if loaded.name == options.projection:
            return loaded.reset
    msg = f"--load {options.load}: there is no projection {options.projection!r}"
    raise ConfigError(msg)


async def _rewound(connection: AnyConnection, plan: _Plan, *, skip_unhandled: bool) -> rewinds.Effects:
    """Rewind between two batches, waiting for the slowest handler as long as it takes."""
    while True:
        try:
            return await rewinds.rewind(
                connection,
                plan.replica_set,
                plan.of,
                plan.to,
                skip_unhandled=skip_unhandled,
                reset=plan.reset,
                planned=plan.known,
            )
        except Superseded as error:
            if is_stale(error):
                raise


async def _target(connection: AnyConnection, text: str) -> tuple[Position | None, datetime | None]:
    """Return the position meant, None for keep, and the time if one was given.

    Raises ConfigError for what is neither, and for a position that is not settled yet.
    """
    if text in _WORDS:
        return _WORDS[text], None
    position = int(text) if re.fullmatch("[0-9]{1,18}", text) else None
    since = _time(text) if position is None else None
    if since is not None:
        return await rewinds.position_before(connection, OWN_LOG, since), since
    settled = await rewinds.settled_end(connection, OWN_LOG)
    if position is None or position > settled:
        msg = f"--to {text}: give start, keep, a time, or a position up to {settled}, where the log is settled"
        raise ConfigError(msg)
    return position, None


def _time(text: str) -> datetime | None:
    """Return the time that a text is, by this machine's zone if it names none; None if it is no time."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return None


_WORDS = {"start": 0, "keep": None}


def _rewind_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", required=True, metavar="NAME")
    parser.add_argument("--projection", required=True, metavar="NAME")
    parser.add_argument(
        "--to",
        required=True,
        metavar="start|keep|POSITION|TIME",
        help="handle again everything after this position, or created at this time or later (ISO 8601; without a zone "
        "it is this machine's); start: from the log's first event on; keep: only accept another filter, or another log",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what it would do")
    parser.add_argument("--yes", action="store_true", help="do not ask before events are handled again")
    parser.add_argument(
        "--skip-unhandled",
        action="store_true",
        help="leave out for good the events up to there that have not been handled; without it that is refused",
    )
    hook = parser.add_mutually_exclusive_group()
    hook.add_argument("--load", metavar="MODULE[:ATTR]", help="the projection's code, for --to start: its reset hook")
    hook.add_argument("--no-reset", action="store_true", help="do not call the projection's reset hook")


def _check(options: argparse.Namespace) -> None:
    if options.load is not None and options.to not in {"start", "0"}:
        msg = f"--load is for --to start, which calls the projection's reset hook: --to {options.to} does not"
        raise ConfigError(msg)


REWIND = Command("set a projection's positions back while workers run", _rewind_arguments, _rewind, _check, operates)
