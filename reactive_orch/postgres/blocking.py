"""A handler's connection for a plain function that runs in a thread: each statement is run on the event loop.

    thread    tx.execute(…) ──▶ request, and waits
    loop      serve(): in the handler's own task, one request after the other, until the function has ended

So a time-out or a cancellation of the handler's task ends the statement it is at, and nothing more is run: from `close`
on, whatever the thread asks for raises. The batch may be rolled back then, whatever the thread is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence

    import asyncpg

    from reactive_orch.postgres.connection import AnyConnection

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Request(NamedTuple):
    call: Callable[[], Coroutine[Any, Any, Any]]
    context: Context
    """Of the thread: what it traces goes on with the statement."""
    answer: Future[Any]


class _End(NamedTuple):
    error: BaseException | None


class BlockingConnection:
    """The connection that a handler with `blocking=True` is given, good for that one call of it, in any thread.

    Its methods are those of an asyncpg connection, without `await`. After a time-out or a cancellation of the call each
    raises asyncio.CancelledError, which is no Exception, so that the function ends; after the call, RuntimeError.
    """

    def __init__(self, tx: AnyConnection) -> None:
        """Lend a connection that the running task has. Raises RuntimeError in another loop than the connection's."""
        self._tx = tx
        self._loop = asyncio.get_running_loop()
        if getattr(tx, "_loop", self._loop) is not self._loop:  # asyncpg would crash the process
            msg = "a blocking handler was called in another event loop than its worker's: await it where middleware is"
            raise RuntimeError(msg)
        self._thread = threading.get_ident()
        self._asked: asyncio.Queue[_Request | _End] = asyncio.Queue()
        self._closed: Callable[[], BaseException] | None = None
        """Makes what is raised once it is closed."""

    def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Execute as asyncpg does."""
        return self._ask(partial(self._tx.execute, query, *args, timeout=timeout))

    def executemany(self, query: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None) -> None:
        """Execute for each of many as asyncpg does."""
        return self._ask(partial(self._tx.executemany, query, args, timeout=timeout))

    def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[asyncpg.Record]:
        """Return the rows."""
        return self._ask(partial(self._tx.fetch, query, *args, timeout=timeout))

    def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> asyncpg.Record | None:
        """Return the first row; None if there is none."""
        return self._ask(partial(self._tx.fetchrow, query, *args, timeout=timeout))

    def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """Return a value of the first row; None if there is none."""
        return self._ask(partial(self._tx.fetchval, query, *args, column=column, timeout=timeout))

    def copy_records_to_table(self, table_name: str, **how: Any) -> str:
        """Copy `records` into a table as asyncpg does, with its other options."""
        return self._ask(partial(self._tx.copy_records_to_table, table_name, **how))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Set a savepoint for the block: an error that leaves it takes back what the block has done."""
        savepoint = self._tx.transaction()
        self._ask(savepoint.start)
        try:
            yield
        except BaseException:
            self._ask(savepoint.rollback)
            raise
        self._ask(savepoint.commit)

    def is_in_transaction(self) -> bool:
        """Tell whether the transaction is still open."""
        return self._tx.is_in_transaction()

    def run(self, function: Callable[Concatenate[Any, _P], Awaitable[_T]], *args: _P.args, **named: _P.kwargs) -> _T:
        """Run an async function on the event loop, and return what it returns.

        Its first argument is the asyncpg connection, then come the others: `tx.run(read_stream, "Order", "4711")`.
        """
        return self._ask(partial(_awaited, function, self._tx, *args, **named))

    def _ask(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        if threading.get_ident() == self._thread:
            msg = "this would wait for itself: on the event loop use the connection that the async function is given"
            raise RuntimeError(msg)
        request = _Request(call, copy_context(), Future())
        self._loop.call_soon_threadsafe(self._take, request)
        answer: _T = request.answer.result()
        return answer

    def end(self, error: BaseException | None) -> None:
        """Let `serve` end, from the thread: the function has raised this, or returned."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            self._loop.call_soon_threadsafe(self._take, _End(error))

    def _take(self, asked: _Request | _End) -> None:
        if self._closed is None:
            self._asked.put_nowait(asked)
        elif isinstance(asked, _Request):
            asked.answer.set_exception(self._closed())

    async def serve(self) -> None:
        """Run what the thread asks for until its function has ended. Raises what that has raised."""
        try:
            while not isinstance(asked := await self._asked.get(), _End):
                await _answered(asked)
        except BaseException:
            self._close(
                partial(asyncio.CancelledError, "this call of the handler was ended: it took too long, perhaps")
            )
            raise
        self._close(partial(RuntimeError, "the call of the handler that this connection was lent to has ended"))
        if asked.error is not None:
            raise asked.error

    def _close(self, raised: Callable[[], BaseException]) -> None:
        self._closed = raised
        while not self._asked.empty():
            self._take(self._asked.get_nowait())


async def _awaited(function: Callable[..., Awaitable[_T]], *args: Any, **named: Any) -> _T:
    return await function(*args, **named)


async def _answered(request: _Request) -> None:
    try:
        result = await _in_context(request.context, request.call())
    except BaseException as error:
        request.answer.set_exception(error)
        if isinstance(error, asyncio.CancelledError):
            raise
    else:
        request.answer.set_result(result)


@coroutine
def _in_context(context: Context, work: Coroutine[Any, Any, _T]) -> Generator[Any, Any, _T]:
    """Await in a context. A task of its own would have one, too, but would not end with this one's time-out."""
    step: Callable[[], Any] = partial(work.send, None)
    while True:
        try:
            awaited = context.run(step)
        except StopIteration as end:
            result: _T = end.value
            return result
        try:
            step = partial(work.send, (yield awaited))
        except BaseException as error:  # noqa: BLE001 - it goes to whoever awaits
            step = partial(work.throw, error)
