"""`tongbao approvals`, `tongbao calendar`, `tongbao suspense`: four eyes at the command line.

Whoever may type commands may propose. To decide takes an operator's login with its second factor:
a shell is not a second person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import click

from tongbao.clearing.suspense.desk import (
    propose_adjustment,
    propose_resolution,
    propose_stop,
    shown,
)
from tongbao.clearing.suspense.items import item_now, open_items, suspense_sums
from tongbao.clearing.suspense.model import (
    ADJUSTABLE,
    ITEM_PREFIX,
    AdjustmentTerms,
    Home,
    Side,
    SuspenseHomeWrong,
)
from tongbao.controls.approvals.approvals import approve, propose, reject
from tongbao.controls.approvals.licence import CHANGE as CHANGE_LICENCE
from tongbao.controls.approvals.licence import SUBJECT, NewLicence, check_change
from tongbao.controls.approvals.model import OPEN, PREFIX, Approval, ApprovalState
from tongbao.controls.approvals.queries import (
    ApprovalFilter,
    approval_with_id,
    changes_of,
    list_approvals,
)
from tongbao.controls.approvals.seconds import SET as SET_SECOND_CHECK
from tongbao.controls.approvals.seconds import NewSecondCheck, check_second_check, subject_of
from tongbao.controls.calendar.changes import preview, propose_calendar
from tongbao.controls.calendar.model import as_change
from tongbao.controls.calendar.queries import days_of_year, load_calendar, missing_year
from tongbao.infra.db import Tx
from tongbao.infra.migrate import licence_on_record
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import NotFound
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import from_decimal_text
from tongbao.ledger.rules.chart import CHART, OwnerKind
from tongbao.parties.identity.model import ROLES, Role
from tongbao.surfaces.cli.context import Context, Platform, acting_as, actor

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
_DAY: Final = click.DateTime(formats=["%Y-%m-%d"])
_OWNED: Final = {OwnerKind.MERCHANT: "mch", OwnerKind.CHANNEL_ACCOUNT: "chn"}
_REASON: Final = click.option("--reason", required=True, help="Why, for those who read it later.")

Decide = Callable[[Tx, Approval, frozenset[str]], Awaitable[Approval]]


@click.group()
def approvals() -> None:
    """What needs a second person: list, read, approve, reject."""


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Also what is over.")
@click.option("--act", help="Of this kind only, such as suspense.resolve.")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def approvals_list(context: Context, everything: bool, act: str | None, limit: int) -> None:
    """List proposals, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        wanted = ApprovalFilter(states=None if everything else OPEN, act=act)
        page = await list_approvals(platform.db, wanted, limit=limit)
        return [_line(each) for each in page.items]

    context.show(context.run(work))


