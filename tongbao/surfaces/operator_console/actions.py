"""What operators do: ask, close, send again, decide about rules, close a case, replay a task.

Every act is confirmed on its page, needs its own permission, and leaves a line in the audit log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from tongbao.infra import audit, outbox, tasks
from tongbao.infra.telemetry import ready
from tongbao.infra.webhooks.deliveries import replay_delivery
from tongbao.infra.webhooks.endpoints import Owner
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import parse, show
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.payments.callbacks.model import ASIDE, InboundState, NoticeFilter
from tongbao.payments.callbacks.queries import list_aside
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.chase import look_at
from tongbao.payments.collecting.model import WALLET, PaymentCase
from tongbao.payments.collecting.payments import check_closable, close_case, close_payment
from tongbao.payments.refunds.outcomes import ask_channel
from tongbao.payments.refunds.queries import RefundNotFound, refund_by_number
from tongbao.payments.routing.model import AccountHealth
from tongbao.payments.routing.router import shadow_tallies
from tongbao.payments.routing.rule_sets import (
    RULE_SET_PREFIX,
    activate,
    rule_sets,
    stand_in_shadow,
    withdraw,
)
from tongbao.rails.channels.contract.callbacks import CallbackKind
from tongbao.surfaces.operator_console.payments import FilterMalformed
from tongbao.surfaces.operator_console.timeline import sheets_of
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Visit
from tongbao.surfaces.page_kit.replies import Reply, redirect

_NOTICES: Final = 20
_LOST: Final = re.compile(r"(?P<lost>\d+) of (?P<asked>\d+) (?P<what>calls|probes) lost")


class NothingToAsk(Conflict):
    """The end is known already, so there is nothing to ask the channel about."""

    code = "console.nothing_to_ask"
    advice = "Look at the timeline; it says how it ended."
    advice_zh = "结果已确定，无需向渠道查询；请查看时间线。"


async def ask_about_payment(visit: Visit) -> Reply:
    """Ask the channel now what became of a payment, and record what it says.

    Raises:
        PaymentNotFound, NothingToAsk
    """
    desk = visit.desk
    story = await queries.timeline(desk.db, parse("pay", visit.params["payment_id"]))
    attempt = story.attempts[-1]
    if story.payment.channel == WALLET or not attempt.state.is_open:
        raise NothingToAsk
    await _note(visit, "payment.asked", show("pay", story.payment.id))
    await look_at(desk.flow, story.payment, attempt)
    return _back_to(story.payment.id, "asked")


async def ask_about_refund(visit: Visit) -> Reply:
    """Ask the channel now what became of a refund, sending it again if the channel knows none.

    Raises:
        RefundNotFound, NothingToAsk
    """
    refund_id = visit.params["refund_id"]
    parse("ref", refund_id)
    refund = await refund_by_number(visit.desk.db, refund_id.removeprefix("ref_"))
    if refund is None:
        raise RefundNotFound
    payment = await queries.payment(visit.desk.db, refund.book, refund.payment_id)
    if payment.channel == WALLET or not refund.state.is_open:
        raise NothingToAsk
    await _note(visit, "refund.asked", refund_id)
    await ask_channel(visit.desk.flow, refund)
    return _back_to(payment.id, "asked")


async def close_one_payment(visit: Visit) -> Reply:
    """Call an unpaid payment off, at the channel first.

    Raises:
        PaymentNotFound, NotClosable
    """
    story = await queries.timeline(visit.desk.db, parse("pay", visit.params["payment_id"]))
    check_closable(story.payment)
    await _note(visit, "payment.close_asked", show("pay", story.payment.id))
    payment, _ = await close_payment(visit.desk.flow, story.payment)
    return _back_to(payment.id, "close_asked")


async def send_webhook_again(visit: Visit) -> Reply:
    """Send a delivery that has ended again, from the first try.

    Raises:
        PaymentNotFound, DeliveryUnknown, EndpointUnknown, EndpointNotEnabled
    """
    desk = visit.desk
    story = await queries.timeline(desk.db, parse("pay", visit.params["payment_id"]))
    owner = Owner(story.payment.merchant_id, story.payment.mode)
    async with desk.db.begin(visit.operator.actor) as tx:
        await replay_delivery(tx, owner, parse("whd", visit.params["delivery_id"]))
    desk.flow.nudge()
    return _back_to(story.payment.id, "replayed")


async def show_cases(visit: Visit) -> Reply:
    """Return the cases that wait for a person, and those that people closed."""
    desk, query = visit.desk, visit.request.query
    closed = await queries.closed_cases(desk.db, cursor=query.get("cursor"), limit=20)
    waiting = await queries.open_cases(desk.db, limit=100)
    older = f"{PREFIX}/cases?cursor={closed.next_cursor}" if closed.next_cursor else None
    facts = {
        "waiting": await _with_merchants(desk, waiting),
        "closed": await _with_merchants(desk, closed.items),
        "older": older,
        "done": query.get("done"),
    }
    return await visit.page("cases.html", facts)


async def close_one_case(visit: Visit) -> Reply:
    """Close a case with the operator's reason.

    Raises:
        ResolutionMissing, CaseUnknown, CaseClosed
    """
    case_id = parse("cas", visit.params["case_id"])
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        closed = await close_case(tx, case_id, visit.request.form.get("resolution", ""))
    if visit.request.form.get("from") == "payment":
        return _back_to(closed.payment_id, "case_closed")
    return redirect(f"{PREFIX}/cases?done=case_closed")


async def show_notices(visit: Visit) -> Reply:
    """Return what channels sent and nobody took: kept, about nothing of ours, or not believed.

    Raises:
        FilterMalformed, CursorInvalid
    """
    query, desk = visit.request.query, visit.desk
    chosen = {name: query.get(name, "") for name in ("state", "kind", "channel")}
    wanted = notices_wanted(query)
    page = await list_aside(desk.db, wanted, cursor=query.get("cursor"), limit=_NOTICES)
    given = {name: value for name, value in chosen.items() if value}
    older = urlencode({**given, "cursor": page.next_cursor}) if page.next_cursor else None
    facts = {
        "chosen": chosen,
        "states": ASIDE,
        "kinds": list(CallbackKind),
        "channels": sorted(desk.flow.channels),
        "notices": [(each, sheets_of(each, visit.texts)) for each in page.items],
        "older": f"{PREFIX}/notices?{older}" if older else None,
    }
    return await visit.page("notices.html", facts)


def notices_wanted(query: Mapping[str, str]) -> NoticeFilter:
    """Return what the page asks the list for.

    Raises:
        FilterMalformed
    """
    try:
        return NoticeFilter(
            state=InboundState(query["state"]) if query.get("state") else None,
            kind=CallbackKind(query["kind"]) if query.get("kind") else None,
            channel=query.get("channel") or None,
        )
    except ValueError:
        raise FilterMalformed from None


async def show_health(visit: Visit) -> Reply:
    """Return how the machine fares: the database, the queues, and what was given up."""
    db, query = visit.desk.db, visit.request.query
    letters = await tasks.dead_letters(db, cursor=query.get("cursor"), limit=20)
    facts = {
        "state": await ready(db),
        "backlog": await tasks.backlog(db),
        "events": await outbox.undispatched(db),
        "letters": [(show("tsk", letter.id), letter) for letter in letters.items],
        "older": f"{PREFIX}/health?cursor={letters.next_cursor}" if letters.next_cursor else None,
        "done": query.get("done"),
    }
    return await visit.page("health.html", facts)


async def show_channels(visit: Visit) -> Reply:
    """Return how every account at a channel fares, and the rules that choose among them."""
    db = visit.desk.db
    unknown = await queries.unknown_by_account(db)
    tallies = await shadow_tallies(db)
    accounts = await visit.desk.flow.router.health()
    facts = {
        "accounts": [
            (show("chn", each.account_id), each, unknown.get(each.account_id), _why(visit, each))
            for each in accounts
        ],
        "rule_sets": [
            (show(RULE_SET_PREFIX, each.id), each, tallies.get(each.id))
            for each in await rule_sets(db)
        ],
        "me": visit.operator.actor,
        "done": visit.request.query.get("done"),
    }
    return await visit.page("channels.html", facts)


def _why(visit: Visit, account: AccountHealth) -> str:
    """Return in the reader's language why a breaker turned; its row has it in English."""
    if lost := _LOST.fullmatch(account.why):
        return visit.texts(f"gate_why.{lost['what']}", lost=lost["lost"], asked=lost["asked"])
    return account.why


