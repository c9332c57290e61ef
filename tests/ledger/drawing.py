"""Hypothesis strategies for groups: mostly possible ones, on few accounts, so that they meet."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from hypothesis import strategies as st
from msgspec.structs import replace

from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.model import AccountKey, Group, Transfer, TransferKind

ALICE, BOB, MERCHANT, CHANNEL = (UUID(int=n) for n in range(11, 15))
BANK = AccountKey("bank", "CNY")
WALLETS = [AccountKey("wallet", "CNY", owner) for owner in (ALICE, BOB)]
PAYABLE = AccountKey("merchant_payable", "CNY", MERCHANT)
ODD = [
    AccountKey("bank", "USD"),
    AccountKey("gold", "CNY"),
    AccountKey("wallet", "CNY"),
    AccountKey("fee_income", "CNY", ALICE),
    AccountKey("bank", "XAU"),
]
FRONT = 0x0190_0000_0000_7000 << 64  # some millisecond of 2024
REFERENCE = UUID(int=FRONT | 99)
IN_THE_FUTURE = UUID(int=0xFFFF << 112 | 1)


def seldom(usual, odd, one_in=12):
    """Draw from ``odd`` now and then: a wrong part in every group would hide all the others."""
    return st.integers(1, one_in).flatmap(lambda n: odd if n == one_in else usual)


def ids_between(first, last):
    return st.integers(first, last).map(lambda n: UUID(int=FRONT | n))


keys = seldom(st.sampled_from([*WALLETS, PAYABLE, BANK]), st.sampled_from(ODD))
payers = st.integers(0, 2).flatmap(lambda n: keys if n else st.just(BANK))
amounts = seldom(st.integers(1, 100), st.sampled_from([0, -1, AMOUNT_MAX, AMOUNT_MAX + 1]))
odd_ids = st.one_of(
    ids_between(1000, 1005),
    st.sampled_from([UUID(int=0x0190_0000_0000_7001 << 64 | 5), IN_THE_FUTURE]),
)
transfer_ids = seldom(ids_between(1 << 32, 1 << 62), odd_ids)
# No other group may have these as transfers: the answer would be about that group.
standing_ids = ids_between(1 << 62, (1 << 62) + (1 << 40))
group_ids = seldom(
    ids_between(1 << 63, (1 << 64) - 1),
    st.one_of(ids_between(2000, 2005), st.just(IN_THE_FUTURE)),
)
kinds = st.sampled_from(
    [
        *[TransferKind.SINGLE] * 4,
        *[TransferKind.PENDING] * 3,
        *[TransferKind.POST] * 3,
        TransferKind.VOID,
        TransferKind.EXPIRE,
    ]
)


@st.composite
def transfers(draw, now, holds):
    kind = draw(kinds)
    common = {"id": draw(transfer_ids), "kind": kind, "code": "test/leg", "reference": REFERENCE}
    if not holds and kind > TransferKind.PENDING:
        kind = common["kind"] = TransferKind.PENDING
    if kind <= TransferKind.PENDING:
        expires_at = None
        if kind is TransferKind.PENDING and draw(st.booleans()):
            hours = draw(seldom(st.integers(0, 4), st.just(-1)))
            expires_at = now + timedelta(hours=hours, minutes=30)
        return Transfer(
            **common,
            amount=draw(amounts),
            debit=draw(payers),
            credit=draw(keys),
            expires_at=expires_at,
            at_most=draw(seldom(st.just(False), st.just(True), 5)),
        )
    amount = None
    if kind is TransferKind.POST and draw(st.booleans()):
        amount = draw(seldom(st.integers(1, 60), st.sampled_from([0, 101])))
    pending_id = draw(seldom(st.sampled_from(sorted(holds)), transfer_ids))
    return Transfer(**common, amount=amount, pending_id=pending_id)


@st.composite
def groups(draw, now, holds, book=1):
    """Draw a group; ``holds`` are the ids of pending transfers there have been."""
    size = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 0]))
    lines = []
    for _ in range(size):
        opened = [line.id for line in lines if line.kind is TransferKind.PENDING]
        lines.append(draw(transfers(now, [*holds, *opened])))
    if lines and draw(st.booleans()):
        lines[0] = replace(lines[0], id=draw(standing_ids))
        return Group(id=lines[0].id, book=book, transfers=tuple(lines))
    return Group(id=draw(group_ids), book=book, transfers=tuple(lines))
