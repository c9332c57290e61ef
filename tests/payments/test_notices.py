"""What channels tell of refunds, of agreements, and of what no domain of ours takes yet.

Refunds and agreements meet every disturbance in every state, all disturbances of a cell at once:
each has a refund or an agreement of its own, and time moves once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from tests.payments.everywhere import CHANNELS, open_everywhere
from tests.payments.letters import Letter, Postman, states_of_callbacks
from tests.stage import AT_SANDBOX, Stage, new_number
from tongbao import duties
from tongbao.infra._task_jobs import jobs_of
from tongbao.infra.worker import Worker
from tongbao.kernel.ids import base32, new_id, parse
from tongbao.kernel.money import Money
from tongbao.payments.callbacks import inbox
from tongbao.payments.callbacks.inbox import BelieveCallback, TakeKept, believe_callback, take_kept
from tongbao.payments.callbacks.model import InboundState, NoticeFilter, Taker
from tongbao.payments.callbacks.queries import callbacks_about, list_aside
from tongbao.payments.splits.receivers import Sharing
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import ChannelAccount

TELLING_OF_REFUNDS = (*CHANNELS, "unionpay")  # Qra has no notices of refunds
DISTURBED = ("lost", "late", "doubled", "reordered", "forged", "wrong_amount", "other_merchant")
PAID = 10_000


@pytest.fixture(scope="module", autouse=True)
async def every_channel(module_stage: Stage) -> None:
    await open_everywhere(module_stage)


# --- refunds -------------------------------------------------------------------------------------


class Refunded:
    """A refund that the channel has made, or refused, and how to tell of it."""

    def __init__(self, stage: Stage, paid: Any, trade: dict[str, Any], refund: Any) -> None:
        self.stage, self.refund = stage, refund
        self.channel = paid["method"]["channel"]
        self.order = (str(trade["number"]), str(trade["ref"]), Money(paid["amount"], "CNY"))
        self.number = str(refund["id"]).removeprefix("ref_")
        self.money = Money(refund["amount"], "CNY")

    async def letter(self, postman: Postman, **lies: Any) -> Letter:
        account = await postman.account(self.channel)
        ref = f"{self.number[:20]}0001"
        facts = {"money": self.money, "ref": ref, **lies}
        money = facts.pop("money")
        return await asyncio.to_thread(
            postman.institution.refunded, account, self.order, self.number, money, **facts
        )

    async def tell(self, postman: Postman, **lies: Any) -> int:
        account = await postman.account(self.channel)
        return (await postman.deliver(account, await self.letter(postman, **lies))).status_code

    async def tell_of_the_payment(self, postman: Postman) -> int:
        """Older news: that what is given back was paid at all."""
        account, (number, ref, money) = await postman.account(self.channel), self.order
        letter = await asyncio.to_thread(postman.institution.paid, account, number, money, ref=ref)
        return (await postman.deliver(account, letter)).status_code


async def disturb(what: str, told: Refunded, postman: Postman) -> None:
    """Let one thing go wrong with a refund's notice; ``late`` and ``lost`` tell nothing now."""
    good = {200, 204}
    match what:
        case "doubled":
            account, letter = await postman.account(told.channel), await told.letter(postman)
            replies = await asyncio.gather(*(postman.deliver(account, letter) for _ in range(10)))
            assert all(reply.is_success for reply in replies)
        case "reordered":
            assert await told.tell(postman) in good
            assert await told.tell_of_the_payment(postman) in good
        case "forged":
            assert await told.tell(postman, variant="forged") == 500
        case "wrong_amount":
            assert await told.tell(postman, money=Money(told.money.amount + 1, "CNY")) in good
        case "other_merchant":
            assert await told.tell(postman, mchid="1900009999") in good


async def waiting(stage: Stage, channel: str, paid: Any, fen: int) -> Any:
    if channel == "alipay":  # it says at once what became of a refund, unless it says nothing
        return await unknown(stage, channel, paid, fen)
    refund = await stage.refund(paid, fen)
    assert refund["status"] == "pending"
    return refund


