"""Money that merchants gave back and no account of its person took, in the console: who waits."""

from __future__ import annotations

from typing import Any, Final

from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.parties.e_accounts.model import EAccountStateWrong
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.people.model import PREFIX as PERSON
from tongbao.payments.e_account_payments.model import EAccountRefund
from tongbao.payments.e_account_payments.queries import all_waiting, waiting_sums
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply

_ROWS: Final = 50


class ReturnedMoneyFormWrong(Invalid):
    """A field of the address says nothing that can be listed."""

    code = "console.returned_money_form_wrong"
    advice = "Choose one of the values offered."
    advice_zh = "请选择页面提供的选项。"


async def show_returned(visit: Visit) -> Reply:
    """Return what waits in a mode, the longest first; ``q`` is a person's id.

    Raises:
        ReturnedMoneyFormWrong, UnknownId, CursorInvalid
    """
    query, db = visit.request.query, visit.desk.db
    q, mode = query.get("q", "").strip()[:64], query.get("mode", "") or Mode.LIVE.value
    wanted = mode_of(mode)
    if wanted is None:
        raise ReturnedMoneyFormWrong(param="mode")
    person_id = parse(PERSON, q) if q else None
    page = await all_waiting(
        db, wanted, person_id=person_id, cursor=query.get("cursor"), limit=_ROWS
    )
    names = {
        each: (await merchant_with_id(db, each)).name
        for each in {row.merchant_id for row in page.items}
    }
    facts: dict[str, Any] = {
        "sums": await waiting_sums(db, wanted),
        "rows": [_row(each, names[each.merchant_id]) for each in page.items],
        "q": q,
        "mode": mode,
        "is_empty": not q,
        "next_cursor": page.next_cursor,
    }
    return await visit.page("returned_money.html", facts)


ROUTES: Final = (Route("GET", "/returned_money", show_returned, Permission.VIEW, is_licensed=True),)


def _row(refund: EAccountRefund, merchant: str) -> dict[str, Any]:
    return {
        "id": show("ref", refund.refund_id),
        "payment": show("pay", refund.payment_id),
        "person": show(PERSON, refund.person_id),
        "account": show(ACCOUNT, refund.account_id),
        "merchant": merchant,
        "amount": refund.amount,
        "currency": refund.currency,
        "because": "closed" if refund.code == EAccountStateWrong.code else "full",
        "since": refund.made_at,
    }
