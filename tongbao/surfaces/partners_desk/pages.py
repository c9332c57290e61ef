"""Partners of the open bank in the console: see them, suspend one at once, and propose the rest.

To take one on, to change its keys or addresses and to let it come back takes two people; one person
alone suspends it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao.controls.approvals.queries import open_approval
from tongbao.infra.certificates import NameKind
from tongbao.infra.jose import thumbprint
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission
from tongbao.parties.partners.model import (
    CHANGE,
    PREFIX,
    AuthMethod,
    Changing,
    Kind,
    Partner,
    PartnerState,
    Proving,
    TakingOn,
)
from tongbao.parties.partners.notices import webhook_keys_of, webhook_of
from tongbao.parties.partners.partners import (
    find_partners,
    partner_with_id,
    propose_change,
    propose_partner,
    suspend_partner,
)
from tongbao.surfaces.four_eyes.inbox import permissions_of
from tongbao.surfaces.operator_console.visit import PREFIX as CONSOLE
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, redirect

_ROWS: Final = 50
_REASON_MIN: Final = 4
_REASON_MAX: Final = 200
_KEYS_MAX: Final = 20_000
STATES: Final = tuple(PartnerState)
KINDS: Final = tuple(Kind)
_CHOICES: Final = {"kinds": KINDS, "methods": tuple(AuthMethod), "name_kinds": tuple(NameKind)}


class PartnerFormWrong(Invalid):
    """A field of the form says nothing that can be done."""

    code = "console.partner_form_wrong"
    advice = "Choose one of the values offered, give the key set as JSON, and a reason."
    advice_zh = "请选择页面提供的选项，以 JSON 填写公钥集，并填写原因。"


class _KeySet(Struct, frozen=True):
    keys: list[dict[str, Any]]


async def show_partners(visit: Visit) -> Reply:
    """Return the list, the newest first, and the form for a new one.

    Raises:
        PartnerFormWrong, CursorInvalid
    """
    query = visit.request.query
    status, mode = query.get("status", ""), query.get("mode", "")
    if status and status not in STATES:
        raise PartnerFormWrong(param="status")
    page = await find_partners(
        visit.desk.db,
        state=status or None,
        mode=mode_of(mode),
        cursor=query.get("cursor"),
        limit=_ROWS,
    )
    facts = {
        "rows": page.items,
        "states": STATES,
        **_CHOICES,
        "unproved": Proving(),
        "status": status,
        "mode": mode,
        "is_empty": not (status or mode),
        "next_cursor": page.next_cursor,
    }
    return await visit.page("partners.html", facts)


async def show_partner(visit: Visit) -> Reply:
    """Return one partner: what it may ask for, where people go back to, and its public keys.

    Raises:
        UnknownId, PartnerNotFound
    """
    partner, db = await _partner(visit), visit.desk.db
    webhook = await webhook_of(db, partner)
    facts = {
        "id": partner.client_id,
        "webhook": webhook,
        "webhook_keys": await webhook_keys_of(db, webhook) if webhook else [],
        "partner": partner,
        **_CHOICES,
        "states": [PartnerState.ACTIVE, PartnerState.SUSPENDED, PartnerState.GONE],
        "keys": [(each["kid"], each["kty"], thumbprint(each)) for each in partner.jwks],
        "key_set": msgspec.json.format(msgspec.json.encode({"keys": partner.jwks})).decode(),
        "waiting": await open_approval(db, CHANGE, partner.client_id),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("partner.html", facts)


async def take_on(visit: Visit) -> Reply:
    """Put a new partner before other eyes.

    Raises:
        PartnerFormWrong, PartnerTermsInvalid, KeySetUnusable, MakerNotAllowed, ReasonTooShort
    """
    mode = mode_of(visit.request.form.get("mode", ""))
    if mode is None:
        raise PartnerFormWrong(param="mode")
    name, uris, keys, kinds = _terms(visit)
    terms = TakingOn(name, Mode(mode), uris, keys, kinds, _proving(visit), _webhook(visit))
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        waiting = await propose_partner(
            tx, terms, reason=visit.request.form.get("reason", ""), may=permissions_of(visit)
        )
    return redirect(f"{CONSOLE}/inbox/{waiting.shown_id}?done=proposed")


async def change(visit: Visit) -> Reply:
    """Put other keys, addresses or kinds before other eyes, or that a partner comes back or goes.

    Raises:
        UnknownId, PartnerNotFound, PartnerFormWrong, PartnerTermsInvalid, PartnerChanged,
        KeySetUnusable, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    partner, form = await _partner(visit), visit.request.form
    if form.get("state") not in STATES:
        raise PartnerFormWrong(param="state")
    if form.get("changed_at") != partner.changed_at.isoformat():
        raise PartnerFormWrong(param="changed_at")
    wanted = Changing(
        *_terms(visit),
        state=PartnerState(form["state"]),
        changed_at=partner.changed_at,
        proving=_proving(visit),
        webhook_url=_webhook(visit),
    )
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        waiting = await propose_change(
            tx, partner.id, wanted, reason=form.get("reason", ""), may=permissions_of(visit)
        )
    return redirect(f"{CONSOLE}/inbox/{waiting.shown_id}?done=proposed")