async def unknown(stage: Stage, channel: str, paid: Any, fen: int) -> Any:
    stage.fault(channel, "refund", "time_out_done")
    refund = await stage.refund(paid, fen)
    assert refund["status"] == "unknown"
    return refund


async def known(stage: Stage, channel: str, paid: Any, fen: int) -> Any:
    return await stage.refund(paid, fen)


async def failed(stage: Stage, channel: str, paid: Any, fen: int) -> Any:
    stage.fault(channel, "refund", "not_enough")
    return await stage.refund(paid, fen)


REFUND_STATES: list[Callable[[Stage, str, Any, int], Awaitable[Any]]] = [
    waiting,
    unknown,
    known,
    failed,
]


REFUND_CELLS = [
    pytest.param(channel, state, id=f"{channel}-{state.__name__}")
    for channel in TELLING_OF_REFUNDS
    for state in REFUND_STATES
    # What Alipay refuses for want of money it may still do, so there nothing has failed.
    if (channel, state) != ("alipay", failed)
]


@pytest.mark.parametrize(("channel", "state"), REFUND_CELLS)
async def test_a_refund_ends_the_same_whatever_is_told_of_it(
    stage: Stage,
    postman: Postman,
    channel: str,
    state: Callable[[Stage, str, Any, int], Awaitable[Any]],
) -> None:
    paid = await stage.paid(channel, PAID)
    trade = await stage.trade_of(paid)
    assert trade
    stage.fault(channel, "callback", "lost", times=2 * len(DISTURBED))
    refunds = {
        what: Refunded(stage, paid, trade, await state(stage, channel, paid, 700 + row))
        for row, what in enumerate(DISTURBED)
    }
    if state in {known, failed}:
        await stage.advance(seconds=40)
        ends = {(await stage.read(told.refund))["status"] for told in refunds.values()}
        assert ends == {"succeeded" if state is known else "failed"}

    for what, told in refunds.items():
        await disturb(what, told, postman)
    await stage.idle()
    await stage.advance(minutes=2)
    assert await refunds["late"].tell(postman) in {200, 204}
    await stage.idle()

    for what, told in refunds.items():
        end, events = await stage.read(told.refund), await stage.events(told.refund)
        name = "failed" if state is failed else "succeeded"
        assert (end["status"], events) == (name, [f"refund.{name}"]), what
        rule = "failed" if state is failed else "succeeded"
        moved = [code for code, _ in await stage.postings(told.refund)]
        assert len([code for code in moved if code.startswith(f"refund.{rule}/gross")]) == 1, what
    made = [] if state is failed else sorted(told.money.amount for told in refunds.values())
    assert sorted(await stage.given_back(paid)) == made
    mismatched = await states_of_callbacks(stage, refunds["other_merchant"].number)
    assert mismatched == ["mismatched"]
    assert await states_of_callbacks(stage, refunds["forged"].number) == []
    # Alipay's notices do not say what one refund was; the others' other amount is for people.
    assert ("contradiction" in await stage.cases(paid)) == (channel != "alipay")


async def test_a_refund_that_failed_and_is_said_to_be_done_is_for_people(
    stage: Stage, postman: Postman
) -> None:
    for channel in ("wechat_pay", "unionpay"):
        paid = await stage.paid(channel, PAID)
        trade = await stage.trade_of(paid)
        assert trade
        refund = await failed(stage, channel, paid, 700)
        await stage.advance(seconds=40)
        told = Refunded(stage, paid, trade, refund)

        await told.tell(postman)
        await stage.idle()

        assert await stage.cases(paid) == ["contradiction"]
        assert (await stage.read(refund))["status"] == "failed"


# --- agreements ----------------------------------------------------------------------------------


PLANS = {"alipay": "GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL", "wechat_pay": "12535"}
AGREED = ("lost", "late", "doubled", "reordered", "forged", "other_merchant")


