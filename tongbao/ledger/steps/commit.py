"""Commit one step of something: its rows with its money, or its rows alone where none moves.

Every flow that hears an answer from outside ends here: either all of the step is written or, when
somebody else was faster, nothing, and the caller looks at its rows again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final
from uuid import UUID

from tongbao.infra.db import Db, Write, write_all
from tongbao.kernel.ids import new_id
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import MOVED_BEFORE, Group, Transfer

Alone = Callable[[Sequence[Write]], Awaitable[str | None]]
"""Commits rows without money; answers the code of the write that was refused, or None."""
IN_FLIGHT: Final = "in_flight"


def in_one_transaction(db: Db, actor: str) -> Alone:
    """Return what commits rows alone, in a transaction of this actor."""

    async def alone(writes: Sequence[Write]) -> str | None:
        async with db.begin(actor) as tx:
            return await write_all(tx, writes)

    return alone


async def commit_together(
    ledger: Ledger,
    alone: Alone,
    book: int,
    transfers: Sequence[Transfer],
    writes: tuple[Write, ...],
) -> str | None:
    """Commit rows and money together, or rows alone; None, or why nothing was written.

    The group has a new id each time: the ledger remembers a refusal for ever, and being overtaken
    or short of money is not for ever. The transfers' own ids keep the money to once.
    """
    if not transfers:
        return await alone(writes)
    [result] = await ledger.submit([Group(new_id(), book, tuple(transfers), writes)])
    if result.happened:
        return None
    return result.status if result.status == IN_FLIGHT else result.code or result.status


def is_committed(refused: str | None, overtaken: Collection[str], subject: UUID) -> bool:
    """Tell whether a step was committed; False when somebody else was faster.

    Raises:
        RuntimeError: it was refused for a reason that an answer from outside cannot have.
    """
    if refused is None:
        return True
    if refused == IN_FLIGHT or refused in overtaken or refused in MOVED_BEFORE:
        return False
    raise RuntimeError(f"a step of {subject} was refused: {refused}")
