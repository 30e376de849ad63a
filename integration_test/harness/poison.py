"""Poisoned events for `poisoned` of an arena, lethal ones for `lethal`, what people ask for then, and the cures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from integration_test.harness.arena import REPLICA_SET, Caught
from integration_test.harness.connections import connected
from integration_test.harness.projections import LETHAL, POISON
from reactive_orch import NewEvent, append
from reactive_orch.model.keys import KeyRequest, WantedKeys
from reactive_orch.postgres import dead_letters

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from integration_test.harness.arena import Arena
    from integration_test.harness.connections import Connection

KEYS = 20
OPTIONS = ("--retries", "1")
"""Of workers: a key is parked within a second."""


async def poison(arena: Arena, rng: random.Random, keys: int) -> None:
    """Append poison to some keys, with other events before and behind it."""
    async with connected(arena.url) as connection:
        for _ in range(keys):
            await _append(connection, f"poisoned {rng.randrange(KEYS)}", POISON)


async def poison_lethally(arena: Arena, rng: random.Random) -> None:
    """Append an event that ends whoever handles it, in the same way."""
    async with connected(arena.url) as connection:
        await _append(connection, f"lethal {rng.randrange(KEYS)}", LETHAL)


async def _append(connection: Connection, key: str, kind: str) -> None:
    kinds = ["Good", kind, *["Good"] * 5]
    await append(connection, [NewEvent(aggregate_type="Key", aggregate_id=key, event_type=k) for k in kinds])


async def ask(
    arena: Arena, rng: random.Random, requests: Sequence[KeyRequest], of: Collection[str] | None = None
) -> None:
    """Ask for something of each failing key, by chance; only of these projections, if any are given."""
    async with connected(arena.url) as connection:
        for key in await dead_letters.listed(connection, WantedKeys(REPLICA_SET)):
            if of is None or key.projection in of:
                await dead_letters.request(connection, REPLICA_SET, [key], rng.choice(requests), "chaos")


async def cure(arena: Arena, rng: random.Random, timeout_s: float = 20.0) -> None:
    """Let the handler fail no more, and what waits be tried again, until nothing waits. Raises Caught."""
    await arena.ask("INSERT INTO public.cure VALUES (true) RETURNING found")

    await antidote(arena)

    async def nothing_fails() -> bool:
        return not await arena.value("SELECT count(*) FROM reactive_orch.failing_keys")

    await ask(arena, rng, ["retry"])
    try:
        await arena.until(nothing_fails, "nothing waits any more", checker="settle", timeout_s=timeout_s)
    except Caught as late:
        waiting = [str(dict(row)) for row in await arena.ask(_WAITING)]
        raise Caught(replace(late.finding, what=f"{late.finding.what}: {'; '.join(waiting)}")) from None


_WAITING = """
SELECT k.projection, k.aggregate_id, k.state, k.request, k.attempts, k.deaths, k.asked_by, k.taken_by, k.message,
       extract(epoch FROM k.due_at - clock_timestamp()) AS due_in_s, p.state AS of, p.trials, p.tried_by,
       extract(epoch FROM p.resumes_at - clock_timestamp()) AS resumes_in_s
FROM reactive_orch.failing_keys k
JOIN reactive_orch.projections p ON p.replica_set = k.replica_set AND p.name = k.projection AND p.log = k.log
"""


async def antidote(arena: Arena) -> None:
    """Let lethal events end nobody any more: none of the handlers that run now, nor of those to come."""
    await arena.ask("SELECT public.take_antidote()")


async def waits_for_antidote(arena: Arena, timeout_s: float) -> None:
    """Wait until each lethal event has been set aside, or left out. Raises Caught."""

    async def all_set_aside() -> bool:
        return not await arena.value(_AT_LARGE, REPLICA_SET, LETHAL)

    await arena.until(all_set_aside, "what ends its process is set aside", checker="settle", timeout_s=timeout_s)


_AT_LARGE = """
SELECT count(*) FROM reactive_orch.events e WHERE e.event_type = $2 AND NOT EXISTS (
    SELECT FROM public.fates f
    WHERE f.replica_set = $1 AND f.projection = 'lethal' AND f.position = e.global_position)
"""


async def fall_ill(arena: Arena) -> None:
    """Let the handlers fail again."""
    await arena.ask("DELETE FROM public.cure RETURNING found")
    await arena.ask("DELETE FROM public.antidote RETURNING found")
