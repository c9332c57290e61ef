"""Commands of routing: look, check, draw up, put in force, replay, explain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

import click

from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.ids import parse, show
from tongbao.payments.collecting.queries import timeline, unknown_by_account
from tongbao.payments.routing.model import Asked, Offer
from tongbao.payments.routing.router import LiveRouter, decisions_of_payment, shadow_tallies
from tongbao.payments.routing.rule_sets import (
    RULE_SET_PREFIX,
    activate,
    as_shown,
    draw_up,
    rule_set,
    rule_sets,
    stand_in_shadow,
    withdraw,
)
from tongbao.payments.routing.rules import (
    RuleFileUnreadable,
    check_targets,
    compile_rules,
    read_rules,
)
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.cli.context import Context, Platform, actor
from tongbao.surfaces.routing.replay import past_traffic, percent, replay, table_of

_MOMENT = click.DateTime(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"])
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def routing() -> None:
    """Which channel takes a payment: rules, health, and what they would have done."""


@routing.command("show")
@click.pass_obj
def routing_show(context: Context) -> None:
    """Show how every account stands: its gate, its figures, what of its day is used."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        unknown = await unknown_by_account(platform.db)
        return [
            {
                "account": show("chn", each.account_id),
                "channel": each.channel,
                "mode": each.mode.value,
                "state": each.gate.value if each.is_open else "closed",
                "why": each.why,
                "success": {name: percent(rate.success_ppm) for name, rate in each.rates.items()},
                "latency_ms": {name: rate.latency_ms for name, rate in each.rates.items()},
                "samples": {name: rate.samples for name, rate in each.rates.items()},
                "used_today": {name: list(figures) for name, figures in each.used.items()},
                "unknown": unknown[each.account_id].attempts if each.account_id in unknown else 0,
            }
            for each in await _router(platform).health()
        ]

    context.show(context.run(work))


@routing.command("list")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def routing_list(context: Context, limit: int) -> None:
    """List rule sets, and how drafts in the shadow compare with what is in force."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        tallies = await shadow_tallies(platform.db)
        lines = []
        for each in await rule_sets(platform.db, limit):
            line = as_shown(each)
            if (tally := tallies.get(each.id)) is not None:
                compared = {"decided": tally.decided, "differed": tally.differed}
                line |= compared | {"cost_less": tally.cost_less}
            lines.append(line)
        return lines

    context.show(context.run(work))


@routing.command("check")
@click.argument("file", type=_FILE)
@click.pass_obj
def routing_check(context: Context, file: Path) -> None:
    """Check a rule file and that everything it names exists; nothing is kept."""

    async def work(platform: Platform) -> dict[str, object]:
        said = read_rules(_text(file))
        accounts = [row.id for row in await list_accounts(platform.db) if row.mode is said.mode]
        check_targets(said, platform.flow.channels, accounts)
        table = compile_rules(said)
        return {
            "name": said.name,
            "mode": said.mode.value,
            "rules": len(table.rules),
            "limits": len(table.limits),
        }

    context.show(context.run(work))


@routing.command("draft")
@click.argument("file", type=_FILE)
@click.pass_obj
def routing_draft(context: Context, file: Path) -> None:
    """Keep a rule file as a draft that somebody else may put in force."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            return as_shown(await draw_up(tx, _text(file), platform.flow.channels))

    context.show(context.run(work))


@routing.command("activate")
@click.argument("draft")
@click.option("--from", "since", type=_MOMENT, help="When it begins, Shanghai time; now if not.")
@click.pass_obj
def routing_activate(context: Context, draft: str, since: datetime | None) -> None:
    """Put in force what somebody else has drawn up."""

    async def act(tx: Tx, rule_set_id: UUID) -> dict[str, object]:
        begins = since.replace(tzinfo=BUSINESS_ZONE) if since is not None else None
        return as_shown(await activate(tx, rule_set_id, valid_from=begins))

    _do(context, draft, act)


