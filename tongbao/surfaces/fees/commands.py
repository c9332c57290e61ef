"""`tongbao fees`: what payments cost, what they would, and that each fee is what it should be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Literal

import click
import msgspec
from msgspec.structs import replace

from tongbao.controls.approvals.approvals import propose as propose_act
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.price_plans import queries
from tongbao.parties.price_plans.approving import (
    PriceDraft,
    PriceTerms,
    draft_from,
    propose_prices,
)
from tongbao.parties.price_plans.model import CardKind, inputs_at
from tongbao.payments.fees.model import FeeReport, WayCost
from tongbao.payments.fees.verifying import drafted, preview_costs, verify_fees
from tongbao.payments.splits.receivers import SET_SPLIT_TERMS, SplitTermsAsked
from tongbao.surfaces.cli.context import Context, Platform, actor

_DAY = click.DateTime(formats=["%Y-%m-%d"])
_MONTH = click.DateTime(formats=["%Y-%m"])
_MODE = click.Choice([mode.value for mode in Mode])
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class DraftUnreadable(Invalid):
    """The file of prices is not TOML or JSON of the form that prices have."""

    code = "price.draft_unreadable"
    advice = "Write lines, currency and refund_returns_fee as the how-to on prices shows."
    advice_zh = "请按价格方案说明填写 lines、currency 与 refund_returns_fee。"


@click.group()
def fees() -> None:
    """Fees: what payments cost, what they would, and that each is what it should be."""


def _mode_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--mode", type=_MODE, default="sandbox", show_default=True, help="Real money or test."
    )(command)


@fees.command()
@click.option("--day", type=_DAY, help="A business day, as 2026-11-21.")
@click.option("--month", type=_MONTH, help="A business month, as 2026-11.")
@click.option("--merchant", help="Of this merchant only: mch_…")
@click.option("--mode", type=_MODE, help="Of this mode only.")
@click.pass_obj
def verify(
    context: Context,
    *,
    day: datetime | None,
    month: datetime | None,
    merchant: str | None,
    mode: str | None,
) -> None:
    """Work out again every fee of a day or a month, and compare it with what was booked.

    Exit 1 and name the first that differs.
    """
    first, last = _days(day, month)

    async def work(platform: Platform) -> FeeReport:
        whose = parse("mch", merchant) if merchant else None
        only = Mode(mode) if mode else None
        has_books = platform.flow.licence.may_hold_funds
        return await verify_fees(
            platform.db, first, last, merchant_id=whose, mode=only, has_books=has_books
        )

    report = context.run(work)
    context.show(
        {
            "checked": report.checked,
            "without_version": report.without_version,
            "differences": report.differences,
        }
    )
    context.show(
        [
            {
                "what": each.what,
                "payment": show("pay", each.payment_id) if each.payment_id else None,
                "merchant": show("mch", each.merchant_id),
                "kept": each.kept,
                "expected": each.expected,
            }
            for each in report.first
        ]
    )
    if report.differences:
        raise SystemExit(1)


def _days(day: datetime | None, month: datetime | None) -> tuple[date, date]:
    if day is not None and month is None:
        return day.date(), day.date()
    if day is not None or month is None:
        raise click.UsageError("Give either a day or a month.")
    first = month.date()
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return first, date.fromordinal(after.toordinal() - 1)


@fees.command()
@click.argument("merchant")
@click.argument("file", type=_FILE)
@_mode_option
@click.option("--month", type=_MONTH, required=True, help="A business month, as 2026-10.")
@click.pass_obj
def preview(context: Context, *, merchant: str, file: Path, mode: str, month: datetime) -> None:
    """Show what a merchant's month cost, and would have cost under the prices in a file."""
    first, last = _days(None, month)

    async def work(platform: Platform) -> list[dict[str, object]]:
        draft, whose = _draft(file), (parse("mch", merchant), Mode(mode))
        ways = await preview_costs(platform.db, whose, draft, first, last)
        return [_way_facts(*way, cost) for way, cost in sorted(ways.items())]

    context.show(context.run(work))


