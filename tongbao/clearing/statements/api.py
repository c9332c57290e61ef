"""The routes of papers about settlements and payouts, which only a licensed firm has."""

from __future__ import annotations

from typing import Literal

from litestar import get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from tongbao.clearing.payouts.model import PayoutNotFound
from tongbao.clearing.payouts.queries import payout_of_merchant
from tongbao.clearing.settlement.model import SettlementNotFound
from tongbao.clearing.settlement.queries import settlement_of_merchant
from tongbao.clearing.statements.model import (
    PaperView,
    PayoutReceipt,
    ReceiptNotReady,
    StatementFormat,
    StatementTooLong,
)
from tongbao.clearing.statements.papers import receipt_paper, statement_paper
from tongbao.clearing.statements.queries import receipt_of, statement_of
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence


class PayoutReceiptView(Struct, frozen=True):
    """A payout's receipt: its facts, their digest, and the same on paper."""

    object: Literal["payout_receipt"]
    facts: PayoutReceipt
    digest: str
    paper: PaperView


@get(
    "/v1/settlements/{settlement_id:str}/statement",
    opt=needs("settlements:read", cost=20, refuses=[SettlementNotFound, StatementTooLong]),
)
async def get_statement(
    settlement_id: str, db: Db, caller: Caller, *, layout: StatementFormat = StatementFormat.CSV
) -> PaperView:
    """Return a settlement's statement as a file: CSV, XLSX or PDF."""
    target = parse("set", settlement_id)
    found = await settlement_of_merchant(db, target, caller.merchant_id, caller.mode)
    return statement_paper(await statement_of(db, found), layout)


@get(
    "/v1/payouts/{payout_id:str}/receipt",
    opt=needs("settlements:read", refuses=[PayoutNotFound, ReceiptNotReady]),
)
async def get_payout_receipt(payout_id: str, db: Db, caller: Caller) -> PayoutReceiptView:
    """Return the electronic receipt of a payout that succeeded."""
    target = parse("pyo", payout_id)
    payout = await payout_of_merchant(db, target, caller.merchant_id, caller.mode)
    receipt = await receipt_of(db, payout)
    return PayoutReceiptView("payout_receipt", receipt, receipt.digest, receipt_paper(receipt))


ROUTES = [get_statement, get_payout_receipt]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return ROUTES if licence.may_hold_funds else []
