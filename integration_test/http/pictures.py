"""The README's pictures, of real workers: the page, light and dark, and a kill, moving. `make screenshots` does it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from PIL import Image

from integration_test.harness.browser import PHONE, browser, opened
from integration_test.harness.cluster import Cluster, migrated
from integration_test.harness.connections import connected
from integration_test.harness.processes import WorkerProcess
from reactive_orch import NewEvent, append

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from integration_test.harness.connections import Connection

MODULE = "integration_test.http.shop"
SHOWN = {"width": 1280, "height": 1130}
MOVING = {"width": 1200, "height": 430}
WARM_UP_S = 100.0
"""So that the plots have something to show."""
SLOWED = 10
"""So many times slower cells glide while pictures are taken of it: each takes longer than a frame lasts."""
FRAME_S, FRAMES_S = 0.06, 1.2
GENTLY_S = 0.1


def _order(order: str, payload: bytes) -> NewEvent:
    return NewEvent(aggregate_type="Order", aggregate_id=order, event_type="OrderPlaced", payload=payload)


async def _appending(connection: Connection) -> None:
    number = 0
    while True:
        events = [_order(str((number + n) * 7919 % 997), b'{"customer": "ann"}') for n in range(30)]
        await append(connection, events)
        number += 30
        await anyio.sleep(GENTLY_S)


@contextlib.asynccontextmanager
async def _workers(url: str, names: str) -> AsyncIterator[list[WorkerProcess]]:
    options = ("--retries", "0")
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await (
                await stack.enter_async_context(
                    WorkerProcess(url, name, "orders", [MODULE], options, env={"HOSTNAME": f"orders-{name}"})
                )
            ).ready()
            for name in names
        ]


async def _picture(chromium: Browser, url: str, path: Path, **options: object) -> None:
    async with opened(chromium, url, device_scale_factor=2, **options) as page:
        await page.locator("#map .cell").first.wait_for()
        await anyio.sleep(1)
        await page.screenshot(path=path)
    with Image.open(path) as drawn:  # a third of the size, for no difference that one sees
        drawn.convert("RGB").quantize(256).save(path, optimize=True)


async def _frame(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(await page.screenshot())).convert("RGB")


async def _frames(page: Page) -> list[Image.Image]:
    """Return pictures of what happens next, each FRAME_S after the other if nothing had been slowed."""
    frames, end = [], time.monotonic() + SLOWED * FRAMES_S
    while time.monotonic() < end:
        due = time.monotonic() + SLOWED * FRAME_S
        frames.append(await _frame(page))
        await anyio.sleep(max(due - time.monotonic(), 0))
    return frames


async def _kill(chromium: Browser, url: str, victim: WorkerProcess, path: Path) -> None:
    async with opened(chromium, url, viewport=MOVING, color_scheme="light") as page:
        await page.locator("#map .cell").first.wait_for()
        await anyio.sleep(1)
        before = await _frame(page)
        devtools = await page.context.new_cdp_session(page)
        await devtools.send("Animation.enable")
        await devtools.send("Animation.setPlaybackRate", {"playbackRate": 1 / SLOWED})
        victim.send(signal.SIGKILL)
        await page.locator("#map .cell[data-moved]").first.wait_for()
        frames = [before, *await _frames(page)]
    durations = [1500, *[int(FRAME_S * 1000)] * (len(frames) - 2), 3000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, method=6, quality=70)


async def pictures(into: Path) -> None:
    """Make them all: first of what goes well, then with an event that fails."""
    with Cluster("18") as cluster, migrated(cluster, "shop") as url:
        async with (
            connected(url) as connection,
            _workers(url, "abc") as (first, second, third),
            browser() as chromium,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_appending, connection)
            assert first.health_url is not None
            base = first.health_url.replace("healthz", "")
            async with opened(chromium, base):  # somebody has to look, else nothing is remembered
                await anyio.sleep(WARM_UP_S / 2)
                await _kill(chromium, base, third, into / "kill.webp")
                async with _workers(url, "d"):
                    await anyio.sleep(WARM_UP_S / 4)
                    second.send(signal.SIGKILL)
                    async with _workers(url, "e"), connected(url) as other:
                        await append(other, [_order("4711", b"{}")])
                        await anyio.sleep(WARM_UP_S / 4)
                        for scheme in ("light", "dark"):
                            path = into / f"page-{scheme}.png"
                            await _picture(chromium, base, path, viewport=SHOWN, color_scheme=scheme)
                        await _picture(chromium, base, into / "page-phone.png", viewport=PHONE, color_scheme="light")
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    asyncio.run(pictures(Path(sys.argv[1])))