async def suspend(visit: Visit) -> Reply:
    """Let a partner do nothing any more, at once.

    Raises:
        UnknownId, PartnerNotFound, PartnerFormWrong
    """
    partner = await _partner(visit)
    because = visit.request.form.get("because", "").strip()
    if not _REASON_MIN <= len(because) <= _REASON_MAX:
        raise PartnerFormWrong(param="because")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await suspend_partner(tx, partner.id, reason=because)
    return redirect(f"{CONSOLE}/partners/{partner.client_id}?done=suspended")


_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.MERCHANTS_ACT
_AT: Final = "/partners/{partner_id}"
ROUTES: Final = (
    Route("GET", "/partners", show_partners, _VIEW, is_licensed=True),
    Route("POST", "/partners/new", take_on, _ACT, is_licensed=True),
    Route("GET", _AT, show_partner, _VIEW, is_licensed=True),
    Route("POST", f"{_AT}/change", change, _ACT, is_licensed=True),
    Route("POST", f"{_AT}/suspend", suspend, _ACT, is_licensed=True),
)


async def _partner(visit: Visit) -> Partner:
    return await partner_with_id(visit.desk.db, parse(PREFIX, visit.params["partner_id"]))


def _webhook(visit: Visit) -> str | None:
    return visit.request.form.get("webhook_url", "").strip()[:2048] or None


def _proving(visit: Visit) -> Proving:
    """Return how the partner is to prove itself, as the form says it.

    Raises:
        PartnerFormWrong
    """
    form = visit.request.form
    method, kind = form.get("auth_method", AuthMethod.PRIVATE_KEY_JWT), form.get("name_kind", "")
    if method not in set(AuthMethod) or (kind and kind not in set(NameKind)):
        raise PartnerFormWrong(param="auth_method")
    return Proving(
        AuthMethod(method),
        NameKind(kind) if kind else None,
        form.get("certificate_name", "").strip() or None,
        binds_certificate=bool(form.get("binds_certificate")),
        signs_requests=bool(form.get("signs_requests")),
    )


def _terms(visit: Visit) -> tuple[str, list[str], list[dict[str, Any]], list[str]]:
    """Return name, addresses, keys and kinds as the form says them.

    Raises:
        PartnerFormWrong
    """
    form = visit.request.form
    written = form.get("jwks", "")[:_KEYS_MAX].strip() or '{"keys": []}'
    try:
        keys = msgspec.json.decode(written, type=_KeySet).keys
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise PartnerFormWrong(param="jwks") from None
    uris = form.get("redirect_uris", "").split()
    kinds = [each.value for each in KINDS if form.get(f"kind.{each.value}")]
    return form.get("name", ""), uris, keys, kinds
