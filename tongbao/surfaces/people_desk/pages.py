"""People in the console: find one, see them masked, reveal who they are with a reason, suspend.

A search takes a whole phone number, mail address or resident id, and is sent by a form, so that
none of them stands in an address, a history or a log.
"""

from __future__ import annotations

from typing import Final

from tongbao.infra import audit
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.parties.authentication.authenticators import authenticators_of
from tongbao.parties.authentication.certificates import certificates_of
from tongbao.parties.authentication.passkeys import passkeys_of
from tongbao.parties.bound_cards.binding import card_of_person
from tongbao.parties.bound_cards.model import PREFIX as CARD
from tongbao.parties.bound_cards.queries import cards_of_person
from tongbao.parties.card_bins.bins import issuer_name
from tongbao.parties.identity.model import Permission
from tongbao.parties.people.consents import consents_of
from tongbao.parties.people.contacts import contacts_of
from tongbao.parties.people.dossier import (
    Revealed,
    bars_of,
    find_people,
    person_with_id,
    reveal,
    set_suspended,
)
from tongbao.parties.people.model import PREFIX, Person
from tongbao.parties.people.real_names import checks_of, identity_row
from tongbao.parties.people.sessions import devices_of
from tongbao.payments.card_agreements.signing import unbind
from tongbao.surfaces.operator_console.visit import PREFIX as CONSOLE
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, redirect
from tongbao.surfaces.people_desk import bars, e_accounts, returned_money, user_wallets

_ROWS: Final = 50
_REASON_MIN: Final = 4
_REASON_MAX: Final = 200
STATES: Final = ("active", "suspended", "erased")


class PersonFormWrong(Invalid):
    """A field of the form says nothing that can be done."""

    code = "console.person_form_wrong"
    advice = "Choose one of the values offered, and give a reason of 4 to 200 characters."
    advice_zh = "请选择页面提供的选项，并填写 4 至 200 个字符的原因。"


async def show_people(visit: Visit) -> Reply:
    """Return the list, the newest first, without anybody's name.

    Raises:
        PersonFormWrong, CursorInvalid
    """
    return await _list(visit, "")


async def search_people(visit: Visit) -> Reply:
    """Return whoever has this address or resident id; who looked is written down.

    Raises:
        PersonFormWrong, ContactMalformed
    """
    text = visit.request.form.get("q", "").strip()[:254]
    if text:
        async with visit.desk.db.begin(visit.operator.actor) as tx:
            await audit.record(tx, "people.searched", visit.operator.actor, {})
    return await _list(visit, text)


async def show_person(visit: Visit) -> Reply:
    """Return one person, masked.

    Raises:
        UnknownId, PersonNotFound
    """
    return await _page(visit, await _person(visit), None)


async def reveal_person(visit: Visit) -> Reply:
    """Show who somebody is, this once; the reason is kept with the act.

    Raises:
        UnknownId, PersonNotFound, PersonFormWrong
    """
    person, because = await _person(visit), _reason(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        shown = await reveal(tx, visit.desk.keyring, person, because=because)
    return await _page(visit, person, shown)


async def move_person(visit: Visit) -> Reply:
    """Keep somebody from acting, or let them act again.

    Raises:
        UnknownId, PersonNotFound, PersonFormWrong
    """
    person, because = await _person(visit), _reason(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await set_suspended(tx, person.id, suspended=person.state == "active", because=because)
    return redirect(f"{CONSOLE}/people/{show(PREFIX, person.id)}?done=moved")


async def unbind_card(visit: Visit) -> Reply:
    """Let go of somebody's bank card for them, as when it was stolen; the reason is kept.

    What they have signed with it ends.

    Raises:
        UnknownId, PersonNotFound, BoundCardNotFound, PersonFormWrong, BindingOver, CardInUse
    """
    person, because = await _person(visit), _reason(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        wanted = parse(CARD, visit.params["card_id"])
        card = await card_of_person(tx, person.id, person.mode, wanted)
        await unbind(tx, card)
        await audit.record(tx, "bound_card.unbound_for", card.shown_id, {"because": because})
    return redirect(f"{CONSOLE}/people/{show(PREFIX, person.id)}?done=moved")


_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.PEOPLE_ACT
_CARD: Final = "/people/{person_id}/cards/{card_id}"
ROUTES: Final = (
    Route("GET", "/people", show_people, _VIEW, is_licensed=True),
    Route("POST", "/people", search_people, _VIEW, is_licensed=True),
    Route("GET", "/people/{person_id}", show_person, _VIEW, is_licensed=True),
    Route("POST", "/people/{person_id}/reveal", reveal_person, _ACT, is_licensed=True),
    Route("POST", "/people/{person_id}/move", move_person, _ACT, is_licensed=True),
    Route("POST", f"{_CARD}/unbind", unbind_card, _ACT, is_licensed=True),
    *bars.ROUTES,
    *e_accounts.ROUTES,
    *returned_money.ROUTES,
    *user_wallets.ROUTES,
)


async def _list(visit: Visit, text: str) -> Reply:
    query = visit.request.query
    status, mode = query.get("status", ""), query.get("mode", "")
    if status and status not in STATES:
        raise PersonFormWrong(param="status")
    page = await find_people(
        visit.desk.db,
        visit.desk.keyring,
        text=text,
        mode=mode_of(mode),
        state=status or None,
        cursor=query.get("cursor"),
        limit=_ROWS,
    )
    facts = {
        "rows": [
            (show(PREFIX, each.id), each, await contacts_of(visit.desk.db, each.id))
            for each in page.items
        ],
        "states": STATES,
        "status": status,
        "mode": mode,
        "is_searched": bool(text),
        "is_empty": not (text or status or mode),
        "next_cursor": page.next_cursor,
    }
    return await visit.page("people.html", facts)


async def _page(visit: Visit, person: Person, revealed: Revealed | None) -> Reply:
    db = visit.desk.db
    ways: list[str] = [each.kind for each in await authenticators_of(db, person.id)]
    ways += ["passkey" for _ in await passkeys_of(db, person.id)]
    ways += ["certificate" for _ in await certificates_of(db, person.id)]
    facts = {
        "id": show(PREFIX, person.id),
        "person": person,
        "contacts": await contacts_of(db, person.id),
        "identity": await identity_row(db, person.id),
        "checks": await checks_of(db, person.id),
        "cards": [
            (each, issuer_name(each.issuer))
            for each in await cards_of_person(db, person.id, person.mode, only_bound=False)
        ],
        "devices": await devices_of(db, person.id),
        "consents": await consents_of(db, person.id),
        "ways": ", ".join(sorted(set(ways))),
        "bars": [(each, each.stands(db.clock.now())) for each in await bars_of(db, person.id)],
        "revealed": revealed,
        "done": visit.request.query.get("done"),
    }
    return await visit.page("person.html", facts)


async def _person(visit: Visit) -> Person:
    return await person_with_id(visit.desk.db, parse(PREFIX, visit.params["person_id"]))


def _reason(visit: Visit) -> str:
    because = visit.request.form.get("because", "").strip()
    if not _REASON_MIN <= len(because) <= _REASON_MAX:
        raise PersonFormWrong(param="because")
    return because
