"""A call that blocks and may be given up: Python's and anyio's own threads are waited for at the end of the process."""

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
    """Return what the call returns, or raise what it raises; if this is cancelled, nobody waits for it."""
    done: Future[_T] = Future()

    def work() -> None:
        with contextlib.suppress(InvalidStateError):  # given up meanwhile
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - raised by who waits
                done.set_exception(error)
            else:
                done.set_result(result)

    threading.Thread(target=work, name="reactive_orch abandonable", daemon=True).start()
    return await asyncio.wrap_future(done)
