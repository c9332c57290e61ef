"""Wallets that merchants open for their users, in the console: who asks for what; stop one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from tongbao.infra.db import Db
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.people.model import PREFIX as PERSON
from tongbao.parties.user_wallets import programmes
from tongbao.parties.user_wallets.model import PROGRAMME_PREFIX, ProgrammeState, State
from tongbao.parties.user_wallets.queries import find_applications
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply

_ROWS: Final = 50
_MERCHANT: Final = "mch"
STATES: Final = tuple(State)
PROGRAMME_STATES: Final = tuple(ProgrammeState)


class UserWalletFormWrong(Invalid):
    """A field of the form, or of the address, says nothing that can be done."""

    code = "console.user_wallet_form_wrong"
    advice = "Choose one of the values offered."
    advice_zh = "请选择页面提供的选项。"


async def show_wallets(visit: Visit) -> Reply:
    """Return the programmes of a mode and what was applied for; ``q`` is a merchant's id.

    Raises:
        UserWalletFormWrong, UnknownId, CursorInvalid
    """
    query, db = visit.request.query, visit.desk.db
    q, user = query.get("q", "").strip()[:64], query.get("user", "").strip()[:64]
    status, mode = query.get("status", ""), query.get("mode", "") or Mode.LIVE.value
    wanted = mode_of(mode)
    if wanted is None or (status and status not in STATES):
        raise UserWalletFormWrong(param="status" if wanted else "mode")
    merchant_id = parse(_MERCHANT, q) if q else None
    page = await find_applications(
        db,
        wanted,
        merchant_id=merchant_id,
        user_ref=user or None,
        state=status or None,
        cursor=query.get("cursor"),
        limit=_ROWS,
    )
    found = await programmes.programmes(db, wanted, None)
    ids = {each.merchant_id for each in page.items} | {each.merchant_id for each in found}
    names = await _names(db, ids)
    facts: dict[str, Any] = {
        "programmes": [
            (each, show(_MERCHANT, each.merchant_id), names[each.merchant_id])
            for each in found
            if merchant_id in {None, each.merchant_id}
        ],
        "rows": [
            (
                each,
                show(_MERCHANT, each.merchant_id),
                names[each.merchant_id],
                show(PERSON, each.person_id) if each.person_id else "",
            )
            for each in page.items
        ],
        "states": STATES,
        "q": q,
        "user": user,
        "status": status,
        "mode": mode,
        "is_empty": not (q or user or status),
        "next_cursor": page.next_cursor,
    }
    return await visit.page("user_wallets.html", facts)


async def propose_move(visit: Visit) -> Reply:
    """Put the admission, suspension or resumption of a programme before other eyes.

    Raises:
        UnknownId, ProgrammeNotFound, UserWalletFormWrong, ProgrammeUnchanged, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    form = visit.request.form
    wanted = parse(PROGRAMME_PREFIX, visit.params["programme_id"])
    to = form.get("to", "")
    if to not in {"active", "suspended"}:
        raise UserWalletFormWrong(param="to")
    found = await programmes.programme_with_id(visit.desk.db, wanted)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await programmes.propose_move(
            tx,
            found,
            ProgrammeState(to),
            reason=form.get("reason", ""),
            may=permissions_of(visit),
        )
    return proposed(approval)


ROUTES: Final = (
    Route("GET", "/user_wallets", show_wallets, Permission.VIEW, is_licensed=True),
    Route(
        "POST",
        "/user_wallets/{programme_id}/move",
        propose_move,
        Permission.ONBOARDING_ACT,
        is_licensed=True,
    ),
)


async def _names(db: Db, ids: Iterable[UUID]) -> dict[UUID, str]:
    return {each: (await merchant_with_id(db, each)).name for each in ids}
