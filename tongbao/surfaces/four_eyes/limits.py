"""`tongbao red-packets`: what red packets may be, changed by two people."""

from __future__ import annotations

from datetime import date, datetime

import click

from tongbao.controls.approvals.model import ActUnknown
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
