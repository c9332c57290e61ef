"""Hypothesis strategies for groups: few accounts and ids, so that they meet often."""

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

keys = st.one_of(
    st.sampled_from([BANK, *WALLETS, PAYABLE]),
    st.sampled_from([BANK, *WALLETS, PAYABLE]),
    st.sampled_from([BANK, *WALLETS, PAYABLE, *ODD]),
)
amounts = st.one_of(
    st.integers(1, 100), st.integers(1, 100), st.sampled_from([0, -1, AMOUNT_MAX, AMOUNT_MAX + 1])
)
transfer_ids = st.integers(1000, 1025).map(lambda n: UUID(int=n))
group_ids = st.integers(2000, 2060).map(lambda n: UUID(int=n))


@st.composite
def transfers(draw, now):
    kind = draw(st.sampled_from(TransferKind))
    common = {"id": draw(transfer_ids), "kind": kind, "code": "test/leg", "reference": REFERENCE}
    if kind in ("single", "pending"):
        expires_at = None
        if kind == "pending" and draw(st.booleans()):
            expires_at = now + timedelta(hours=draw(st.integers(-1, 4)), minutes=30)
        return Transfer(
            **common,
            amount=draw(amounts),
            debit=draw(keys),
            credit=draw(keys),
            expires_at=expires_at,
        )
    amount = draw(st.none() | st.integers(0, 120)) if kind == "post" else None
    return Transfer(**common, amount=amount, pending_id=draw(transfer_ids))


@st.composite
def groups(draw, now, book=1):
    lines = draw(st.lists(transfers(now), min_size=0, max_size=4))
    return Group(id=draw(group_ids), book=book, transfers=tuple(lines))
