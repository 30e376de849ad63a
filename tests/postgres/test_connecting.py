"""Which of several hosts is asked when."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from reactive_orch.postgres import connecting
from reactive_orch.postgres.connecting import Connector

if TYPE_CHECKING:
    import pytest

SILENT, PRIMARY = "postgresql://a/shop", "postgresql://b/shop"


async def test_a_host_that_another_attempt_has_found_meanwhile_is_asked_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = asyncio.Event()
    found: Any = SimpleNamespace(marks=SimpleNamespace(server=None))

    async def answer(url: str, _: dict[str, Any]) -> Any:
        if url == SILENT:
            asked.set()
            await asyncio.Event().wait()
        return url, found

    monkeypatch.setattr(connecting, "_open", answer)
    connector = Connector("postgresql://a,b/shop")
    connector._last = SILENT  # noqa: SLF001 - it answered until now
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(connector.open())
        await asked.wait()
        connector._last = PRIMARY  # noqa: SLF001
        assert await opening is found
    for attempt in connector._late:  # noqa: SLF001
        attempt.cancel()
