"""Bar a person who rented, lent, sold or faked accounts, and end that early; two people each.

银发〔2019〕85号 (from 2019-04-01): whom the police of a city or above confirmed may for five
years do nothing without the counter, nor over payment accounts, and opens no account. The term is
a dated row (`barred_years`). The bar ends by itself: every check compares its end with the moment.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.controls.opening.model import EVERY, OpeningRule
from tongbao.controls.opening.rules import rules_in_force
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.errors import Conflict, Invalid
from tongbao.kernel.ids import derived_id, parse
from tongbao.parties.consents.holdings import bar_wallets
from tongbao.parties.e_accounts.opening import bar_accounts
from tongbao.parties.identity.model import Permission
from tongbao.parties.people.dossier import bars_of, end_bar, hold_person, write_bar
from tongbao.parties.people.model import PREFIX, Person, PersonBar

_DOCUMENT_MAX: Final = 64


class BarWrong(Invalid):
    """A bar names the authority's document and a day that is not to come, its term not over."""

    code = "person.bar_wrong"
    advice = "Give the document's number, 1 to 64 characters, and the day of the confirmation."
    advice_zh = "请填写认定文书编号（1 至 64 个字符）和认定日期；日期不得晚于今天，期限不得已届满。"


class BarStands(Conflict):
    """The person is barred already."""

    code = "person.bar_stands"
    advice = "End the bar that stands, if it is wrong, before setting another."
    advice_zh = "该用户已处于惩戒期；如认定有误，请先解除现有措施。"


class BarNotStanding(Conflict):
    """The person is not barred, or no longer."""

    code = "person.bar_not_standing"
    advice = "Look at the person: there is nothing to end."
    advice_zh = "该用户当前没有生效的惩戒措施。"


class BarTerms(Struct, frozen=True):
    """What two people agree to when they bar a person."""

    person: str
    document: str
    confirmed_on: date


class LiftBarTerms(Struct, frozen=True):
    """What two people agree to when they end a bar early."""

    person: str
    document: str


BAR: Final = Act(
    "person.bar",
    "Bar a person who rented, sold or faked accounts",
    "对买卖、出租、出借或假冒开户人员实施惩戒",
    BarTerms,
    maker=Permission.PEOPLE_ACT,
    checker=Permission.PEOPLE_ACT,
)
LIFT_BAR: Final = Act(
    "person.lift_bar",
    "End a person's bar early",
    "提前解除个人账户惩戒",
    LiftBarTerms,
    maker=Permission.PEOPLE_ACT,
    checker=Permission.PEOPLE_ACT,
)


async def propose_bar(
    tx: Tx, person: Person, terms: BarTerms, *, reason: str, may: Collection[str]
) -> Approval:
    """Propose to bar a person for the term in force.

    Raises:
        BarWrong, BarStands, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    await _term(tx, terms)
    if await standing_bar(tx, person.id):
        raise BarStands
    return await propose(tx, BAR, person.actor, terms, reason=reason, mode=person.mode, may=may)


async def propose_end(
    tx: Tx, person: Person, terms: LiftBarTerms, *, reason: str, may: Collection[str]
) -> Approval:
    """Propose to end a person's bar early, as when the authority corrected itself.

    Raises:
        BarWrong, BarNotStanding, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    _check_document(terms.document)
    if await standing_bar(tx, person.id) is None:
        raise BarNotStanding
    return await propose(
        tx, LIFT_BAR, person.actor, terms, reason=reason, mode=person.mode, may=may
    )


async def standing_bar(tx: Tx, person_id: UUID) -> PersonBar | None:
    """Return the bar that stands now, if one does."""
    return next((each for each in await bars_of(tx, person_id) if each.stands(tx.now)), None)


async def bar(tx: Tx, approval: Approval, terms: BarTerms) -> PersonBar:
    """Bar a person in the caller's transaction, on every account and wallet that they have.

    Raises:
        PersonNotFound, BarWrong, BarStands
    """
    person = await hold_person(tx, parse(PREFIX, terms.person))
    ends_at, rule = await _term(tx, terms)
    if await standing_bar(tx, person.id):
        raise BarStands
    made = PersonBar(
        derived_id(approval.id, "bar"),
        person.id,
        terms.document,
        terms.confirmed_on,
        ends_at,
        rule.instrument,
        approval.shown_id,
        tx.now,
    )
    await write_bar(tx, made)
    # The wallets first, as an order that moves money between the two takes them.
    await bar_wallets(tx, person, ends_at)
    await bar_accounts(tx, person, ends_at)
    facts = {"document": terms.document, "until": ends_at.isoformat()}
    await audit.record(tx, "person.barred", person.actor, facts)
    failpoint("barring.before_bar_commit")
    return made


async def lift_bar(tx: Tx, approval: Approval, terms: LiftBarTerms) -> None:
    """End a person's bar in the caller's transaction, on every account and wallet that they have.

    Raises:
        PersonNotFound, BarNotStanding
    """
    person = await hold_person(tx, parse(PREFIX, terms.person))
    found = await standing_bar(tx, person.id)
    because = f"{terms.document}: {approval.reason}"
    if found is None or not await end_bar(tx, found, by=approval.shown_id, because=because):
        raise BarNotStanding
    await bar_wallets(tx, person, None)
    await bar_accounts(tx, person, None)
    await audit.record(tx, "person.bar_lifted", person.actor, {"document": terms.document})
    failpoint("barring.before_lift_commit")


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the acts of this module with what does them."""

    async def apply_bar(tx: Tx, approval: Approval, terms: BarTerms) -> None:
        await bar(tx, approval, terms)

    return (
        Bound(BAR, in_transaction(db, apply_bar), show=_show_bar, link=_link),
        Bound(LIFT_BAR, in_transaction(db, lift_bar), show=_show_lift, link=_link),
    )


async def _term(tx: Tx, terms: BarTerms) -> tuple[datetime, OpeningRule]:
    """Return when a bar ends, and the rule that says so.

    Raises:
        BarWrong
    """
    _check_document(terms.document)
    today = business_date(tx.now)
    rule = (await rules_in_force(tx, EVERY, today)).get("barred_years")
    if rule is None or terms.confirmed_on > today:
        raise BarWrong(param="confirmed_on")
    day = terms.confirmed_on
    if (day.month, day.day) == (2, 29):
        day = date(day.year, 3, 1)  # a year without the day: the whole of February counts
    ends_at = day_bounds(day.replace(year=day.year + rule.figure))[0]
    if ends_at <= tx.now:
        raise BarWrong(param="confirmed_on")
    return ends_at, rule


def _check_document(text: str) -> None:
    if not 1 <= len(text.strip()) <= _DOCUMENT_MAX:
        raise BarWrong(param="document")


def _link(approval: Approval) -> str:
    return f"/people/{approval.subject}"


async def _show_bar(_db: Db, _approval: Approval, terms: BarTerms) -> list[Change]:
    return [
        Change("person barred", "受惩戒人员", None, terms.person),
        Change("confirmed by the authority on", "公安机关认定日期", None, str(terms.confirmed_on)),
        Change("document", "文书编号", None, terms.document),
    ]


async def _show_lift(_db: Db, _approval: Approval, terms: LiftBarTerms) -> list[Change]:
    return [
        Change("person no longer barred", "解除惩戒人员", terms.person, "–"),
        Change("document", "文书编号", None, terms.document),
    ]
