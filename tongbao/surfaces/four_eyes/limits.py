"""`tongbao red-packets`, `limits` and `rules`: what may be, changed by two people."""

from __future__ import annotations

from datetime import date, datetime

import click
import msgspec

from tongbao.controls.approvals.model import ActUnknown
from tongbao.controls.dated_rows.rows import propose_row
from tongbao.controls.limits import changes
from tongbao.controls.limits.meters import every_rule
from tongbao.controls.limits.model import LimitRule, Period
from tongbao.controls.opening import rules
from tongbao.controls.opening.model import OpeningRule
from tongbao.kernel.clock import business_date
from tongbao.kernel.money import from_decimal_text
from tongbao.products.red_packets.hall import PARTS_MOST, SET, propose_limit
from tongbao.products.red_packets.model import RedPacketLimit
from tongbao.surfaces.cli.context import Context, Platform, Text, actor
from tongbao.surfaces.four_eyes.rules import kind_named, kinds_of, row_of


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
        terms = LimitRule(
            said["kind"],
            said["meter"],
            Period(said["period"]),
            currency,
            date(starts.year, starts.month, starts.day),
            None if most is None else from_decimal_text(most, currency).amount,
            said["instrument"],
        )
        async with platform.db.begin(actor()) as tx:
            asked = await propose_row(tx, changes.LIMITS, terms, reason=reason)
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
        terms = OpeningRule(said["kind"], said["name"], day, figure, said["instrument"])
        async with platform.db.begin(actor()) as tx:
            asked = await propose_row(tx, rules.OPENING, terms, reason=reason)
        return {"approval": asked.shown_id, "act": asked.act, "state": asked.state.value}

    context.show(context.run(work))


@click.group("rules")
def rules_group() -> None:
    """Rules that count from a day on: proofs, logins, limits, opening, retention."""


@rules_group.command("kinds")
@click.pass_obj
def rules_kinds(context: Context, /) -> None:
    """Show what there are rules about, and which fields their rows have."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {"kind": name, "about": " ".join(kind.about), "sets": " ".join(kind.sets)}
            for name, kind in kinds_of(platform.approvals).items()
        ]

    context.show(context.run(work))


@rules_group.command("list")
@click.argument("kind")
@click.option("--past", is_flag=True, help="Those that count no more too.")
@click.pass_obj
def rules_list(context: Context, /, kind: str, *, past: bool) -> None:
    """Show the rows of one kind that count now or later."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = kind_named(platform.approvals, kind)
        today = business_date(platform.db.clock.now())
        rows = await found.rows.all(platform.db)
        now = found.in_force(rows, today)
        shown = [each for each in rows if past or each.valid_from > today or each in now]
        return [msgspec.to_builtins(each) for each in shown]

    context.show(context.run(work))


@rules_group.command("set")
@click.argument("kind")
@click.argument("figures", nargs=-1, required=True, metavar="FIELD=VALUE...")
@click.option(
    "--from",
    "starts",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    required=True,
    help="The first day it counts.",
)
@click.option("--because", type=Text(300), required=True, help="Who says so, and where.")
@click.option("--reason", required=True, help="Why, for those who read it later.")
@click.pass_obj
def rules_set(
    context: Context, /, kind: str, figures: tuple[str, ...], starts: datetime, **why: str
) -> None:
    """Propose a row, as `rules set step_up kind=transfer currency=CNY at_least=100001 level=3`.

    It counts once somebody else has approved it. A figure that is left out ends; amounts are
    minor units.
    """

    async def work(platform: Platform) -> dict[str, object]:
        found = kind_named(platform.approvals, kind)
        said = {name: value for name, _, value in (each.partition("=") for each in figures)}
        said |= {"valid_from": f"{starts:%Y-%m-%d}", found.because: why["because"]}
        async with platform.db.begin(actor()) as tx:
            asked = await propose_row(tx, found, row_of(found, said), reason=why["reason"])
        return {"approval": asked.shown_id, "act": asked.act, "state": asked.state.value}

    context.show(context.run(work))
