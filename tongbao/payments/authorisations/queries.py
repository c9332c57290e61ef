"""Read captures and voids: for callbacks and clearing, and for the console."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import from_base32
from tongbao.payments.authorisations import _store as store
from tongbao.payments.authorisations.model import Completion
from tongbao.payments.collecting.model import Payment


async def completion_by_number(on: Db | Tx, number: str) -> Completion | None:
    """Return the capture or void a channel means by our number, if it is one of ours.

    Raises:
        UnknownId: it is not a number of ours at all.
    """
    return await store.FIND_COMPLETION.first(on, from_base32(number))


async def completions_of_payment(on: Db | Tx, payment: Payment) -> list[Completion]:
    """Return what was done with the money a payment had set aside, oldest first."""
    return await store.COMPLETIONS_OF_PAYMENT.all(on, payment.book, payment.id)


async def completions_with_ids(on: Db | Tx, ids: Sequence[UUID]) -> list[Completion]:
    """Return those of these captures and voids that exist, in no order."""
    return await store.COMPLETIONS_WITH_IDS.all(on, list(ids))
