"""Who may read the page: a browser that was led here by another site may not.

A site whose name is made to lead to this machine (DNS rebinding) is told by its name, which is none of ours: an address
is nobody's name, and whoever serves behind a name says so.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types lit-html",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer: no script or style but ours, nothing loaded from elsewhere, in nobody's frame."""


def guarded(handler: Handler, names: Collection[str]) -> Handler:
    """Return a handler that answers only who asks for this machine by an address or one of these names, from here."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if (why := refusal(request.headers.get("Host", ""), request.headers.get("Origin"), names)) is not None:
            return web.json_response({"error": why}, status=403, headers=HEADERS)
        if "\0" in request.path_qs or any("\0" in value for value in request.query.values()):
            return web.json_response({"error": "no text here has a zero byte"}, status=400, headers=HEADERS)
        return await handler(request)

    return answer


def refusal(host: str, origin: str | None, names: Collection[str]) -> str | None:
    """Return why a request is refused; None if it is not. `host` and `origin` are its headers."""
    name = _name(host)
    if not name:
        return "the request does not say by which name it asks"
    ours = {"localhost", socket.gethostname().lower(), *map(_name, names)}
    if not (_is_address(name) or name in ours or name.endswith(".localhost")):
        return f"this page is not served as {name!r}: start the worker with --page-host {name}, if that is right"
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "another site may not read this"
    return None


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().removesuffix(".")
    except ValueError:  # brackets that do not match
        return host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
