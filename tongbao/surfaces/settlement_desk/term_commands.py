"""`tongbao settlement terms`: what counts for a merchant, what is held, and what to propose."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import click
from msgspec.structs import asdict

from tongbao.clearing.settlement.closing import hold_back
from tongbao.clearing.settlement_terms import terms as desk
from tongbao.clearing.settlement_terms.queries import (
    agreed_with,
    holds_of_merchant,
    terms_of_merchant,
)
from tongbao.clearing.settlement_terms.terms import NewTerms
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.surfaces.cli.context import Context, Platform, actor
from tongbao.surfaces.settlement_desk.terms import HOLD, figures_in

_DAY: Final = click.DateTime(formats=["%Y-%m-%d"])
_MODE: Final = click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="live",
    show_default=True,
    help="Real money or test.",
)
_REASON: Final = click.option("--reason", required=True, help="Why, for those who read it later.")


@click.group()
def terms() -> None:
    """Settlement terms and holds of merchants."""


@terms.command("show")
@click.argument("merchant")
@_MODE
@click.pass_obj
def show_terms(context: Context, merchant: str, mode: str) -> None:
    """Show what counts for a merchant today, then every version agreed, the latest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        db = platform.db
        found = await merchant_with_id(db, parse("mch", merchant))
        today = business_date(db.clock.now())
        agreed = await agreed_with(db, Mode(mode), [found])
        now = {"valid_from": "today", **asdict(agreed.figures(found.id, today))}
        versions = await terms_of_merchant(db, found.id, Mode(mode))
        return [now] + [
            {"valid_from": each.valid_from.isoformat(), **asdict(each.figures)} for each in versions
        ]

    context.show(context.run(work))


@terms.command("propose")
@click.argument("merchant")
@_MODE
@click.option("--from", "begins", required=True, type=_DAY, help="The first accounting day.")
@click.option("--set", "changes", multiple=True, required=True, help="A figure, as delay_days=2.")
@_REASON
@click.pass_obj
def propose_terms(
    context: Context, merchant: str, mode: str, begins: datetime, *, reason: str,
    changes: tuple[str, ...],
) -> None:  # fmt: skip
    """Propose what counts today with these figures changed; a second person approves."""
    named = dict(each.partition("=")[::2] for each in changes)

    async def work(platform: Platform) -> dict[str, object]:
        db = platform.db
        found = await merchant_with_id(db, parse("mch", merchant))
        agreed = await agreed_with(db, Mode(mode), [found])
        old = asdict(agreed.figures(found.id, business_date(db.clock.now())))
        for name in named:
            if name not in old:
                raise click.BadParameter(f"no figure is called {name}", param_hint="--set")
        texts = {name: str(value) for name, value in old.items()} | named
        wanted = NewTerms(found.id, Mode(mode), begins.date(), figures_in(texts))
        async with db.begin(actor()) as tx:
            approval = await desk.propose_terms(tx, wanted, reason=reason)
        return {"approval": approval.shown_id}

    context.show(context.run(work))


@terms.command("holds")
@click.argument("merchant")
@_MODE
@click.pass_obj
def show_holds(context: Context, merchant: str, mode: str) -> None:
    """Show what is and was held back from a merchant, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        holds = await holds_of_merchant(platform.db, parse("mch", merchant), Mode(mode))
        return [
            {
                "hold": show(HOLD, each.id),
                "amount": "everything" if each.amount is None else each.amount,
                "reason": each.reason,
                "until": each.until_day.isoformat() if each.until_day else "",
                "lifted": each.lifted_at is not None,
            }
            for each in holds
        ]

    context.show(context.run(work))


@terms.command("hold")
@click.argument("merchant")
@_MODE
@click.option("--amount", type=int, help="Minor units of each currency; without it, everything.")
@click.option("--until", type=_DAY, help="The day on which it is over by itself.")
@_REASON
@click.pass_obj
def hold(
    context: Context, merchant: str, mode: str, amount: int | None, *, until: datetime | None,
    reason: str,
) -> None:  # fmt: skip
    """Hold a merchant's settlement back at once; to lift it takes two people."""

    async def work(platform: Platform) -> dict[str, object]:
        found = await merchant_with_id(platform.db, parse("mch", merchant))
        day = until.date() if until else None
        async with platform.db.begin(actor()) as tx:
            placed = await hold_back(
                tx, found, Mode(mode), amount=amount, reason=reason, until_day=day
            )
        return {"hold": show(HOLD, placed)}

    context.show(context.run(work))


@terms.command("lift")
@click.argument("hold_id")
@_REASON
@click.pass_obj
def lift(context: Context, hold_id: str, reason: str) -> None:
    """Propose that a hold is over; a second person approves."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            approval = await desk.propose_lift(tx, parse(HOLD, hold_id), reason=reason)
        return {"approval": approval.shown_id}

    context.show(context.run(work))
