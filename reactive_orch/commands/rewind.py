"""`rewind`: set a projection back while workers run, or accept another filter or log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command, connected
from reactive_orch.errors import ConfigError, Superseded
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import checkpoints, migrations
from reactive_orch.postgres.faults import is_stale

if TYPE_CHECKING:
    import argparse

    from reactive_orch.postgres.connection import AnyConnection


async def _rewind(options: argparse.Namespace, url: str) -> None:
    async with connected(url) as connection:
        await migrations.check(connection)
        to = await _target(connection, options.to)
        of = Subscription(options.projection, OWN_LOG)
        proposed = await checkpoints.proposed(connection, options.replica_set, of)
        estranged = await checkpoints.is_estranged(connection, options.replica_set, of)
        if to is None and proposed is None and not estranged:
            msg = "--to keep accepts the filter of a worker that was refused, or another log: nothing to do"
            raise ConfigError(msg)
        partitions = await _rewound(connection, options.replica_set, of, to)
    where = "kept where they were" if to is None else f"set to position {to}"
    print(f"{partitions} partitions of {options.projection} {where}; running workers start over from there")
    if proposed is not None:
        print(f"the filter is now {proposed}; start the worker again that was refused with it")


async def _rewound(connection: AnyConnection, replica_set: str, of: Subscription, to: int | None) -> int:
    """Rewind between two batches, waiting for the slowest handler as long as it takes (with a word about it)."""
    while True:
        try:
            return await checkpoints.rewind(connection, replica_set, of, to)
        except Superseded as error:
            if is_stale(error):
                raise
            print("waiting for the batches in flight", file=sys.stderr)


async def _target(connection: AnyConnection, text: str) -> int | None:
    """Return the position meant, None for keep. Raises ConfigError for one that is not settled yet."""
    if text in _WORDS:
        return _WORDS[text]
    settled = await checkpoints.settled_end(connection, OWN_LOG)
    if not text.isdecimal() or int(text) > settled:
        msg = f"--to {text}: give start, keep, or a position up to {settled}, where the log is settled"
        raise ConfigError(msg)
    return int(text)


_WORDS = {"start": 0, "keep": None}


def _rewind_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", required=True, metavar="NAME")
    parser.add_argument("--projection", required=True, metavar="NAME")
    parser.add_argument(
        "--to",
        required=True,
        metavar="start|keep|POSITION",
        help="handle again everything after this position; keep: only let the next worker record another filter",
    )


REWIND = Command("set a projection's positions back while workers run", _rewind_arguments, _rewind)
