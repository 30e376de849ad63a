"""The page in a browser, on real workers: what people see of a kill, a failing key, a pause, a lost database."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from integration_test.harness.browser import PHONE, WIDE, browser, needs_browser, opened, violations
from integration_test.harness.checkers import wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import POISON
from integration_test.harness.waiting import wait_until
from integration_test.http.hostile import NAME, TEXT
from reactive_orch import NewEvent, append

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

    from integration_test.harness.cluster import Cluster

pytestmark = needs_browser
PATIENCE_MS = 15_000


def page_of(worker: WorkerProcess) -> str:
    assert worker.health_url is not None
    return worker.health_url.replace("healthz", "")


def cells(page: Page, of: str) -> Locator:
    """Return the cells of a worker, or of nobody."""
    return page.locator(f'#map .cell[aria-label*=", {of},"]')


def verdict(page: Page, words: str) -> Any:
    return expect(page.locator("#verdict")).to_contain_text(words, timeout=PATIENCE_MS)


async def place(cell: Locator) -> tuple[float, float]:
    box = await cell.bounding_box()
    assert box is not None
    return box["x"], box["y"]


async def test_three_workers_a_kill_and_a_join(database: str) -> None:
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a") as a,
        WorkerProcess(database, "b") as b,
        WorkerProcess(database, "c") as c,
        browser() as chromium,
    ):
        for each in (a, b, c):
            await each.ready()
        await wait_settled(connection, members=3)
        gone, had = await c.member(), (await c.health())["partitions"]["handled"]
        async with opened(chromium, page_of(a)) as page:
            await expect(cells(page, f"worker {gone}")).to_have_count(had, timeout=PATIENCE_MS)
            await verdict(page, "All is well")
            first = await cells(page, f"worker {gone}").first.get_attribute("data-cell")
            cell = page.locator(f'#map .cell[data-cell="{first}"]')
            before = await place(cell)
            c.send(signal.SIGKILL)
            await expect(page.locator("#map .cell[data-moved]")).to_have_count(had, timeout=PATIENCE_MS)
            await expect(cells(page, f"worker {gone}")).to_have_count(0, timeout=PATIENCE_MS)

            async def glided() -> bool:
                return await place(cell) != before

            await wait_until(glided, what="the cell has gone to its new owner")
            await expect(page.locator("#waterfall")).to_contain_text(f"death of {gone}", timeout=PATIENCE_MS)
            async with WorkerProcess(database, "d") as d:
                await d.ready()
                await wait_settled(connection, members=3)
                took = (await d.health())["partitions"]["handled"]
                await expect(cells(page, f"worker {await d.member()}")).to_have_count(took, timeout=PATIENCE_MS)
            await append_events(connection, 50)
            await expect(page.locator("#log")).to_contain_text("50", timeout=PATIENCE_MS)


async def test_a_failing_key_a_pause_and_the_database_away(database: str, cluster: Cluster) -> None:
    of = ("--replica-set", "test", "--projection", "poisoned")
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a", projections=["poisoned"], options=("--retries", "0", "--page-payloads")) as a,
        browser() as chromium,
    ):
        await a.ready()
        async with opened(chromium, page_of(a)) as page:
            await verdict(page, "All is well")
            await append(
                connection,
                [NewEvent(aggregate_type="Order", aggregate_id="42", event_type=POISON, payload=b'{"total": 7}')],
            )
            await verdict(page, "1 key waits behind a failed event")
            await expect(page.locator("#map .cell[data-parked]")).to_have_count(1)
            failures = page.locator("#failures")
            await expect(failures).to_contain_text("projections.py:")
            await failures.get_by_role("button", name="Look into 1 key").click()
            await failures.locator("summary").click()
            for words in ("Traceback", "Poison", '{"total": 7}', "dead-letters skip --replica-set test"):
                await expect(failures).to_contain_text(words)

            (await run("pause", *of, DATABASE_URL=database)).done()
            await expect(page.locator("#map")).to_contain_text("paused", timeout=PATIENCE_MS)
            await page.get_by_role("button", name="Pause").click()
            (await run("resume", *of, DATABASE_URL=database)).done()
            await expect(page.locator("#bar")).to_contain_text("paused at")
            await asyncio.to_thread(cluster.restart, "immediate")
            await expect(page.locator("#map .state")).to_contain_text("paused")  # it holds still
            await page.get_by_role("button", name="Resume").click()
            await expect(page.locator("#map .state")).to_contain_text("live", timeout=PATIENCE_MS)

            await asyncio.to_thread(cluster.stop, "immediate")
            await verdict(page, "database")
            await asyncio.to_thread(cluster.start)
            await verdict(page, "1 key waits behind a failed event")
            a.send(signal.SIGKILL)
            await verdict(page, "This page has lost its worker")


async def test_what_would_be_markup_is_text(database: str) -> None:
    hostile = "integration_test.http.hostile:hostile"
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a", replica_set="a<b>&'\"", projections=[hostile], options=("--retries", "0")) as a,
        browser() as chromium,
    ):
        await a.ready()
        await append(connection, [NewEvent(aggregate_type="<b>x</b>", aggregate_id=TEXT, event_type="<i>")])
        async with opened(chromium, page_of(a)) as page:
            await expect(page.locator("#failures")).to_contain_text(NAME, timeout=PATIENCE_MS)
            await page.get_by_role("button", name="Look into 1 key").click()
            await page.locator("#failures summary").click()
            await expect(page.locator("#failures")).to_contain_text("<b>x</b>")
            assert await page.locator("img, b b, i i, script:not([src])").count() == 0
            assert not await violations(page)


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.thorough)])
async def test_it_is_for_everybody(database: str, scheme: str) -> None:
    async with (
        prepared(database),
        WorkerProcess(database, "a", projections=["handled", "poisoned"]) as a,
        WorkerProcess(database, "b", projections=["handled", "poisoned"]) as b,
        browser() as chromium,
    ):
        await a.ready()
        await b.ready()
        for viewport in (WIDE, PHONE):
            async with opened(chromium, page_of(a), viewport=viewport, color_scheme=scheme) as page:
                await expect(page.locator("#map .cell")).to_have_count(128, timeout=PATIENCE_MS)
                assert not await violations(page)
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
                if viewport == WIDE:
                    await walk_by_keyboard(page)


_FOCUS = """() => {
    const element = document.activeElement, style = getComputedStyle(element);
    const where = element.closest("section, header")?.id ?? element.className;
    return [where, style.outlineStyle !== "none" || style.boxShadow !== "none"];
}"""


async def walk_by_keyboard(page: Page) -> None:
    """Reach all there is by Tab, and walk the map by arrows."""
    reached: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        where, seen = await page.evaluate(_FOCUS)
        assert seen or not where, f"one sees where one is: {where}"
        reached.append(where)
    assert {"skip", "bar", "map", "time", "waterfall"} <= set(reached)
    await page.locator("#map .cell").first.focus()
    await page.keyboard.press("ArrowRight")
    assert await page.evaluate("document.activeElement.dataset.cell") != "0"


async def test_other_replica_sets_and_what_nobody_runs(database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a, browser() as chromium:
        await a.ready()
        async with WorkerProcess(database, "b", "other") as b:
            await b.ready()
            await b.stop()
        async with opened(chromium, page_of(a)) as page:
            await page.get_by_role("link", name="other").click()
            await verdict(page, "no worker lives")
            await expect(page.locator("#workers")).to_contain_text(re.compile("Nobody|no worker", re.IGNORECASE))
            assert page.url.endswith(f"?replica_set={quote('other')}")