class Agreed:
    """An agreement whose customer has done something, and how to tell of it."""

    def __init__(self, stage: Stage, agreement: Any) -> None:
        self.stage, self.agreement = stage, agreement
        self.channel = agreement["channel"]
        self.number = base32(parse("agr", agreement["id"]))

    async def act(self, what: str) -> None:
        """Let the customer sign, or end it."""
        if self.channel == "alipay" and what == "sign":
            url = self.agreement["next_action"]["url"]
            await self.stage.control("alipay/visit", url=url, action="pay")
            return
        at = AT_SANDBOX[self.channel]
        await self.stage.control(f"{at}/agreement", number=self.number, action=what)

    async def letter(self, postman: Postman, **lies: Any) -> Letter:
        account = await postman.account(self.channel)
        make = postman.institution.agreed
        return await asyncio.to_thread(lambda: make(account, self.number, **lies))

    async def tell(self, postman: Postman, **lies: Any) -> int:
        account = await postman.account(self.channel)
        return (await postman.deliver(account, await self.letter(postman, **lies))).status_code

    async def seen(self) -> Any:
        return await self.stage.call(self.stage.client.agreements.get, self.agreement["id"])


async def offered(stage: Stage, channel: str) -> Agreed:
    asked = {
        "merchant_agreement_no": new_number(),
        "channel": channel,
        "plan": PLANS[channel],
        "display_name": "member",
        "return_url": "https://shop.example/member",
        **({"payer_id": "oUpF8uMuAJO_M2pxb1Q9"} if channel == "wechat_pay" else {}),
    }
    return Agreed(stage, await stage.call(stage.client.agreements.create, **asked))


async def disturb_agreement(what: str, told: Agreed, postman: Postman, *, ended: bool) -> None:
    good = {200, 204}
    match what:
        case "doubled":
            account = await postman.account(told.channel)
            letter = await told.letter(postman, ended=ended)
            replies = await asyncio.gather(*(postman.deliver(account, letter) for _ in range(5)))
            assert all(reply.is_success for reply in replies)
        case "reordered":
            assert await told.tell(postman, ended=ended) in good
            assert await told.tell(postman, ended=not ended) in good
        case "forged":
            assert await told.tell(postman, variant="forged", ended=not ended) == 500
        case "other_merchant":
            assert await told.tell(postman, mchid="1900009999", ended=not ended) in good


@pytest.mark.parametrize("state", ["offered", "signed", "ended"])
@pytest.mark.parametrize("channel", CHANNELS)
async def test_an_agreement_stands_as_its_channel_says_whatever_is_told_of_it(
    stage: Stage, postman: Postman, channel: str, state: str
) -> None:
    """A notice is a reason to ask: one that says the contrary of what is so changes nothing."""
    stage.fault(channel, "callback", "lost", times=2 * len(AGREED))
    agreements = {what: await offered(stage, channel) for what in AGREED}
    for told in agreements.values():
        if state != "offered":
            await told.act("sign")
    await stage.advance(seconds=30)  # as it is known before anything is told
    if state == "ended":
        for told in agreements.values():
            await told.act("end")

    for what, told in agreements.items():
        await disturb_agreement(what, told, postman, ended=state == "ended")
    await stage.idle()
    if state == "ended":  # nobody asks about what is signed, so only what is told is known
        silent = {what for what, told in agreements.items() if await status(told) == "active"}
        assert silent == {"lost", "late", "forged", "other_merchant"}
    assert await agreements["late"].tell(postman, ended=state == "ended") in {200, 204}
    await stage.idle()

    ends = {"offered": "pending", "signed": "active", "ended": "ended"}
    events = {"offered": [], "signed": ["agreement.signed"]}
    events["ended"] = [*events["signed"], "agreement.ended"]
    for what, told in agreements.items():
        is_untold = state == "ended" and what in {"lost", "forged", "other_merchant"}
        end = "signed" if is_untold else state
        assert await status(told) == ends[end], what
        assert await stage.events(told.agreement) == events[end], what


async def status(told: Agreed) -> str:
    return str((await told.seen())["status"])


