"""Bars of people in the console: put before other eyes, and ended early by them."""

from __future__ import annotations

from datetime import date
from typing import Final

from tongbao.kernel.ids import parse
from tongbao.parties.barring import barring
from tongbao.parties.identity.model import Permission
from tongbao.parties.people.dossier import person_with_id
from tongbao.parties.people.model import PREFIX, Person
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import Route, Visit
from tongbao.surfaces.page_kit.replies import Reply


async def propose_bar(visit: Visit) -> Reply:
    """Put a bar before other eyes.

    Raises:
        UnknownId, PersonNotFound, BarWrong, BarStands, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    form, person = visit.request.form, await _person(visit)
    try:
        confirmed_on = date.fromisoformat(form.get("confirmed_on", "").strip())
    except ValueError:
        raise barring.BarWrong(param="confirmed_on") from None
    terms = barring.BarTerms(person.actor, form.get("document", "").strip(), confirmed_on)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await barring.propose_bar(
            tx, person, terms, reason=form.get("reason", ""), may=permissions_of(visit)
        )
    return proposed(approval)


async def propose_end(visit: Visit) -> Reply:
    """Put the early end of a bar before other eyes.

    Raises:
        UnknownId, PersonNotFound, BarWrong, BarNotStanding, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    form, person = visit.request.form, await _person(visit)
    terms = barring.LiftBarTerms(person.actor, form.get("document", "").strip())
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await barring.propose_end(
            tx, person, terms, reason=form.get("reason", ""), may=permissions_of(visit)
        )
    return proposed(approval)


_ACT: Final = Permission.PEOPLE_ACT
ROUTES: Final = (
    Route("POST", "/people/{person_id}/bar", propose_bar, _ACT, is_licensed=True),
    Route("POST", "/people/{person_id}/lift_bar", propose_end, _ACT, is_licensed=True),
)


async def _person(visit: Visit) -> Person:
    return await person_with_id(visit.desk.db, parse(PREFIX, visit.params["person_id"]))