async def activate_rules(visit: Visit) -> Reply:
    """Put in force what a colleague has drawn up.

    Raises:
        RuleSetUnknown, RuleSetDecided, RuleSetOwnDraft, StartTaken
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await activate(tx, _rule_set_id(visit))
    return redirect(f"{PREFIX}/channels?done=rules_activated")


async def shadow_rules(visit: Visit) -> Reply:
    """Ask a draft beside the rules in force, and only count what it says.

    Raises:
        RuleSetUnknown, RuleSetDecided
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await stand_in_shadow(tx, _rule_set_id(visit))
    return redirect(f"{PREFIX}/channels?done=rules_shadowed")


async def withdraw_rules(visit: Visit) -> Reply:
    """Give a draft up.

    Raises:
        RuleSetUnknown, RuleSetDecided
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await withdraw(tx, _rule_set_id(visit))
    return redirect(f"{PREFIX}/channels?done=rules_withdrawn")


def _rule_set_id(visit: Visit) -> UUID:
    return parse(RULE_SET_PREFIX, visit.params["rule_set_id"])


async def replay_dead_letter(visit: Visit) -> Reply:
    """Put a task that was given up back into the queue.

    Raises:
        DeadLetterUnknown, DeadLetterSuperseded
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await tasks.replay(tx, parse("tsk", visit.params["task_id"]))
    visit.desk.flow.nudge()
    return redirect(f"{PREFIX}/health?done=replayed")


async def _note(visit: Visit, action: str, subject: str) -> None:
    """Write down who does it before the network is used, so that a crash cannot hide it."""
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, action, subject, {})


async def _with_merchants(
    desk: Desk, cases: list[PaymentCase]
) -> list[tuple[PaymentCase, str, str]]:
    names = await merchants_with_ids(desk.db, [each.merchant_id for each in cases])
    return [(each, show("cas", each.id), names[each.merchant_id].name) for each in cases]


def _back_to(payment_id: UUID, done: str) -> Reply:
    return redirect(f"{PREFIX}/payments/{show('pay', payment_id)}?done={done}")
