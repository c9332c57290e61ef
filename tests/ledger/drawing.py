"""Hypothesis strategies for groups: mostly possible ones, on few accounts, so that they meet."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from hypothesis import strategies as st

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
REFERENCE = UUID(int=99)


def seldom(usual, odd, one_in=12):
    """Draw from ``odd`` now and then: a wrong part in every group would hide all the others."""
    return st.integers(1, one_in).flatmap(lambda n: odd if n == one_in else usual)


keys = seldom(st.sampled_from([*WALLETS, PAYABLE, BANK]), st.sampled_from(ODD))
payers = st.integers(0, 2).flatmap(lambda n: keys if n else st.just(BANK))
amounts = seldom(st.integers(1, 100), st.sampled_from([0, -1, AMOUNT_MAX, AMOUNT_MAX + 1]))
transfer_ids = seldom(st.uuids(version=4), st.integers(1000, 1005).map(lambda n: UUID(int=n)))
group_ids = seldom(st.uuids(version=4), st.integers(2000, 2005).map(lambda n: UUID(int=n)))
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
    if not holds and kind not in ("single", "pending"):
        kind = common["kind"] = TransferKind.PENDING
    if kind in ("single", "pending"):
        expires_at = None
        if kind == "pending" and draw(st.booleans()):
            hours = draw(seldom(st.integers(0, 4), st.just(-1)))
            expires_at = now + timedelta(hours=hours, minutes=30)
        return Transfer(
            **common,
            amount=draw(amounts),
            debit=draw(payers),
            credit=draw(keys),
            expires_at=expires_at,
        )
    amount = None
    if kind == "post" and draw(st.booleans()):
        amount = draw(seldom(st.integers(1, 60), st.sampled_from([0, 101])))
    pending_id = draw(seldom(st.sampled_from(sorted(holds)), transfer_ids))
    return Transfer(**common, amount=amount, pending_id=pending_id)


@st.composite
def groups(draw, now, holds, book=1):
    """Draw a group; ``holds`` are the ids of pending transfers there have been."""
    size = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 0]))
    lines = []
    for _ in range(size):
        opened = [line.id for line in lines if line.kind == "pending"]
        lines.append(draw(transfers(now, [*holds, *opened])))
    return Group(id=draw(group_ids), book=book, transfers=tuple(lines))
