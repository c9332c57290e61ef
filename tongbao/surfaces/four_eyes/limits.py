"""`tongbao red-packets` and `tongbao limits`: what may be moved, changed by two people."""

from __future__ import annotations

from datetime import date, datetime

import click
import msgspec

from tongbao.controls.approvals.model import ActUnknown
from tongbao.controls.limits import changes
from tongbao.controls.limits.meters import every_rule
from tongbao.controls.limits.model import Period
from tongbao.controls.opening import rules
from tongbao.kernel.money import from_decimal_text
from tongbao.products.red_packets.hall import PARTS_MOST, SET, propose_limit
from tongbao.products.red_packets.model import RedPacketLimit
from tongbao.surfaces.cli.context import Context, Platform, Text, actor


@click.group("red-packets")
def red_packets() -> None:
    """Red packets: what may be sent."""


@red_packets.command("limit")
@click.option("--currency", default="CNY", show_default=True, help="The currency.")
@click.option(
    "--from",
    "starts",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    required=True,
    help="The first day the limits count.",
)
@click.option("--each", required=True, help="The most one part may be, as 200.00.")
@click.option("--total", required=True, help="The most a red packet may be.")
@click.option(
    "--parts", type=click.IntRange(1, PARTS_MOST), required=True, help="How many parts at most."
)
@click.option("--source", type=Text(300), required=True, help="Where the figures come from.")
@click.option("--reason", required=True, help="Why, for those who read it later.")
@click.pass_obj
def red_packets_limit(
    context: Context, /, starts: datetime, parts: int, source: str, reason: str, **figures: str
) -> None:
    """Propose limits from a day on; they count once somebody else has approved them."""

    async def work(platform: Platform) -> dict[str, object]:
        if SET.name not in platform.approvals.acts:
            raise ActUnknown(act=SET.name)  # an aggregator has no red packets
        currency = figures["currency"]
        each, total = (from_decimal_text(figures[name], currency) for name in ("each", "total"))
        day = date(starts.year, starts.month, starts.day)
        limit = RedPacketLimit(currency, day, each.amount, total.amount, parts, source)
        async with platform.db.begin(actor()) as tx:
            asked = await propose_limit(tx, limit, reason=reason)
        return {"approval": asked.shown_id, "act": asked.act, "state": asked.state.value}

    context.show(context.run(work))


@click.group()
def limits() -> None:
    """Limits of the law on people's accounts: list them, propose new ones."""


@limits.command("list")
@click.pass_obj
def limits_list(context: Context, /) -> None:
    """Show every dated row, past and future ones too, with the instrument that says so."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        rows = await every_rule(platform.db)
        return [msgspec.to_builtins(each) for each in rows]

    context.show(context.run(work))


@limits.command("set")
@click.option("--kind", type=Text(64), required=True, help="The kind of account, as listed.")
@click.option("--meter", type=Text(32), required=True, help="What is counted, as listed.")
@click.option(
    "--period", type=click.Choice([each.value for each in Period]), required=True, help="Over what."
)
@click.option("--currency", default="CNY", show_default=True, help="The currency.")
@click.option(
    "--from",
    "starts",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    required=True,
    help="The first day the limit counts.",
)
@click.option("--most", help="At most, as 2000.00; left out, the limit ends on that day.")
@click.option("--instrument", type=Text(300), required=True, help="The rule and its article.")
@click.option("--reason", required=True, help="Why, for those who read it later.")
@click.pass_obj
def limits_set(
    context: Context, /, starts: datetime, most: str | None, reason: str, **said: str
) -> None:
    """Propose a limit from a day on; it counts once somebody else has approved it."""

    async def work(platform: Platform) -> dict[str, object]:
        if changes.SET.name not in platform.approvals.acts:
            raise ActUnknown(act=changes.SET.name)  # an aggregator keeps nobody's money
        currency = said["currency"]
        terms = changes.LimitTerms(
            said["kind"],
            said["meter"],
            Period(said["period"]),
            currency,
            date(starts.year, starts.month, starts.day),
            None if most is None else from_decimal_text(most, currency).amount,
            said["instrument"],
        )
        async with platform.db.begin(actor()) as tx:
            asked = await changes.propose_rule(tx, terms, reason=reason)
        return {"approval": asked.shown_id, "act": asked.act, "state": asked.state.value}

    context.show(context.run(work))


@limits.command("opening")
@click.pass_obj
def limits_opening(context: Context, /) -> None:
    """Show every dated rule of opening accounts and binding cards, with who says so."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        rows = await rules.every_rule(platform.db)
        return [msgspec.to_builtins(each) for each in rows]

    context.show(context.run(work))


@limits.command("set-opening")
@click.option("--kind", type=Text(64), required=True, help="What the rule is about, as listed.")
@click.option("--name", type=Text(64), required=True, help="The rule's name, as listed.")
@click.option(
    "--from",
    "starts",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    required=True,
    help="The first day the figure counts.",
)
@click.option("--figure", type=int, required=True, help="The figure.")
@click.option("--instrument", type=Text(300), required=True, help="Who says so, and where.")
@click.option("--reason", required=True, help="Why, for those who read it later.")
@click.pass_obj
def limits_set_opening(
    context: Context, /, starts: datetime, figure: int, reason: str, **said: str
) -> None:
    """Propose a rule's figure from a day on; it counts once somebody else has approved it."""

    async def work(platform: Platform) -> dict[str, object]:
        if rules.SET.name not in platform.approvals.acts:
            raise ActUnknown(act=rules.SET.name)  # an aggregator keeps nobody's money
        day = date(starts.year, starts.month, starts.day)
        terms = rules.OpeningTerms(said["kind"], said["name"], day, figure, said["instrument"])
        async with platform.db.begin(actor()) as tx:
            asked = await rules.propose_rule(tx, terms, reason=reason)
        return {"approval": asked.shown_id, "act": asked.act, "state": asked.state.value}

    context.show(context.run(work))
