"""Pauses before the next attempt, while the database is away."""

from __future__ import annotations

import asyncio

from reactive_orch.postgres.absence import Absence

LONG_S = 600.0


async def test_who_waits_is_woken_when_it_is_back() -> None:
    absence = Absence()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(absence.pause(LONG_S))
        await asyncio.sleep(0)
        absence.over()


async def test_whose_attempt_fails_just_afterwards_waits_for_a_moment() -> None:
    absence = Absence()
    absence.over()
    async with asyncio.timeout(10):
        await absence.pause(LONG_S)