@approvals.command("show")
@click.argument("approval")
@click.pass_obj
def approvals_show(context: Context, approval: str) -> None:
    """Show what a proposal would change, and the digest to approve it by."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = await approval_with_id(platform.db, parse(PREFIX, approval))
        changes = await changes_of(platform.approvals, found)
        head = {**_line(found), "reason": found.reason, "digest": found.digest.hex()}
        lines: list[dict[str, object]] = [
            {"what": each.en, "before": each.before, "after": each.after} for each in changes
        ]
        return [head, *lines]

    context.show(context.run(work))


@approvals.command("two-from")
@click.argument("act")
@click.argument("currency")
@click.argument("amount", required=False)
@click.option("--from", "day", type=_DAY, help="From this day on; today when left out.")
@_REASON
@click.pass_obj
def approvals_two_from(
    context: Context, act: str, currency: str, amount: str | None, *, day: datetime | None,
    reason: str,
) -> None:  # fmt: skip
    """Propose from which amount on an act takes two checkers; without an amount, never."""

    async def work(platform: Platform) -> dict[str, object]:
        now = platform.db.clock.now()
        least = from_decimal_text(amount, currency).amount if amount else None
        since = day.date() if day else business_date(now)
        wanted = NewSecondCheck(act, currency, since, least)
        check_second_check(platform.approvals.acts, wanted, now)
        async with platform.db.begin(actor()) as tx:
            return _line(
                await propose(tx, SET_SECOND_CHECK, subject_of(wanted), wanted, reason=reason)
            )

    context.show(context.run(work))


@approvals.command("licence")
@click.argument("after", type=click.Choice([each.value for each in Licence]))
@click.option("--document", required=True, help="Number of the document that grants it.")
@_REASON
@click.pass_obj
def approvals_licence(context: Context, after: str, *, document: str, reason: str) -> None:
    """Propose another licence for the deployment; processes are then started anew under it."""

    async def work(platform: Platform) -> dict[str, object]:
        wanted = NewLicence(await licence_on_record(platform.db), Licence(after), document)
        check_change(wanted)
        async with platform.db.begin(actor()) as tx:
            return _line(await propose(tx, CHANGE_LICENCE, SUBJECT, wanted, reason=reason))

    context.show(context.run(work))


@approvals.command("approve")
@click.argument("approval")
@click.option("--digest", required=True, help="The digest that `approvals show` printed.")
@click.option("--as", "login", required=True, help="The login name of the operator who decides.")
@click.option("--note", default="", help="A remark to keep with the decision.")
@click.password_option("--password", confirmation_prompt=False, help="Asked for when left out.")
@click.option("--code", prompt=True, help="The six digits of the authenticator.")
@click.pass_obj
def approvals_approve(
    context: Context, /, approval: str, digest: str, note: str, **who: str
) -> None:
    """Approve a proposal; a worker does it within moments."""

    async def work(platform: Platform) -> dict[str, object]:
        async def decide(tx: Tx, found: Approval, may: frozenset[str]) -> Approval:
            acts = platform.approvals.acts
            return await approve(tx, acts, found.id, digest=digest, may=may, note=note)

        return _line(await _decided(platform, approval, decide, **who))

    context.show(context.run(work))


@approvals.command("reject")
@click.argument("approval")
@_REASON
@click.option("--as", "login", required=True, help="The login name of the operator who decides.")
@click.password_option("--password", confirmation_prompt=False, help="Asked for when left out.")
@click.option("--code", prompt=True, help="The six digits of the authenticator.")
@click.pass_obj
def approvals_reject(context: Context, /, approval: str, reason: str, **who: str) -> None:
    """Reject a proposal."""

    async def work(platform: Platform) -> dict[str, object]:
        async def decide(tx: Tx, found: Approval, may: frozenset[str]) -> Approval:
            return await reject(tx, platform.approvals.acts, found.id, reason=reason, may=may)

        return _line(await _decided(platform, approval, decide, **who))

    context.show(context.run(work))


@click.group()
def calendar() -> None:
    """Working days: which days banks work, and who says so."""


@calendar.command("show")
@click.option("--year", type=int, help="The year; this one when left out.")
@click.pass_obj
def calendar_show(context: Context, year: int | None) -> None:
    """Show the days of a year that are not as their weekday says."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        today = business_date(platform.db.clock.now())
        days = await days_of_year(platform.db, year or today.year)
        missing = await missing_year(platform.db)
        if missing is not None:
            click.echo(f"the arrangement of {missing} is missing", err=True)
        return [
            {
                "day": each.day.isoformat(),
                "working": each.is_working,
                "name": each.name,
                "source": each.source,
            }
            for each in days
        ]

    context.show(context.run(work))


@calendar.command("day")
@click.argument("day", type=_DAY)
@click.option("--after", default=0, help="Also the day so many working days after it.")
@click.pass_obj
def calendar_day(context: Context, day: date, after: int) -> None:
    """Tell whether banks work on a day."""

    async def work(platform: Platform) -> dict[str, object]:
        known = await load_calendar(platform.db)
        asked = date(day.year, day.month, day.day)
        said: dict[str, object] = {"day": asked.isoformat(), "working": known.is_working_day(asked)}
        if after > 0:
            said["after"] = known.nth_working_day_after(asked, after).isoformat()
        return said

    context.show(context.run(work))


@calendar.command("import")
@click.argument("file", type=_FILE)
@click.option("--source", required=True, help="The instrument, such as 国办发明电〔2025〕7号.")
@click.option("--reason", help="Why; left out, the change is only shown.")
@click.pass_obj
def calendar_import(context: Context, file: Path, source: str, reason: str | None) -> None:
    """Show what a CSV file would change (day, working, name), and propose it with --reason."""
    content = file.read_bytes()

    async def work(platform: Platform) -> list[dict[str, object]]:
        terms = await preview(platform.db, content, source)
        seen = [as_change(each) for each in terms.days]
        lines: list[dict[str, object]] = [
            {"what": each.en, "before": each.before, "after": each.after} for each in seen
        ]
        if reason is not None:
            async with platform.db.begin(actor()) as tx:
                made = await propose_calendar(tx, content, source, reason=reason)
            lines.append(_line(made))
        return lines

    context.show(context.run(work))


@click.group()
def suspense() -> None:
    """Money without a home: what lies there, where it may go, adjustments by hand."""


