"""The card channel against the simulated host: money is where the answers say it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.rails.card_host import account, card, order, refund_order
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.authorisations import Capture, Voiding
from tongbao.rails.channels.capabilities.payers import BalanceKnown
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.cards.messages import trace_of
from tongbao.rails.channels.contract.bills import BatchTotals as Totals
from tongbao.rails.channels.contract.bills import TotalsAgree, TotalsDiffer
from tongbao.rails.channels.contract.orders import ChannelAccount, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Succeeded,
    Unknown,
)
from tongbao_sandbox.launch import RunningSandbox

BALANCE = 1_000_000
SILENT = ("time_out_paid", "bad_signature_paid", "wrong_amount_paid", "reset_mid_frame_paid")


@pytest.fixture
async def cards() -> AsyncIterator[Cards]:
    """Waits long enough for any answer that comes."""
    channel = Cards()
    yield channel
    await channel.shut()


@pytest.fixture
async def hasty() -> AsyncIterator[Cards]:
    """Gives up soon, where no answer will come."""
    channel = Cards(LineLimits(answer_s=0.6))
    yield channel
    await channel.shut()


@pytest.fixture
def ours(sandbox: RunningSandbox) -> ChannelAccount:
    return account_at(sandbox)


def account_at(sandbox: RunningSandbox, **changes: Any) -> ChannelAccount:
    given = sandbox.credentials["cards"]
    keys = {name: given[name] for name in ("master_key", "institution", "switch", "cipher", "mac")}
    made = account(sandbox.hosts["cards"], **{**keys, **changes})
    return msgspec.structs.replace(
        made, merchant_number=given["merchant_number"], app_id=given["terminal"]
    )


def fresh_card() -> str:
    """A card nobody has used: each test has its own money."""
    serial = new_id().int % 10**7
    return f"625188{serial:07d}188"


def money_on(sandbox: RunningSandbox, number: str) -> tuple[int, int]:
    shown = sandbox.post("cards/card", number=number)
    return shown["balance"], shown["held"]


async def comes_to(sandbox: RunningSandbox, number: str, money: tuple[int, int]) -> bool:
    """Whether the host comes to this; who gave up on it was perhaps quicker than it was."""
    for _ in range(200):
        if money_on(sandbox, number) == money:
            return True
        await asyncio.sleep(0.05)
    return False


def order_with(number: str, amount: int = 1999, **changes: Any) -> PayOrder:
    return order(amount, card=card(number), **changes)


def without_card(placed: PayOrder) -> PayOrder:
    """The order as whoever chases it knows it: the card was never kept."""
    return msgspec.structs.replace(placed, card=None)


async def test_a_purchase_takes_the_money_once(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number)
    assert isinstance((await cards.pay(ours, placed)).outcome, Succeeded)
    assert money_on(sandbox, number) == (BALANCE - 1999, 0)

    again = await cards.pay(ours, placed)
    assert isinstance(again.outcome, Unknown), "94 says that an earlier one was there"
    assert money_on(sandbox, number) == (BALANCE - 1999, 0)


@pytest.mark.parametrize("code", ["01", "05", "14", "41", "43", "51", "54", "55", "61", "75"])
async def test_a_test_cards_last_digits_choose_its_refusal(
    code: str, cards: Cards, ours: ChannelAccount
) -> None:
    outcome = (await cards.pay(ours, order_with(f"6251880000{code}00{code}"))).outcome
    assert isinstance(outcome, Declined)
    assert outcome.code == code


@pytest.mark.parametrize("code", ["06", "68", "91", "96", "98"])
async def test_a_code_that_decides_nothing_is_reversed(
    code: str, cards: Cards, ours: ChannelAccount
) -> None:
    placed = order_with(f"6251880000{code}00{code}")
    assert isinstance((await cards.pay(ours, placed)).outcome, Unknown)
    assert isinstance((await cards.close(ours, without_card(placed))).outcome, Closed)


async def test_any_card_beyond_the_test_bin_is_unknown_to_the_host(
    cards: Cards, ours: ChannelAccount
) -> None:
    outcome = (await cards.pay(ours, order_with("4111111111111111"))).outcome
    assert isinstance(outcome, Declined)
    assert outcome.code == "14"


async def test_not_enough_money_is_a_refusal(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    sandbox.post("cards/card", number=number, balance=1998)
    outcome = (await cards.pay(ours, order_with(number))).outcome
    assert isinstance(outcome, Declined)
    assert outcome.code == "51"
    assert money_on(sandbox, number) == (1998, 0)


@pytest.mark.parametrize("fault", [*SILENT, "slow:2"])
async def test_money_taken_without_a_good_answer_is_given_back_by_the_reversal(
    fault: str, cards: Cards, hasty: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number)
    sandbox.fault("cards", "pay", fault, number=trace_of(placed.number).reference)
    assert isinstance((await hasty.pay(ours, placed)).outcome, Unknown)
    assert await comes_to(sandbox, number, (BALANCE - 1999, 0)), "a time-out was no failure"

    for _ in range(3):
        assert (await cards.close(ours, without_card(placed))).outcome == Closed("00")
    assert money_on(sandbox, number) == (BALANCE, 0)


@pytest.mark.parametrize(
    ("amount", "is_taken"),
    [
        (77701, True),
        (77702, False),
        (77703, True),
        (77704, True),
        (77705, True),
        (77706, True),
        (77707, True),
    ],
)
async def test_magic_amounts_lose_the_answer(
    amount: int,
    is_taken: bool,
    cards: Cards,
    hasty: Cards,
    ours: ChannelAccount,
    sandbox: RunningSandbox,
) -> None:
    number = fresh_card()
    placed = order_with(number, amount)
    assert isinstance((await hasty.pay(ours, placed)).outcome, Unknown)
    assert await comes_to(sandbox, number, (BALANCE - amount * is_taken, 0))

    closed = (await cards.close(ours, without_card(placed))).outcome
    assert isinstance(closed, Closed if is_taken else Absent)
    assert money_on(sandbox, number) == (BALANCE, 0)


async def test_a_doubled_answer_is_one(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    assert isinstance((await cards.pay(ours, order_with(number, 77710))).outcome, Succeeded)
    assert isinstance((await cards.pay(ours, order_with(number, 1))).outcome, Succeeded)
    assert money_on(sandbox, number) == (BALANCE - 77711, 0)


async def test_a_slow_answer_holds_up_no_other(
    ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    cards = Cards(LineLimits(lines_max=1))
    slow = order_with(fresh_card())
    sandbox.fault("cards", "pay", "slow:4", number=trace_of(slow.number).reference)
    waiting = asyncio.create_task(cards.pay(ours, slow))
    await asyncio.sleep(0.1)
    quick = [await cards.pay(ours, order_with(fresh_card())) for _ in range(3)]
    assert not waiting.done()
    assert all(isinstance(answer.outcome, Succeeded) for answer in quick)
    assert isinstance((await waiting).outcome, Succeeded)
    await cards.shut()


@pytest.mark.parametrize("fault", ["time_out_done", "bad_signature_done", "reset_mid_frame_done"])
async def test_a_reversal_whose_answer_is_lost_is_repeated_and_gives_back_once(
    fault: str, cards: Cards, hasty: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number)
    await cards.pay(ours, placed)
    sandbox.fault("cards", "close", fault, number=trace_of(placed.number).reference)
    assert isinstance((await hasty.close(ours, without_card(placed))).outcome, Unknown)
    assert (await cards.close(ours, without_card(placed))).outcome == Closed("00")
    assert money_on(sandbox, number) == (BALANCE, 0)


async def test_a_reversal_that_overtakes_its_purchase_bars_it(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number)
    assert (await cards.close(ours, without_card(placed))).outcome == Absent("25")
    assert isinstance((await cards.pay(ours, placed)).outcome, Unknown)
    assert money_on(sandbox, number) == (BALANCE, 0)


async def test_a_sweep_of_reversals_leaves_nothing_taken(
    cards: Cards, hasty: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    """Every way of losing an answer, at once, on shared connections; then every one reversed."""
    number = fresh_card()
    faults = [*SILENT, "time_out_unpaid", "slow:3", "reset"] * 3
    placed = [order_with(number, 100 + at) for at in range(len(faults))]
    for one, fault in zip(placed, faults, strict=True):
        sandbox.fault("cards", "pay", fault, number=trace_of(one.number).reference)
    answers = await asyncio.gather(*(hasty.pay(ours, one) for one in placed))
    assert not any(isinstance(answer.outcome, Succeeded | Declined) for answer in answers)

    open_ones = placed
    for _ in range(10):
        closed = await asyncio.gather(*(cards.close(ours, without_card(one)) for one in open_ones))
        open_ones = [
            one
            for one, answer in zip(open_ones, closed, strict=True)
            if not isinstance(answer.outcome, Closed | Absent)
        ]
        if not open_ones:
            break
    assert not open_ones
    assert money_on(sandbox, number) == (BALANCE, 0)


async def test_refunds_never_exceed_what_was_paid(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number)
    await cards.pay(ours, placed)
    first, second = refund_order(placed, 1500), refund_order(placed, 500)
    for _ in range(2):
        assert isinstance((await cards.refund(ours, first)).outcome, Succeeded)
    assert isinstance((await cards.query_refund(ours, first)).outcome, Succeeded)
    too_much = (await cards.refund(ours, second)).outcome
    assert isinstance(too_much, Declined)
    assert too_much.code == "64"
    assert money_on(sandbox, number) == (BALANCE - 499, 0)


@pytest.mark.parametrize("fault", ["time_out_done", "time_out_not_done", "bad_signature_done"])
async def test_a_refund_whose_answer_is_lost_is_made_once(
    fault: str, cards: Cards, hasty: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number)
    await cards.pay(ours, placed)
    refund = refund_order(placed, 500)
    sandbox.fault("cards", "refund", fault, number=trace_of(refund.number).reference)
    assert isinstance((await hasty.refund(ours, refund)).outcome, Unknown)
    assert isinstance((await cards.query_refund(ours, refund)).outcome, Succeeded)
    assert money_on(sandbox, number) == (BALANCE - 1499, 0)


async def held_order(
    cards: Cards, ours: ChannelAccount, number: str
) -> tuple[PayOrder, Authorised]:
    placed = order_with(number, 10_000, captures=False)
    held = (await cards.authorise(ours, placed)).outcome
    assert isinstance(held, Authorised)
    return placed, held


async def test_authorise_then_capture_less(
    cards: Cards, hasty: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed, held = await held_order(cards, ours, number)
    assert money_on(sandbox, number) == (BALANCE, 10_000)

    capture = Capture(
        base32(new_id()), without_card(placed), held.channel_ref, held.code, Money(9_000, "CNY")
    )
    sandbox.fault("cards", "capture", "time_out_done")
    assert isinstance((await hasty.capture(ours, capture)).outcome, Unknown)
    for _ in range(2):
        assert isinstance((await cards.query_capture(ours, capture)).outcome, Succeeded)
    assert money_on(sandbox, number) == (BALANCE - 9_000, 0)

    back = refund_order(placed, 4_000, order_number=capture.number, of_capture=True)
    as_purchase = refund_order(placed, 4_000, order_number=capture.number)
    assert isinstance((await cards.refund(ours, as_purchase)).outcome, Declined)
    for _ in range(2):
        assert isinstance((await cards.refund(ours, back)).outcome, Succeeded)
    assert money_on(sandbox, number) == (BALANCE - 5_000, 0)


@pytest.mark.parametrize(("amount", "code"), [(10_001, "64"), (10_000, "12")])
async def test_a_capture_of_too_much_or_without_its_code_is_refused(
    amount: int, code: str, cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed, held = await held_order(cards, ours, number)
    named = held.code if code == "64" else "999999"
    capture = Capture(base32(new_id()), placed, held.channel_ref, named, Money(amount, "CNY"))
    outcome = (await cards.capture(ours, capture)).outcome
    assert isinstance(outcome, Declined)
    assert outcome.code == code
    assert money_on(sandbox, number) == (BALANCE, 10_000)


async def test_a_void_frees_what_was_set_aside_and_a_repeat_says_so_again(
    cards: Cards, hasty: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed, held = await held_order(cards, ours, number)
    voiding = Voiding(
        base32(new_id()), without_card(placed), held.channel_ref, held.code, placed.money
    )
    sandbox.fault("cards", "void", "time_out_done")
    assert isinstance((await hasty.void(ours, voiding)).outcome, Unknown)
    assert (await cards.void(ours, voiding)).outcome == Closed("00")
    assert money_on(sandbox, number) == (BALANCE, 0)


async def test_an_authorisation_without_an_answer_is_reversed(
    cards: Cards, hasty: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number, 77701, captures=False)
    assert isinstance((await hasty.authorise(ours, placed)).outcome, Unknown)
    assert await comes_to(sandbox, number, (BALANCE, 77701))
    assert (await cards.close(ours, without_card(placed))).outcome == Closed("00")
    assert money_on(sandbox, number) == (BALANCE, 0)


async def test_a_purchase_is_cancelled_whole(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    placed = order_with(number)
    await cards.pay(ours, placed)
    voiding = Voiding(base32(new_id()), without_card(placed), "", None, placed.money)
    assert (await cards.void(ours, voiding)).outcome == Closed("00")
    assert money_on(sandbox, number) == (BALANCE, 0)


async def test_a_pin_is_checked_by_the_issuer(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    codes = []
    for pin in ("123456", "000000", "000000", "000000"):
        block = bytes.fromhex(sandbox.post("cards/pin-pad", number=number, pin=pin)["pin_block"])
        outcome = (await cards.pay(ours, order(card=card(number, pin_block=block)))).outcome
        codes.append(outcome.code if isinstance(outcome, Declined) else "00")
    assert codes == ["00", "55", "55", "75"]


async def test_a_balance_is_what_the_card_has(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    await held_order(cards, ours, number)
    told = (await cards.balance(ours, base32(new_id()), card(number))).outcome
    assert isinstance(told, BalanceKnown)
    assert [one.amount for one in told.balances] == [BALANCE, BALANCE - 10_000]
    assert money_on(sandbox, number) == (BALANCE, 10_000)


async def test_totals_agree_with_what_was_done(
    cards: Cards, hasty: Cards, fresh_sandbox: RunningSandbox
) -> None:
    ours = account_at(fresh_sandbox)
    number = fresh_card()
    paid = order_with(number, 1000)
    undone = order_with(number, 77701)
    await cards.pay(ours, paid)
    await hasty.pay(ours, undone)
    assert await comes_to(fresh_sandbox, number, (BALANCE - 78701, 0))
    await cards.close(ours, undone)
    await cards.refund(ours, refund_order(paid, 300))
    first, figures = base32(new_id()), Totals(1, 1000, 1, 300)
    told = await cards.compare_totals(ours, first, figures)
    assert told.outcome == TotalsAgree()
    told = await cards.compare_totals(ours, first, figures)
    assert told.outcome == TotalsAgree(), "a repeat is the same question about the same batch"
    await cards.pay(ours, order_with(number, 500))
    told = await cards.compare_totals(ours, base32(new_id()), Totals(2, 1500, 1, 300))
    assert told.outcome == TotalsDiffer(Totals(1, 500, 0, 0)), "the first batch is closed"


@pytest.mark.parametrize("fault", ["refused", "wrong_check_value", "time_out", "reset"])
async def test_a_sign_in_that_goes_wrong_sends_nothing(
    fault: str, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    hasty = Cards(LineLimits(sign_in_s=0.5))
    patient = Cards()
    number = fresh_card()
    sandbox.fault("cards", "sign_in", fault)
    assert isinstance((await hasty.pay(ours, order_with(number))).outcome, NotSent)
    assert isinstance((await patient.pay(ours, order_with(number))).outcome, Succeeded)
    assert money_on(sandbox, number) == (BALANCE - 1999, 0)
    await hasty.shut()
    await patient.shut()


@pytest.mark.parametrize("changes", [{"master_key": "00" * 16}, {"mac": "x9.19"}])
async def test_another_key_or_mac_than_the_hosts_takes_no_money(
    changes: dict[str, str], cards: Cards, sandbox: RunningSandbox
) -> None:
    number = fresh_card()
    outcome = (await cards.pay(account_at(sandbox, **changes), order_with(number))).outcome
    assert isinstance(outcome, NotSent | Unknown)
    assert money_on(sandbox, number) == (BALANCE, 0)


@pytest.mark.parametrize(("cipher", "mac"), [("sm4", "ecb"), ("3des", "x9.19")])
async def test_the_other_ciphers_and_macs_take_money_too(
    cipher: str, mac: str, cards: Cards, sandbox: RunningSandbox
) -> None:
    sandbox.post("settings", **{"cards.cipher": cipher, "cards.mac": mac})
    try:
        ours = account_at(sandbox, cipher=cipher, mac=mac)
        assert isinstance((await cards.pay(ours, order_with(fresh_card()))).outcome, Succeeded)
    finally:
        sandbox.post("settings", **{"cards.cipher": "3des", "cards.mac": "ecb"})


async def test_connections_dropped_by_the_host_are_opened_again(
    cards: Cards, ours: ChannelAccount, sandbox: RunningSandbox
) -> None:
    await cards.pay(ours, order_with(fresh_card()))
    assert sandbox.post("cards/hang-up")["closed"] >= 1
    async with asyncio.timeout(20):
        while True:  # until the end of the connection has come through, a call may be Unknown
            outcome = (await cards.pay(ours, order_with(fresh_card()))).outcome
            if isinstance(outcome, Succeeded):
                break
            assert isinstance(outcome, Unknown)


async def test_no_file_of_the_sandbox_holds_a_card_number(
    cards: Cards, fresh_sandbox: RunningSandbox
) -> None:
    ours = account_at(fresh_sandbox)
    number = fresh_card()
    placed = order_with(number)
    await cards.pay(ours, placed)
    await cards.close(ours, placed)
    await cards.balance(ours, base32(new_id()), card(number))
    assert fresh_sandbox.get("cards/entries")[0]["state"] == "reversed"
    shown = str(fresh_sandbox.get("requests")) + str(fresh_sandbox.get("cards/entries"))
    files = [path for path in fresh_sandbox.data_dir.rglob("*") if Path(path).is_file()]
    assert files
    assert number not in shown
    assert not any(number.encode() in path.read_bytes() for path in files)