@routing.command("withdraw")
@click.argument("draft")
@click.pass_obj
def routing_withdraw(context: Context, draft: str) -> None:
    """Give a draft up."""

    async def act(tx: Tx, rule_set_id: UUID) -> dict[str, object]:
        return as_shown(await withdraw(tx, rule_set_id))

    _do(context, draft, act)


@routing.command("shadow")
@click.argument("draft")
@click.pass_obj
def routing_shadow(context: Context, draft: str) -> None:
    """Ask a draft beside the rules in force, and only count what it says."""

    async def act(tx: Tx, rule_set_id: UUID) -> dict[str, object]:
        return as_shown(await stand_in_shadow(tx, rule_set_id))

    _do(context, draft, act)


@routing.command("replay")
@click.argument("draft")
@click.option("--from", "since", type=_MOMENT, required=True, help="Payments made since, Shanghai.")
@click.option("--to", "until", type=_MOMENT, required=True, help="Payments made before, Shanghai.")
@click.option("--limit", default=20_000, show_default=True, help="No more payments than this.")
@click.pass_obj
def routing_replay(
    context: Context, draft: str, since: datetime, until: datetime, limit: int
) -> None:
    """Compare what was done with past payments with what a draft would have done with them.

    DRAFT is a rule set's id or a rule file.
    """

    async def work(platform: Platform) -> list[dict[str, object]]:
        said = read_rules(await _source(platform.db, draft))
        table, mode = compile_rules(said), said.mode
        begins, ends = (each.replace(tzinfo=BUSINESS_ZONE) for each in (since, until))
        past = [each async for each in past_traffic(platform.db, mode, begins, ends, limit=limit)]

        async def offers_of(asked: Asked) -> Sequence[Offer]:
            return await _router(platform).offers(asked, table)

        comparison = await replay(past, table, offers_of)
        names = {
            row.id: f"{row.channel} {show('chn', row.id)}"
            for row in await list_accounts(platform.db)
        }
        return [
            *table_of(comparison, names),
            {
                "payments": comparison.payments,
                "moved": comparison.moved,
                "unplaced": dict(comparison.unplaced),
                "rules": dict(comparison.rules),
                "cards_unknown": comparison.cards_unknown,
            },
        ]

    context.show(context.run(work))


@routing.command("explain")
@click.argument("payment")
@click.pass_obj
def routing_explain(context: Context, payment: str) -> None:
    """Say why a payment went where it went: the rule, the scores, and who was passed over."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = (await timeline(platform.db, parse("pay", payment))).payment
        return [
            {
                "at": each.at.isoformat(),
                "rule": each.rule,
                "rule_set": show(RULE_SET_PREFIX, each.rule_set_id) if each.rule_set_id else "",
                "by": each.manner.value,
                "channel": each.channel,
                "account": show("chn", each.account_id),
                "candidates": [
                    {
                        "channel": one.channel,
                        "success": percent(one.success_ppm),
                        "cost": one.cost,
                        "value": one.value,
                        "latency_ms": one.latency_ms,
                    }
                    for one in each.candidates
                ],
                "excluded": {show("chn", one.account_id): one.reason for one in each.excluded},
                "shadow": show("chn", each.shadow_id) if each.shadow_id else "",
            }
            for each in await decisions_of_payment(platform.db, found.book, found.id)
        ]

    context.show(context.run(work))


def _do(
    context: Context, draft: str, act: Callable[[Tx, UUID], Awaitable[dict[str, object]]]
) -> None:
    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            return await act(tx, parse(RULE_SET_PREFIX, draft))

    context.show(context.run(work))


def _router(platform: Platform) -> LiveRouter:
    router = platform.flow.router
    if not isinstance(router, LiveRouter):
        raise TypeError("the platform routes nothing")
    return router


async def _source(db: Db, draft: str) -> str:
    if draft.startswith(f"{RULE_SET_PREFIX}_"):
        return (await rule_set(db, parse(RULE_SET_PREFIX, draft))).source
    return _text(Path(draft))


def _text(file: Path) -> str:
    """Return what a file says.

    Raises:
        RuleFileUnreadable
    """
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise RuleFileUnreadable(reason=type(failure).__name__) from None