async def test_what_is_taken_under_an_agreement_its_customer_ended_unheard_of_is_refused(
    stage: Stage, postman: Postman
) -> None:
    """The loss of the notice costs no money: the channel refuses what comes after."""
    told = await offered(stage, "alipay")
    await told.act("sign")
    await stage.idle()
    stage.fault("alipay", "callback", "lost")
    await told.act("end")
    method: Any = {"mode": "agreement", "agreement_id": told.agreement["id"]}
    terms = {"merchant_order_no": new_number(), "subject": "a month"}
    payment = await stage.call(stage.client.payments.create, amount=1000, method=method, **terms)
    await stage.advance(minutes=10)
    assert (await stage.read(payment))["status"] in {"failed", "closed"}
    assert await stage.postings(payment) == []


# --- what nobody takes yet -----------------------------------------------------------------------


def of_a_payout(account: ChannelAccount, number: str) -> tuple[dict[str, Any], str, str]:
    content = {
        "mchid": account.merchant_number,
        "out_bill_no": number,
        "transfer_bill_no": "1330000071100999991182020050700019480001",
        "state": "SUCCESS",
        "transfer_amount": 400,
        "user_name": "张三",
        "create_time": "2026-11-21T12:00:00+08:00",
        "update_time": "2026-11-21T12:00:00+08:00",
    }
    return content, "mch_payment", "MCHTRANSFER.BILL.FINISHED"


def of_parking(account: ChannelAccount, number: str) -> tuple[dict[str, Any], str, str]:
    content = {
        "sp_mchid": account.merchant_number,
        "out_parking_no": number,
        "plate_number": "粤B888888",
        "parking_state": "NORMAL",
    }
    return content, "vehicle", "VEHICLE.CHANGED"


def of_a_score(account: ChannelAccount, number: str) -> tuple[dict[str, Any], str, str]:
    content = {"mchid": account.merchant_number, "out_request_no": number, "user_name": "张三"}
    return content, "payscore", "PAYSCORE.USER_OPEN_SERVICE"


STRANGE = [
    (of_a_payout, CallbackKind.TRANSFER),
    (of_a_score, CallbackKind.OTHER),
]
Strange = Callable[[ChannelAccount, str], tuple[dict[str, Any], str, str]]


