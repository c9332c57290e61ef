"""The day is over: bills, reconciliation, settlement, payout, and the ledger's own proof."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tongbao.ledger.verify import verify
from tongbao.surfaces.demo.programme import Programme


async def check_webhooks(programme: Programme) -> None:
    """See that every event reached the shop, and had its effect once."""
    await programme.idle()
    listed = await programme.call(lambda: list(programme.shop.events.list()))
    told = {event["id"] for event in listed}
    heard = programme.receiver.events
    programme.mark("webhooks: every event heard", len(told), len(told & heard.keys()))
    programme.mark("webhooks: heard of nothing else", 0, len(heard.keys() - told))
    ends = Counter(_subject(event) for event in heard.values())
    twice = sum(1 for times in ends.values() if times > 1)
    programme.mark("webhooks: ends told twice", 0, twice)
    programme.mark("webhooks: with a bad signature", 0, programme.receiver.invalid)


def _subject(event: dict[str, Any]) -> tuple[str, str]:
    return event["type"], event["data"]["object"]["id"]


async def prove(programme: Programme) -> None:
    """Let the ledger re-derive every figure from its journal."""
    report = await verify(programme.db)
    looked_at = sum(check.looked_at for check in report.checks)
    broken = ", ".join(check.name for check in report.broken) or "nothing broken"
    programme.mark(f"ledger: {looked_at} figures re-derived", "nothing broken", broken)