@suspense.command("list")
@click.option("--book", type=int, help="The open items of this book; left out, all accounts.")
@click.option("--currency", help="Of this currency only.")
@click.option("--limit", default=50, show_default=True, help="How many, the oldest first.")
@click.pass_obj
def suspense_list(context: Context, book: int | None, currency: str | None, limit: int) -> None:
    """List suspense accounts, or the open items of one book."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        sums = await suspense_sums(platform.db)
        if book is None:
            return [
                {
                    "book": each.book,
                    "currency": each.currency,
                    "balance": each.balance,
                    "items": each.items,
                    "ties": each.ties,
                }
                for each in sums
            ]
        page = await open_items(platform.db, book, currency=currency, limit=limit)
        return [
            {
                "item": each.shown_id,
                "amount": shown(each.money),
                "from": each.code,
                "since": each.first_at.isoformat(),
            }
            for each in page.items
        ]

    context.show(context.run(work))


@suspense.command("resolve")
@click.argument("item")
@click.option("--book", type=int, required=True, help="The book it lies in.")
@click.option("--currency", default="CNY", show_default=True, help="Its currency.")
@click.option("--amount", help="How much of it, as 12.34; all of it when left out.")
@click.option(
    "--to",
    "home",
    type=click.Choice([each.value for each in Home]),
    required=True,
    help="Where it belongs.",
)
@click.option("--owner", default="", help="The merchant (mch_…) or channel account (chn_…).")
@_REASON
@click.pass_obj
def suspense_resolve(
    context: Context, /, item: str, book: int, amount: str | None, **rest: str
) -> None:
    """Propose where an item's money goes; below zero, where it comes from."""

    async def work(platform: Platform) -> dict[str, object]:
        home, currency = Home(rest["home"]), rest["currency"]
        found = await item_now(platform.db, book, currency, parse(ITEM_PREFIX, item))
        wanted = abs(found.amount)
        if amount is not None:
            wanted = from_decimal_text(amount, currency).amount
        made = await propose_resolution(
            platform.flow,
            found,
            wanted,
            home,
            _owner(rest["owner"], home.kind),
            reason=rest["reason"],
            actor=actor(),
        )
        return _line(made)

    context.show(context.run(work))


@suspense.command("stop")
@click.argument("item")
@click.option("--book", type=int, required=True, help="The book it lies in.")
@click.option("--currency", default="CNY", show_default=True, help="Its currency.")
@_REASON
@click.pass_obj
def suspense_stop(context: Context, item: str, book: int, currency: str, reason: str) -> None:
    """Propose that late money does not go back to its customer by itself any more."""

    async def work(platform: Platform) -> dict[str, object]:
        found = await item_now(platform.db, book, currency, parse(ITEM_PREFIX, item))
        return _line(await propose_stop(platform.flow, found, reason=reason, actor=actor()))

    context.show(context.run(work))


@suspense.command("adjust")
@click.option("--book", type=int, required=True, help="The book.")
@click.option("--currency", default="CNY", show_default=True, help="The currency.")
@click.option("--amount", required=True, help="How much, as 12.34.")
@click.option(
    "--debit",
    type=click.Choice(sorted(ADJUSTABLE)),
    required=True,
    help="The account that is debited.",
)
@click.option("--debit-owner", default="", help="Whose account, where it is somebody's.")
@click.option(
    "--credit",
    type=click.Choice(sorted(ADJUSTABLE)),
    required=True,
    help="The account that is credited.",
)
@click.option("--credit-owner", default="", help="Whose account, where it is somebody's.")
@_REASON
@click.pass_obj
def suspense_adjust(context: Context, /, book: int, **rest: str) -> None:
    """Propose a posting by hand."""

    async def work(platform: Platform) -> dict[str, object]:
        sides = [
            Side(rest[name], _owner(rest[f"{name}_owner"], rest[name]))
            for name in ("debit", "credit")
        ]
        amount = from_decimal_text(rest["amount"], rest["currency"]).amount
        terms = AdjustmentTerms(new_id(), book, rest["currency"], amount, *sides)
        made = await propose_adjustment(platform.flow, terms, reason=rest["reason"], actor=actor())
        return _line(made)

    context.show(context.run(work))


COMMANDS: Final = (approvals, calendar, suspense)


async def _decided(
    platform: Platform, approval: str, decide: Decide, *, login: str, password: str, code: str
) -> Approval:
    """Decide as the operator whose password and second factor these are.

    Raises:
        LoginRefused, and what deciding raises
    """
    found = await approval_with_id(platform.db, parse(PREFIX, approval))
    async with acting_as(platform, login=login, password=password, code=code) as operator:
        role: Role = operator.role
        may = frozenset(each.value for each in ROLES[role])
        async with platform.db.begin(operator.actor) as tx:
            return await decide(tx, found, may)


def _owner(text: str, kind: str) -> UUID | None:
    """Return whose account is meant; the house's own have nobody.

    Raises:
        SuspenseHomeWrong
    """
    prefix = _OWNED.get(CHART[kind].owner)
    if prefix is None:
        return None
    try:
        return parse(prefix, text)
    except NotFound:
        raise SuspenseHomeWrong(param="owner") from None


def _line(each: Approval) -> dict[str, object]:
    return {
        "approval": show(PREFIX, each.id),
        "act": each.act,
        "about": each.subject,
        "state": each.state.value,
        "maker": each.maker,
        "checker": each.checker or "",
        "until": each.expires_at.isoformat() if each.state is ApprovalState.PROPOSED else "",
        "code": each.code or "",
    }
