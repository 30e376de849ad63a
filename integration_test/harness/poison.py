"""Poisoned events for the projection `poisoned` of an arena, what people ask for then, and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration_test.harness.arena import REPLICA_SET
from integration_test.harness.connections import connected
from integration_test.harness.projections import POISON
from reactive_orch import NewEvent, append
from reactive_orch.model.keys import KeyRequest, WantedKeys
from reactive_orch.postgres import dead_letters

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from integration_test.harness.arena import Arena

KEYS = 20
OPTIONS = ("--retries", "1")
"""Of workers: a key is parked within a second."""


async def poison(arena: Arena, rng: random.Random, keys: int) -> None:
    """Append poison to some keys, with other events before and behind it."""
    async with connected(arena.url) as connection:
        for _ in range(keys):
            key = f"poisoned {rng.randrange(KEYS)}"
            kinds = ["Good", POISON, *["Good"] * 5]
            await append(connection, [NewEvent(aggregate_type="Key", aggregate_id=key, event_type=k) for k in kinds])


async def ask(arena: Arena, rng: random.Random, requests: Sequence[KeyRequest]) -> None:
    """Ask for something of each failing key, by chance."""
    async with connected(arena.url) as connection:
        for key in await dead_letters.listed(connection, WantedKeys(REPLICA_SET)):
            await dead_letters.request(connection, REPLICA_SET, [key.id], rng.choice(requests), "chaos")


async def cure(arena: Arena, rng: random.Random, timeout_s: float = 20.0) -> None:
    """Let the handler fail no more, and what waits be tried again, until nothing waits. Raises Caught."""
    await arena.ask("INSERT INTO public.cure VALUES (true) RETURNING found")

    async def nothing_fails() -> bool:
        return not await arena.value("SELECT count(*) FROM reactive_orch.failing_keys")

    await ask(arena, rng, ["retry"])
    await arena.until(nothing_fails, "nothing waits any more", checker="settle", timeout_s=timeout_s)


async def fall_ill(arena: Arena) -> None:
    """Let the handler fail again."""
    await arena.ask("DELETE FROM public.cure RETURNING found")
