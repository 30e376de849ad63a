"""A real browser on a worker's page, and what it complains of."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed (Debian: chromium)")
GONE = "net::ERR_CONNECTION_REFUSED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING"
"""What the browser says, whatever a page does, when nobody serves it any more."""
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 400, "height": 860}


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start one for the block."""
    async with async_playwright() as playwright:
        # As root it has no sandbox; what it loads is ours.
        started = await playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        try:
            yield started
        finally:
            await started.close()


@contextlib.asynccontextmanager
async def opened(started: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    """Open a page for the block; fails if it wrote an error into the console, or asked for something elsewhere."""
    options = {"viewport": WIDE, "color_scheme": "light", **options}
    context = await started.new_context(**options)
    complaints: list[str] = []
    page = await context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    home = urlsplit(url).netloc
    page.on("request", lambda request: complaints.append(request.url) if urlsplit(request.url).netloc != home else None)
    await page.goto(url)
    try:
        yield page
    finally:
        await context.close()
    left = [each for each in complaints if not any(gone in each for gone in GONE)]
    assert not left, left


async def violations(page: Page) -> list[str]:
    """Return what axe-core finds against accessibility, each rule with what it is about."""
    found = await Axe().run(page)
    return [
        f"{each['id']}: {node['html'][:200]}" for each in found.response["violations"] for node in each["nodes"][:3]
    ]
