"""A saga: a room is held while its payment is asked for; then the booking is confirmed, or the room is given back.

What comes next is decided from the booking's whole stream, and appended only if nothing has been added to that since:
`expected`. If something has, a guest's withdrawal for instance, that is a Conflict at the end of the batch: all that
the handler has done is rolled back and the event is tried again, with a stream that says more. (So it is when a batch
has two events of one booking: the second does not see what the first has appended.)

    BookingRequested ─▶ PaymentRequested ─▶ PaymentReceived ─▶ BookingConfirmed
           │                   ├──────────▶ PaymentFailed, PaymentOverdue, BookingWithdrawn ─▶ BookingCancelled
           └──── the room is taken ───────────────────────────────────────────────────────────────▲
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reactive_orch import Conflict, Event, Expected, NewEvent, append, projection, read_stream

if TYPE_CHECKING:
    from datetime import timedelta

    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

OVER = {"BookingConfirmed", "BookingCancelled"}


async def request(connection: Connection, booking: str, room: str, card: str, pay_within: timedelta) -> None:
    """Begin. All events of one room have one key: they are handled in order, and so is the room's row written."""
    payload = {"room": room, "card": card, "pay_within_s": pay_within.total_seconds()}
    event = NewEvent(
        aggregate_type="Booking",
        aggregate_id=booking,
        event_type="BookingRequested",
        payload=payload,
        partition_key=room,
    )
    await append(connection, [event], expected=Expected.NO_STREAM)


def after(event: Event, event_type: str, **payload: Any) -> NewEvent:
    """Return what follows an event of a booking."""
    return NewEvent(
        aggregate_type=event.aggregate_type,
        aggregate_id=event.aggregate_id,
        event_type=event_type,
        payload=payload,
        partition_key=event.partition_key,
        causation_id=str(event.event_id),
    )


@projection("saga", aggregate_types=["Booking"])
async def saga(event: Event, tx: Connection) -> None:
    """Do what an event asks for, and append what it leads to."""
    stream = await read_stream(tx, "Booking", event.aggregate_id)
    happened = {each.event_type for each in stream}
    following: NewEvent | None = None
    match event.event_type:
        case "BookingRequested" if "BookingWithdrawn" not in happened:
            held = await hold(event, tx)
            following = after(event, "PaymentRequested") if held else after(event, "BookingCancelled", why="taken")
        case "PaymentReceived" if happened & {"BookingWithdrawn", "BookingCancelled"}:
            following = after(event, "RefundRequested")
        case "PaymentReceived":
            await tx.execute("UPDATE holds SET until = NULL WHERE booking = $1", event.aggregate_id)
            following = after(event, "BookingConfirmed")
        case "PaymentFailed" | "PaymentOverdue" | "BookingWithdrawn" if not happened & OVER:
            await tx.execute("DELETE FROM holds WHERE booking = $1", event.aggregate_id)  # what compensates the hold
            following = after(event, "BookingCancelled", why=event.event_type)
    if following is not None:
        await append(tx, [following], expected=stream[-1].aggregate_version)


async def hold(event: Event, tx: Connection) -> bool:
    """Give the room to the booking of a BookingRequested; return whether it was free."""
    asked = event.json()
    done = await tx.execute(
        "INSERT INTO holds VALUES ($1, $2, now() + $3 * interval '1 second') ON CONFLICT DO NOTHING",
        asked["room"],
        event.aggregate_id,
        asked["pay_within_s"],
    )
    return bool(done == "INSERT 0 1")


@projection("payments", aggregate_types=["Booking"])
async def payments(event: Event, tx: Connection) -> None:
    """Stand in for the bank. A real one is called as examples/outbox does it, and says later what came of it."""
    if event.event_type == "PaymentRequested":
        requested, *_ = await read_stream(tx, "Booking", event.aggregate_id)
        answers = {"good": "PaymentReceived", "declined": "PaymentFailed"}
        if (answer := answers.get(requested.json()["card"])) is not None:
            await append(tx, [after(event, answer)])  # a fact, whatever has been added to the stream since


async def tell(connection: Connection, booking: str, event_type: str) -> bool:
    """Append what comes from outside: BookingWithdrawn, PaymentOverdue. False if it is over, or was told so."""
    while True:
        stream = await read_stream(connection, "Booking", booking)
        if {event_type, *OVER} & {each.event_type for each in stream}:
            return False
        try:
            await append(connection, [after(stream[-1], event_type)], expected=stream[-1].aggregate_version)
        except Conflict:
            continue  # something has happened meanwhile: it may be over
        return True


async def tell_overdue(connection: Connection) -> None:
    """Make events of deadlines that have passed, or nothing would happen then. For a timer, say each minute."""
    for (booking,) in await connection.fetch("SELECT booking FROM holds WHERE until < now()"):
        await tell(connection, booking, "PaymentOverdue")
