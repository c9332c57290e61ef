"""Price plans: versions in force from their moment, fees worked out the same by everybody."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parties.conftest import MakeClient
from tongbao.infra.db import Db, write_all
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX, Money, UnknownCurrency
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.parties.merchants.model import Merchant, MerchantNotFound
from tongbao.parties.price_plans import queries
from tongbao.parties.price_plans.model import (
    CardKind,
    Charge,
    Inputs,
    PriceInThePast,
    PriceLine,
    PriceLinesInvalid,
    PriceNotAgreed,
    PricePlan,
    PriceStartTaken,
    Promotion,
    Quote,
    Step,
    check_lines,
    fee_back,
    plan_at,
    quote,
)
from tongbao.parties.price_plans.plans import set_price_plan

NOON = datetime(2026, 11, 21, 4, tzinfo=UTC)
DAY = date(2026, 11, 21)
LINES = [
    PriceLine("wechat_pay", "qr", 6_000),
    PriceLine("wechat_pay", "payment_code", 3_800, fixed=10, fee_min=20),
    PriceLine("alipay", "qr", 0),
]


def plan(version: int, valid_from: datetime, lines: list[PriceLine] = LINES) -> PricePlan:
    return PricePlan(
        new_id(), new_id(), Mode.LIVE, version, valid_from, "CNY", True, lines, NOON, "test"
    )


def fee(amount: int, channel: str = "wechat_pay", pay_mode: str = "qr") -> int:
    return quote(plan(1, NOON), Inputs(channel, pay_mode, Money(amount, "CNY"), DAY)).fee


def priced(line: PriceLine, amount: int = 10_000, day: date = DAY, volume: int = 0) -> Quote:
    return quote(plan(1, NOON, [line]), Inputs("cards", "card", Money(amount, "CNY"), day, volume))


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(1, 0), (83, 0), (84, 1), (100, 1), (250, 2), (10_000, 60), (AMOUNT_MAX, 54_000_000_000_000)],
)
def test_a_fee_is_rounded_half_up(amount: int, expected: int) -> None:
    """0.6 % of 83 fen is 0.498, of 84 fen 0.504; of 250 fen exactly 1.5."""
    assert fee(amount) == expected


def test_a_fixed_part_is_added_and_a_minimum_kept() -> None:
    assert fee(100_000, pay_mode="payment_code") == 390
    assert fee(1_000, pay_mode="payment_code") == 20


def test_a_fee_never_exceeds_the_payment() -> None:
    assert fee(5, pay_mode="payment_code") == 5


def test_free_is_a_price_and_absent_is_none() -> None:
    assert fee(10_000, "alipay") == 0
    with pytest.raises(PriceNotAgreed):
        fee(10_000, "alipay", "payment_code")
    with pytest.raises(PriceNotAgreed):
        quote(plan(1, NOON), Inputs("alipay", "qr", Money(1, "HKD"), DAY))
    with pytest.raises(PriceNotAgreed):
        quote(None, Inputs("alipay", "qr", Money(1, "CNY"), DAY))


@given(
    st.integers(1, AMOUNT_MAX),
    st.integers(0, 100_000),
    st.integers(0, 1_000),
    st.integers(0, 1_000),
    st.none() | st.integers(0, 1_000),
)
def test_a_fee_is_within_its_bounds(
    amount: int, rate_ppm: int, fixed: int, fee_min: int, above: int | None
) -> None:
    fee_max = None if above is None else fee_min + above

    found = Charge(rate_ppm, fixed, fee_min, fee_max).of(amount)

    assert 0 <= found <= amount
    assert fee_max is None or found <= fee_max
    exact = Fraction(amount * rate_ppm, 1_000_000) + fixed
    if fee_min < found < min(amount, amount if fee_max is None else fee_max):
        assert -Fraction(1, 2) < found - exact <= Fraction(1, 2)


def test_a_cap_holds_and_a_card_has_its_own_price() -> None:
    """Debit cards are capped in China; a card nobody knows the kind of pays the common price."""
    lines = [
        PriceLine("cards", "card", 6_000),
        PriceLine("cards", "card", 5_000, fee_max=2_000, card=CardKind.DEBIT),
    ]
    asked = Inputs("cards", "card", Money(1_000_000, "CNY"), DAY)

    unknown = quote(plan(1, NOON, lines), asked)
    debit = quote(plan(1, NOON, lines), Inputs(*asked_of(asked), card=CardKind.DEBIT))
    foreign = quote(plan(1, NOON, lines), Inputs(*asked_of(asked), card=CardKind.FOREIGN))

    assert (unknown.fee, unknown.card) == (6_000, CardKind.ANY)
    assert (debit.fee, debit.card) == (2_000, CardKind.DEBIT)
    assert foreign.fee == 6_000
    assert quote(plan(1, NOON, lines[:1]), asked).card is None


def asked_of(inputs: Inputs) -> tuple[str, str, Money, date]:
    return inputs.channel, inputs.pay_mode, inputs.money, inputs.day


def test_the_last_step_that_is_reached_charges_the_whole_payment() -> None:
    steps = (
        Step(5_000, amount_from=10_000),
        Step(4_000, amount_from=10_000, volume_from=1_000_000),
    )
    line = PriceLine("cards", "card", 6_000, steps=steps)

    found = [priced(line, 9_999), priced(line), priced(line, volume=999_999)]
    found += [priced(line, volume=1_000_000), priced(line, 9_999, volume=1_000_000)]

    assert [each.fee for each in found] == [60, 50, 50, 40, 60]
    assert [each.basis for each in found] == ["line", "step 1", "step 1", "step 2", "line"]
    assert [each.volume for each in found] == [0, 0, 999_999, 1_000_000, 1_000_000]


def test_a_promotion_holds_on_its_days_and_goes_before_every_step() -> None:
    promotion = Promotion(0, from_day=DAY, until_day=DAY + timedelta(days=2))
    line = PriceLine(
        "cards", "card", 6_000, steps=(Step(1, amount_from=1),), promotions=(promotion,)
    )
    days = [DAY + timedelta(days=n) for n in (-1, 0, 1, 2)]

    found = [priced(line, day=day) for day in days]

    assert [each.basis for each in found] == ["step 1", "promotion 1", "promotion 1", "step 1"]
    assert [each.volume for each in found] == [None] * 4


def test_a_line_says_itself_who_bears_the_fee_of_a_refund() -> None:
    kept = PriceLine("cards", "card", 6_000, refund_fee="kept")
    as_planned = PriceLine("cards", "card", 6_000)

    assert not priced(kept).refund_returns_fee
    assert priced(as_planned).refund_returns_fee


@pytest.mark.parametrize(
    "line",
    [
        PriceLine("cards", "card", 1, fee_min=2, fee_max=1),
        PriceLine("cards", "card", 1, steps=(Step(1),)),
        PriceLine("cards", "card", 1, steps=(Step(1, amount_from=2), Step(1, amount_from=1))),
        PriceLine("cards", "card", 1, steps=(Step(1, amount_from=2), Step(1, amount_from=2))),
        PriceLine("cards", "card", 1, promotions=(Promotion(1, from_day=DAY, until_day=DAY),)),
        PriceLine(
            "cards",
            "card",
            1,
            promotions=(
                Promotion(1, from_day=DAY, until_day=DAY + timedelta(days=2)),
                Promotion(1, from_day=DAY + timedelta(days=1), until_day=DAY + timedelta(days=3)),
            ),
        ),
    ],
)
def test_a_line_that_contradicts_itself_is_refused(line: PriceLine) -> None:
    with pytest.raises(PriceLinesInvalid):
        check_lines([line])


def test_each_version_is_in_force_until_the_next() -> None:
    """Half-open: the new price holds from its very first moment."""
    plans = [plan(2, NOON + timedelta(days=1)), plan(1, NOON)]

    assert plan_at(plans, NOON - timedelta(microseconds=1)) is None
    assert plan_at(plans, NOON) is plans[1]
    assert plan_at(plans, NOON + timedelta(hours=23)) is plans[1]
    assert plan_at(plans, NOON + timedelta(days=1)) is plans[0]


@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(1, 1_000), st.booleans()), min_size=1, max_size=8),
)
def test_refunds_give_the_whole_fee_back_and_never_more(
    fee: int, refunds: list[tuple[int, bool]]
) -> None:
    """However many there are, and whichever of them fail in between and give theirs up again."""
    captured = sum(amount for amount, _ in refunds)
    refunded = returned = 0
    for amount, fails in refunds:
        part = fee_back(fee, captured, refunded + amount, returned)
        assert 0 <= part <= fee - returned
        if not fails:
            refunded, returned = refunded + amount, returned + part

    rest = captured - refunded
    assert returned + (fee_back(fee, captured, captured, returned) if rest else 0) == fee


@given(st.integers(0, 10_000), st.lists(st.integers(1, 500), min_size=1, max_size=6))
def test_a_refund_gives_back_its_part_to_within_a_fen(fee: int, refunds: list[int]) -> None:
    captured, sums = sum(refunds), [0]
    for amount in refunds:
        sums.append(sums[-1] + amount)
    given = [fee * each // captured for each in sums]

    for (before, after), (low, high) in zip(pairwise(given), pairwise(sums), strict=True):
        assert fee_back(fee, captured, high, before) == after - before
        assert abs(after - before - Fraction(fee * (high - low), captured)) < 1


def test_more_than_captured_is_a_bug() -> None:
    with pytest.raises(ValueError, match="captured"):
        fee_back(10, 100, 101, 0)


async def test_plans_are_versioned_and_effective_from_their_moment(
    db: Db, merchant: Merchant
) -> None:
    async with db.begin("alice") as tx:
        now = await set_price_plan(tx, merchant.id, Mode.LIVE, LINES)
        later = await set_price_plan(
            tx,
            merchant.id,
            Mode.LIVE,
            LINES[:1],
            valid_from=tx.now + timedelta(days=7),
            refund_returns_fee=False,
        )
    at = queries.price_plan_at

    assert (now.version, later.version) == (1, 2)
    assert now.created_by == "alice"
    assert await at(db, merchant.id, Mode.LIVE, now.valid_from) == now
    assert await at(db, merchant.id, Mode.LIVE, later.valid_from) == later
    assert await at(db, merchant.id, Mode.LIVE, now.valid_from - timedelta(seconds=1)) is None
    assert await at(db, merchant.id, Mode.SANDBOX, later.valid_from) is None
    assert await queries.price_plans(db, merchant.id, Mode.LIVE) == [now, later]
    assert await queries.price_plan_version(db, merchant.id, Mode.LIVE, 2) == later
    assert sorted(now.lines, key=str) == sorted(LINES, key=str)


async def test_prices_are_agreed_for_the_future_only(db: Db, merchant: Merchant) -> None:
    async with db.begin("test") as tx:
        with pytest.raises(PriceInThePast):
            await set_price_plan(
                tx, merchant.id, Mode.LIVE, LINES, valid_from=tx.now - timedelta(seconds=1)
            )
        with pytest.raises(PriceLinesInvalid):
            await set_price_plan(tx, merchant.id, Mode.LIVE, [])
        with pytest.raises(PriceLinesInvalid):
            await set_price_plan(tx, merchant.id, Mode.LIVE, [LINES[0], LINES[0]])
        with pytest.raises(UnknownCurrency):
            await set_price_plan(tx, merchant.id, Mode.LIVE, LINES, currency="XXX")
        with pytest.raises(MerchantNotFound):
            await set_price_plan(tx, new_id(), Mode.LIVE, LINES)


async def test_two_versions_cannot_begin_at_one_moment(db: Db, merchant: Merchant) -> None:
    async with db.begin("test") as tx:
        at = tx.now + timedelta(days=1)
        await set_price_plan(tx, merchant.id, Mode.LIVE, LINES, valid_from=at)
        with pytest.raises(PriceStartTaken):
            await set_price_plan(tx, merchant.id, Mode.LIVE, LINES, valid_from=at)


async def test_a_waiting_plan_takes_the_version_after_the_one_it_waited_for(
    db: Db, merchant: Merchant
) -> None:
    """Forced interleaving on the merchant's row."""

    async def second() -> PricePlan:
        async with db.begin("second") as tx:
            return await set_price_plan(
                tx, merchant.id, Mode.LIVE, LINES, valid_from=tx.now + timedelta(days=1)
            )

    async with db.begin("first") as tx:
        first = await set_price_plan(tx, merchant.id, Mode.LIVE, LINES)
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()

    assert (first.version, (await waiting).version) == (1, 2)


