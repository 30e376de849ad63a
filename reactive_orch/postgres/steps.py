"""Work in several statements, told apart from how they are sent: asyncpg, or another toolkit, awaited or not.

    rows = yield Statement(sql, arguments)

is a step: whoever performs it sends the statement, and gives its rows back, or its error, at that place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


class Statement(NamedTuple):
    """A statement to send, and the arguments for its `$1`, `$2`, and so on."""

    sql: str
    arguments: tuple[Any, ...] = ()


Rows: TypeAlias = Sequence[Any]
"""Each is a sequence of its columns' values."""
Steps: TypeAlias = Generator[Statement, Rows, T]


async def perform(steps: Steps[T], ask: Callable[[Statement], Awaitable[Rows]]) -> T:
    """Send each statement by `ask`, and return what the steps return. What they do not catch is raised."""
    try:
        statement = next(steps)
        while True:
            try:
                rows = await ask(statement)
            except BaseException as error:  # noqa: BLE001 - the steps raise it again, or what it means
                statement = steps.throw(error)
            else:
                statement = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def perform_now(steps: Steps[T], ask: Callable[[Statement], Rows]) -> T:
    """Do the same where nothing is awaited."""

    async def ask_now(statement: Statement) -> Rows:
        return ask(statement)

    try:
        perform(steps, ask_now).send(None)
    except StopIteration as end:  # at once, as nothing in it waits
        result: T = end.value
        return result
    msg = "nothing is awaited"
    raise AssertionError(msg)
