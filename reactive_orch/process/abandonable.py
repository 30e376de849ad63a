"""A blocking call that may be given up, in a daemon thread: Python waits at its end for all others, anyio's too."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


async def abandonable(call: Callable[[], _T]) -> _T:
    """Return what the call returns, or raise what it raises. Cancelled, this ends at once, and the call goes on."""
    done: Future[_T] = Future()

    def work() -> None:
        with contextlib.suppress(InvalidStateError):  # given up meanwhile
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - whoever waits raises it
                done.set_exception(error)
            else:
                done.set_result(result)

    threading.Thread(target=work, name="reactive_orch abandonable", daemon=True).start()
    return await asyncio.wrap_future(done)
