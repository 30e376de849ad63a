"""Which generation a worker has adopted, or is adopting: one after the other, each ended before the next begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.runtime.membership.adoption import Adoption

if TYPE_CHECKING:
    from reactive_orch.model import Snapshot, Turn
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.database import Database
    from reactive_orch.runtime.handling.runners import Runners


class Adoptions:
    """One worker's adoptions."""

    def __init__(self, emit: Emit) -> None:
        """Start with none."""
        self._emit = emit
        self.generation = 0
        self.complete = 0
        """The last generation that is known to be complete."""
        self.present: Adoption | None = None
        """The adoption of the generation that was seen last; None until one is seen, and after one was given up."""

    @property
    def open(self) -> Adoption | None:
        """The one that is still to be acknowledged."""
        return None if self.present is None or self.present.done else self.present

    def begin(self, turn: Turn, snapshot: Snapshot, runners: Runners, *, resumed: bool) -> Adoption:
        """Adopt this snapshot's generation: tell the runners what they should hold."""
        self.end("superseded")
        self.generation = snapshot.generation
        adoption = self.present = Adoption(turn, snapshot, runners, self._emit, resumed=resumed)
        runners.assign(adoption.due)
        return adoption

    def end(self, outcome: str) -> None:
        """Go on without the present one."""
        unfinished, self.present = self.open, None
        if unfinished is not None:
            unfinished.end(outcome)

    def note(self) -> None:
        """Note the time if a step has been done."""
        if self.present is not None:
            self.present.note()

    async def acknowledge(self, adoption: Adoption, database: Database) -> bool:
        """Tell the others that the generation has been adopted; False when there is another one already.

        In another incarnation of the database there is: what is seen next is adopted instead.
        """
        if adoption.incarnation != database.incarnation:
            return False
        adoption.note()
        if not adoption.resumed:
            async with database.coordination(adoption.incarnation) as connection:
                if not await adoption.acknowledge(connection, database.label):
                    return False
        if not adoption.done:
            adoption.end("acknowledged")
            self.complete = adoption.generation if adoption.completed else self.complete
        return True
