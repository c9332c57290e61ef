"""What accounts, transfers and groups are, and the one pure decision about them. No I/O.

A transfer has exactly one debit and one credit account, so an unbalanced book cannot be written
down. A group is the unit that happens whole or not at all: its transfers and its companion writes.

    pending ──► posted (whole or in part, the rest is released) | voided | expired
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Write


class AccountKey(Struct, frozen=True):
    """Which account of a book is meant: its kind in the chart, its owner, its currency.

    System accounts (fee income, bank) have no owner.
    """

    kind: str
    currency: str
    owner: UUID | None = None


class TransferKind(StrEnum):
    """What a transfer does to the four counters of its two accounts."""

    SINGLE = "single"  # posted at once
    PENDING = "pending"  # held until posted, voided or expired
    POST = "post"  # ends `pending_id`, moving `amount` of it and releasing the rest
    VOID = "void"  # ends `pending_id`, moving nothing


class Transfer(Struct, frozen=True):
    """One movement between two accounts of one book, in minor units; immutable once recorded.

    For `POST` and `VOID` the accounts are those of the pending transfer; `POST` with amount None
    posts all of it.
    """

    id: UUID
    kind: TransferKind
    code: str  # the posting rule and leg, such as "payment.captured/gross"
    reference: UUID  # the payment, refund or settlement this belongs to
    amount: int | None = None
    debit: AccountKey | None = None
    credit: AccountKey | None = None
    pending_id: UUID | None = None


class Group(Struct, frozen=True):
    """Transfers and companions that happen together, exactly once for ever, under one id.

    ``companions`` are writes of the calling domain, opaque to the ledger. They run in the order
    given, before the accounts are locked; one that must touch a row and touches none refuses its
    own group, with its code, and no other. A caller that locks several of its own rows always
    does so in the same order.
    """

    id: UUID
    book: int
    transfers: tuple[Transfer, ...]
    companions: tuple[Write, ...] = ()


Status = Literal["created", "exists", "exists_different", "refused", "in_flight"]


class Result(Struct, frozen=True):
    """What became of a group; recorded, so the same group gets the same answer for ever.

    ``exists`` repeats an earlier ``created``; a repeat of a refused group is ``refused`` with the
    first code again.
    """

    status: Status
    code: str | None = None  # why it was refused, such as "ledger.exceeds_balance"
    seq: int | None = None  # the book's last sequence number after a created group

    @property
    def happened(self) -> bool:
        """Whether the group is in the book, by this call or an earlier one."""
        return self.status in {"created", "exists"}