async def test_a_months_volume_is_a_running_total(db: Db, merchant: Merchant) -> None:
    """Of one merchant, mode, currency and business month; asked only where the price counts it."""
    steps = (Step(3_000, volume_from=500),)
    async with db.begin("test") as tx:
        lines = [PriceLine("cards", "card", 6_000, steps=steps), LINES[0]]
        agreed = await set_price_plan(tx, merchant.id, Mode.SANDBOX, lines)
    whose = (SANDBOX_BOOK, merchant.id, Mode.SANDBOX)
    asked = Inputs("cards", "card", Money(10_000, "CNY"), DAY)
    found = [await queries.quote_with_volume(db, SANDBOX_BOOK, agreed, asked)]

    async def count(day: date, amount: int) -> None:
        async with db.begin("test") as tx:
            await write_all(tx, [queries.volume_write(*whose, ("CNY", day, amount))])

    await asyncio.gather(count(DAY, 300), count(DAY.replace(day=1), 199))
    await count(DAY - timedelta(days=31), 10_000)
    found.append(await queries.quote_with_volume(db, SANDBOX_BOOK, agreed, asked))
    await count(DAY, 1)
    found.append(await queries.quote_with_volume(db, SANDBOX_BOOK, agreed, asked))

    assert [(each.volume, each.fee) for each in found] == [(0, 60), (499, 60), (500, 30)]


async def test_a_merchant_sees_its_versions_and_what_a_payment_would_cost(
    db: Db, merchant: Merchant, make_client: MakeClient
) -> None:
    async with db.begin("test") as tx:
        await set_price_plan(tx, merchant.id, Mode.LIVE, LINES)
        later = tx.now + timedelta(days=1)
        await set_price_plan(tx, merchant.id, Mode.LIVE, LINES[:1], valid_from=later)
    live = await make_client(mode=Mode.LIVE)
    asked = "/v1/price-quote?channel=wechat_pay&pay_mode=qr&amount=10000"

    versions = (await live.get("/v1/price-plans")).json["items"]
    cost = (await live.get(asked)).json
    elsewhere = await (await make_client(mode=Mode.SANDBOX)).get(asked)
    nonsense = await live.get(asked.replace("10000", "-1"))

    assert [(each["version"], len(each["lines"])) for each in versions] == [(1, 3), (2, 1)]
    assert (cost["fee"], cost["plan_version"], cost["basis"]) == (60, 1, "line")
    assert cost["refund_returns_fee"]
    assert "month_volume" not in cost
    assert elsewhere.json["code"] == "price.not_agreed"
    assert nonsense.status == 400
