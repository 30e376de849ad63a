"""What workers in containers say of themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from integration_test.environments.containers.stack import PATIENCE_S, address
from integration_test.harness.waiting import wait_until


async def get(url: str) -> tuple[int, Any]:
    """Return the status and what was answered; 0 when nobody answers."""
    try:
        async with aiohttp.ClientSession() as http, http.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
            of_json = response.content_type == "application/json"
            return response.status, await (response.json() if of_json else response.text())
    except (aiohttp.ClientError, TimeoutError):
        return 0, None


async def page(worker: str, page: str) -> tuple[int, Any]:
    return await get(f"http://{await asyncio.to_thread(address, worker)}:8080/{page}")


async def becomes(worker: str, status: str) -> dict[str, Any]:
    """Wait until /healthz says so and return it."""

    async def it_is() -> dict[str, Any] | None:
        _, body = await page(worker, "healthz")
        return body if body and body["status"] == status else None

    return await wait_until(it_is, PATIENCE_S, f"{worker} is {status}")


async def handles_more(worker: str) -> None:
    """Wait until it has handled an event after now."""

    async def handled() -> int:
        return sum((await becomes(worker, "serving"))["events_handled"].values())

    before = await handled()

    async def more() -> bool:
        return await handled() > before

    await wait_until(more, PATIENCE_S, f"{worker} handles events")
