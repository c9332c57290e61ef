"""Who signs for a merchant, and keys that nobody else has."""

from __future__ import annotations

from uuid import UUID

from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import Idempotency, use_of
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode


def once(caller: Caller) -> Idempotency:
    """A use of an idempotency key that nobody else has."""
    return use_of(caller, "POST /tests", str(new_id()), b"")


def caller_of(merchant_id: UUID, book: int, mode: Mode = Mode.SANDBOX) -> Caller:
    """Who signs for a merchant."""
    return Caller(new_id(), merchant_id, mode, book, frozenset())