@pytest.fixture
def earlier(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the program in which nobody takes what is told of payouts."""
    platform = stage.platform
    sharing = Sharing(stage.flow, platform.keyring)
    today = duties.takers(stage.flow, sharing, platform.clearing)
    known: dict[CallbackKind, Taker] = dict(today)
    del known[CallbackKind.TRANSFER]
    handlers: Any = {
        BelieveCallback: partial(believe_callback, stage.flow, known),
        TakeKept: partial(take_kept, stage.db, known),
    }
    for tag, job in jobs_of(stage.db, handlers, duties.POLICIES, {}).items():
        monkeypatch.setitem(platform.worker._jobs, tag, job)


async def tell_of(stage: Stage, postman: Postman, make: Strange, number: str) -> None:
    account = await postman.account("wechat_pay")
    letter = await asyncio.to_thread(postman.institution.sealed, *make(account, number))
    assert (await postman.deliver(account, letter)).status_code == 204, "it need not come again"
    await stage.idle()


@pytest.mark.usefixtures("earlier")
@pytest.mark.parametrize(("make", "kind"), STRANGE)
async def test_what_nobody_takes_yet_is_kept_and_names_nobody(
    stage: Stage, postman: Postman, make: Strange, kind: CallbackKind
) -> None:
    number = base32(new_id())

    await tell_of(stage, postman, make, number)

    page = await list_aside(stage.db, NoticeFilter(state=InboundState.KEPT, kind=kind), limit=1)
    [kept] = page.items
    assert kept.callback is not None
    assert number in kept.callback.content
    assert "张三" not in kept.callback.content
    assert "粤B888888" not in kept.callback.content
    assert kept.number == ("" if kind is CallbackKind.OTHER else number)
    assert (kept.kind, kept.state, kept.processed_at is None) == (kind, InboundState.KEPT, False)
    if kept.number:
        assert [each.id for each in await callbacks_about(stage.db, [number])] == [kept.id]


async def test_a_payment_that_is_not_ours_is_no_kept_notice(stage: Stage, postman: Postman) -> None:
    number = base32(new_id())
    await postman.tell("wechat_pay", number, Money(100, "CNY"))
    await stage.idle()
    assert await states_of_callbacks(stage, number) == ["orphaned"]
    seen = await list_aside(stage.db, NoticeFilter(kind=CallbackKind.PAYMENT, channel="wechat_pay"))
    assert number in {each.number for each in seen.items}


async def later_version(stage: Stage, kind: CallbackKind, take: Taker) -> None:
    """Start a version of the program in which somebody takes this kind, and let it come to rest."""
    takers = {kind: take}
    handlers: Any = {
        BelieveCallback: partial(believe_callback, stage.flow, takers),
        TakeKept: partial(take_kept, stage.db, takers),
    }
    policies = {task: duties.POLICIES[task] for task in handlers}
    async with stage.db.begin("startup") as tx:
        await inbox.seed(tx)
    await Worker(stage.db, handlers, policies, {}).run_until_idle(raise_failures=True)


@pytest.mark.usefixtures("earlier")
async def test_a_later_domain_takes_its_kind_and_what_was_kept_before(
    stage: Stage, postman: Postman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_TAKEN_AT_ONCE", 2)
    numbers = [base32(new_id()) for _ in range(5)]
    foreign = numbers[-1]
    for number in numbers:
        await tell_of(stage, postman, of_a_payout, number)
    await tell_of(stage, postman, of_parking, (entrance := base32(new_id())))
    heard: list[str] = []

    async def take(account: ChannelAccount, callback: Callback) -> bool:
        assert account.id == stage.accounts["wechat_pay"]
        heard.append(callback.number)
        return callback.number != foreign

    for _ in range(2):  # a second start finds nothing left
        await later_version(stage, CallbackKind.TRANSFER, take)

    assert sorted(each for each in heard if each in numbers) == sorted(numbers)
    for number in numbers:
        state = "orphaned" if number == foreign else "processed"
        assert await states_of_callbacks(stage, number) == [state]
    assert await states_of_callbacks(stage, entrance) == ["orphaned"], "no car of ours came in"


@pytest.mark.usefixtures("earlier")
async def test_a_copy_of_what_is_kept_is_counted(stage: Stage, postman: Postman) -> None:
    account, number = await postman.account("wechat_pay"), base32(new_id())
    letter = await asyncio.to_thread(postman.institution.sealed, *of_a_payout(account, number))
    for _ in range(3):
        await postman.deliver(account, letter)
        await stage.idle()
    [kept] = await callbacks_about(stage.db, [number])
    assert (kept.state, kept.copies) == (InboundState.KEPT, 3)


async def test_another_merchants_notice_is_not_kept_for_ours(
    stage: Stage, postman: Postman
) -> None:
    account, number = await postman.account("wechat_pay"), base32(new_id())
    content, kind, event = of_a_payout(account, number)
    stranger = {**content, "mchid": "1900009999"}
    await postman.deliver(
        account, await asyncio.to_thread(postman.institution.sealed, stranger, kind, event)
    )
    await stage.idle()
    assert await states_of_callbacks(stage, number) == ["mismatched"]


@pytest.mark.parametrize(("end", "state"), [("closed", "processed"), ("paid", "orphaned")])
async def test_what_is_taken_back_by_its_own_number_is_ours_only_if_it_ended_unpaid(
    stage: Stage, postman: Postman, end: str, state: str
) -> None:
    """Alipay says so of an order that was paid at the moment that it was taken back."""
    payment = await stage.show_qr("alipay", 1_999)
    if end == "closed":
        await stage.call(stage.client.payments.close, payment["id"])
    else:
        await stage.customer(payment)
    await stage.idle()
    account = await postman.account("alipay")
    number, money = (await stage.attempt_of(payment)).number, Money(1_999, "CNY")
    before = len(await states_of_callbacks(stage, number))

    order = number, "2026112122001000000000000001", money
    await postman.deliver(account, postman.institution.refunded(account, order, number, money))
    await stage.idle()

    assert (await states_of_callbacks(stage, number))[before:] == [state]
    assert (await stage.row_of(payment)).left == (0 if end == "closed" else 1_999)