def _way_facts(channel: str, pay_mode: str, cost: WayCost) -> dict[str, object]:
    return {
        "channel": channel,
        "way": pay_mode,
        "payments": cost.payments,
        "amount": cost.amount,
        "fee": cost.fee,
        "fee_then": cost.fee_then,
        "unpriced": cost.unpriced,
    }


@fees.command()
@click.argument("merchant")
@click.argument("channel")
@click.argument("way")
@click.argument("amount", type=click.IntRange(min=1))
@_mode_option
@click.option(
    "--card",
    type=click.Choice([kind.value for kind in CardKind]),
    default="any",
    show_default=True,
    help="What kind of card would pay.",
)
@click.option("--file", type=_FILE, help="Under the prices in this file, not those in force.")
@click.pass_obj
def quote(
    context: Context,
    *,
    merchant: str,
    channel: str,
    way: str,
    amount: int,
    mode: str,
    card: str,
    file: Path | None,
) -> None:
    """Show what one payment of AMOUNT minor units would cost now, and by which charge."""

    async def work(platform: Platform) -> dict[str, object]:
        db, whose = platform.db, (parse("mch", merchant), Mode(mode))
        now = db.clock.now()
        plan = await queries.price_plan_at(db, *whose, now)
        if file is not None:
            plan = drafted(whose, _draft(file), now)
        currency = plan.currency if plan is not None else "CNY"
        inputs = inputs_at(channel, way, Money(amount, currency), now)
        book = (await merchants.merchant_with_id(db, whose[0])).book(whose[1])
        asked = replace(inputs, card=CardKind(card))
        found = await queries.quote_with_volume(db, book, plan, asked)
        facts = msgspec.to_builtins(found)
        return {"amount": amount, "currency": currency, **facts}

    context.show(context.run(work))


@fees.command()
@click.argument("merchant")
@click.argument("file", type=_FILE)
@_mode_option
@click.option("--because", required=True, help="Why, for whoever decides and the audit log.")
@click.pass_obj
def propose(context: Context, *, merchant: str, file: Path, mode: str, because: str) -> None:
    """Propose the prices in a file; they are in force once somebody else has approved them."""

    async def work(platform: Platform) -> dict[str, object]:
        terms = PriceTerms(Mode(mode), _draft(file))
        async with platform.db.begin(actor()) as tx:
            waiting = await propose_prices(tx, parse("mch", merchant), terms, reason=because)
        return {"approval": waiting.shown_id, "merchant": merchant, "mode": mode}

    context.show(context.run(work))


@fees.command()
@click.argument("merchant")
@_mode_option
@click.option(
    "--max-ppm",
    type=click.IntRange(0, 1_000_000),
    required=True,
    help="The most of a payment that may be shared, in millionths: 300000 is 30 %.",
)
@click.option(
    "--refund-from",
    type=click.Choice(["receivers", "merchant"]),
    default="receivers",
    show_default=True,
    help="Who pays when a shared payment is refunded.",
)
@click.option("--because", required=True, help="Why, for whoever decides and the audit log.")
@click.pass_obj
def shares(
    context: Context,
    *,
    merchant: str,
    mode: str,
    max_ppm: int,
    refund_from: Literal["receivers", "merchant"],
    because: str,
) -> None:
    """Propose how much of its payments a merchant may share; somebody else has to approve it."""

    async def work(platform: Platform) -> dict[str, object]:
        merchant_id, terms = (
            parse("mch", merchant),
            SplitTermsAsked(Mode(mode), max_ppm, refund_from),
        )
        await merchants.merchant_with_id(platform.db, merchant_id)
        async with platform.db.begin(actor()) as tx:
            waiting = await propose_act(
                tx,
                SET_SPLIT_TERMS,
                merchant,
                terms,
                reason=because,
                merchant_id=merchant_id,
                mode=Mode(mode),
            )
        return {"approval": waiting.shown_id, "merchant": merchant, "mode": mode}

    context.show(context.run(work))


def _draft(file: Path) -> PriceDraft:
    """Return the prices in a file.

    Raises:
        DraftUnreadable
    """
    try:
        return draft_from(file.read_bytes(), is_toml=file.suffix == ".toml")
    except msgspec.DecodeError as error:
        raise DraftUnreadable(reason=str(error)[:200]) from error
