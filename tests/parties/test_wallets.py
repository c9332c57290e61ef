"""The own wallets: opened, topped up, spent from once per code, frozen, and absent elsewhere."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.infra.signed_client import SignedClient
from tests.parties.conftest import MakeClient, assembled, new_merchant
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.infra.serving.app import App, RouteWithoutScope
from tongbao.infra.web import idempotency
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.rules import posting
from tongbao.parties.accounts import api as accounts_api
from tongbao.parties.accounts import queries
from tongbao.parties.accounts.model import (
    CODE_LIFE,
    CodeUsedOrExpired,
    DailyLimitExceeded,
    HolderNameInvalid,
    ShownCode,
    Wallet,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletState,
    is_wallet_code,
    masked_name,
    new_code,
)
from tongbao.parties.accounts.payment_codes import find_code, prune_codes, show_code, use_code_write
from tongbao.parties.accounts.wallets import account_of, open_wallet, set_frozen, spend_write
from tongbao.parties.merchants.model import Merchant


@pytest.fixture
def caller(merchant: Merchant) -> Caller:
    return Caller(new_id(), merchant.id, Mode.SANDBOX, merchant.book(Mode.SANDBOX), frozenset())


@pytest.fixture
async def wallet(db: Db, caller: Caller) -> Wallet:
    async with db.begin("test") as tx:
        return await open_wallet(tx, caller, holder_name="张三", daily_limit=1_000)


@pytest.fixture
async def shown(db: Db, keyring: Keyring, wallet: Wallet) -> ShownCode:
    async with db.begin("test") as tx:
        return await show_code(tx, keyring, wallet)


async def scanned(db: Db, keyring: Keyring, wallet: Wallet, code: str) -> Wallet:
    _, found = await find_code(
        db, keyring, code, book=wallet.book, mode=wallet.mode, now=db.clock.now()
    )
    return found


@pytest.mark.parametrize(
    ("name", "shown"), [("张三", "*三"), ("欧阳修文", "***文"), ("Li", "*i"), ("李", "*")]
)
def test_of_a_name_the_last_character_is_kept(name: str, shown: str) -> None:
    assert masked_name(f" {name} ") == shown


@pytest.mark.parametrize("name", ["", "   ", "x" * 65])
def test_a_name_has_a_length(name: str) -> None:
    with pytest.raises(HolderNameInvalid):
        masked_name(name)


def test_codes_look_like_ours_and_like_nobody_elses() -> None:
    codes = {new_code() for _ in range(200)}

    assert len(codes) == 200
    assert all(is_wallet_code(code) for code in codes)
    for other in ("134567890123456789", "281234567890123456", "88", "8" * 19, "88" + "x" * 16):
        assert not is_wallet_code(other)
    assert not is_wallet_code("８" * 18)


@given(st.integers(1, 3_000), st.integers(0, 1_000), st.booleans())
def test_the_limit_is_of_one_day(amount: int, spent: int, same_day: bool) -> None:
    today, noon = date(2026, 11, 21), datetime(2026, 11, 21, 4, tzinfo=UTC)
    wallet = Wallet(
        2, new_id(), new_id(), Mode.LIVE, "*三", "CNY", WalletState.ACTIVE, 1_000,
        today if same_day else today - timedelta(days=1), spent, real_now(), None,
    )  # fmt: skip
    allowed = amount <= 1_000 - (spent if same_day else 0)

    if allowed:
        wallet.check_may_spend(Money(amount, "CNY"), noon)
    else:
        with pytest.raises(DailyLimitExceeded):
            wallet.check_may_spend(Money(amount, "CNY"), noon)
    with pytest.raises(WalletCurrencyDiffers):
        wallet.check_may_spend(Money(1, "HKD"), noon)


async def test_a_shown_code_leads_to_its_wallet_and_is_kept_as_a_hash(
    db: Db, keyring: Keyring, wallet: Wallet, shown: ShownCode
) -> None:
    assert await scanned(db, keyring, wallet, shown.code) == wallet
    [row] = await db.fetch("select * from payment_code", ())
    assert shown.code not in str(dict(row))
    assert shown.expires_at - row["created_at"] == CODE_LIFE


async def test_a_code_ends_after_a_minute_of_business_time(
    db: Db, keyring: Keyring, wallet: Wallet, shown: ShownCode
) -> None:
    code, _ = await find_code(
        db, keyring, shown.code, book=wallet.book, mode=wallet.mode, now=db.clock.now()
    )
    db.clock.offset = CODE_LIFE

    with pytest.raises(CodeUsedOrExpired):
        await scanned(db, keyring, wallet, shown.code)
    async with db.begin("test") as tx:
        assert await use_code_write(code, new_id(), tx.now).run(tx) == 0


async def test_a_code_of_another_world_is_no_code(
    db: Db, keyring: Keyring, wallet: Wallet, shown: ShownCode
) -> None:
    now = db.clock.now()
    with pytest.raises(CodeUsedOrExpired):
        await find_code(db, keyring, shown.code, book=wallet.book, mode=Mode.LIVE, now=now)
    with pytest.raises(CodeUsedOrExpired):
        await find_code(db, keyring, shown.code, book=1, mode=wallet.mode, now=now)
    for text in (new_code(), "", "88", "€" * 18):
        with pytest.raises(CodeUsedOrExpired):
            await scanned(db, keyring, wallet, text)


async def test_a_code_pays_once(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, shown: ShownCode
) -> None:
    await fund(ledger, wallet, 500)
    payments = [await payment(db, keyring, wallet, shown.code, 100) for _ in range(2)]

    results = [(await ledger.submit([group]))[0] for group in payments]

    assert [result.status for result in results] == ["created", "refused"]
    assert results[1].code == "wallet.code_used_or_expired"
    assert (await queries.wallet_balance(db, wallet)).available == 400
    with pytest.raises(CodeUsedOrExpired):
        await scanned(db, keyring, wallet, shown.code)


async def test_of_two_payments_with_one_code_at_once_one_is_refused(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, shown: ShownCode
) -> None:
    await fund(ledger, wallet, 500)
    payments = [await payment(db, keyring, wallet, shown.code, 100) for _ in range(4)]

    results = await asyncio.gather(*[ledger.submit([group]) for group in payments])

    assert sorted(result.status for [result] in results) == ["created"] + ["refused"] * 3
    assert (await queries.wallet_balance(db, wallet)).available == 400


async def test_a_waiting_payment_finds_the_code_used_by_the_one_it_waited_for(
    db: Db, keyring: Keyring, wallet: Wallet, shown: ShownCode
) -> None:
    """Forced interleaving on the code's row."""
    now = db.clock.now()
    code, _ = await find_code(db, keyring, shown.code, book=wallet.book, mode=wallet.mode, now=now)

    async def second() -> int:
        async with db.begin("second") as tx:
            return await use_code_write(code, new_id(), now).run(tx)

    async with db.begin("first") as tx:
        assert await use_code_write(code, new_id(), now).run(tx) == 1
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()

    assert await waiting == 0


@pytest.mark.parametrize("together", [False, True])
async def test_what_comes_late_from_the_day_before_counts_against_this_one(
    db: Db, wallet: Wallet, together: bool
) -> None:
    """Who read the clock before midnight may write after somebody who read it later."""

    async def spend(amount: int, now: datetime) -> int:
        write = spend_write(wallet.book, wallet.id, Money(amount, "CNY"), now)
        async with db.begin("test") as tx:
            if together:
                return await write.statement.run_set(tx, [write.args])
            return await write.run(tx)

    now = db.clock.now()
    yesterday = now - timedelta(days=1)
    spent = [await spend(*each) for each in [(700, now), (200, yesterday), (200, now), (100, now)]]
    assert spent == [1, 1, 0, 1]


async def test_a_refused_payment_leaves_the_code_and_the_limit_as_they_were(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, shown: ShownCode
) -> None:
    """There is no money in the wallet: the whole group is undone."""
    [result] = await ledger.submit([await payment(db, keyring, wallet, shown.code, 100)])

    assert (result.status, result.code) == ("refused", "ledger.exceeds_balance")
    assert (await scanned(db, keyring, wallet, shown.code)).spent == 0


async def test_the_limit_holds_and_begins_anew_each_day(db: Db, wallet: Wallet) -> None:
    async def spend(amount: int) -> int:
        async with db.begin("test") as tx:
            return await spend_write(wallet.book, wallet.id, Money(amount, "CNY"), tx.now).run(tx)

    assert [await spend(600), await spend(400), await spend(1)] == [1, 1, 0]
    db.clock.offset = timedelta(days=1)
    assert [await spend(1_001), await spend(1_000), await spend(1)] == [0, 1, 0]


async def test_a_waiting_payment_sees_the_limit_used_by_the_one_it_waited_for(
    db: Db, wallet: Wallet
) -> None:
    """Forced interleaving on the wallet's row: 600 and 600 of 1000."""

    async def second() -> int:
        async with db.begin("second") as tx:
            return await spend_write(wallet.book, wallet.id, Money(600, "CNY"), tx.now).run(tx)

    async with db.begin("first") as tx:
        assert await spend_write(wallet.book, wallet.id, Money(600, "CNY"), tx.now).run(tx) == 1
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()

    assert await waiting == 0


async def test_a_frozen_wallet_spends_nothing_and_shows_no_code(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet
) -> None:
    await fund(ledger, wallet, 100)
    async with db.begin("test") as tx:
        frozen = await set_frozen(tx, wallet, frozen=True)
        assert await spend_write(wallet.book, wallet.id, Money(1, "CNY"), tx.now).run(tx) == 0
        with pytest.raises(WalletFrozen):
            await show_code(tx, keyring, frozen)
        with pytest.raises(WalletFrozen):
            frozen.check_may_spend(Money(1, "CNY"), db.clock.now())
    await fund(ledger, wallet, 50)  # money may still come in
    async with db.begin("test") as tx:
        active = await set_frozen(tx, wallet, frozen=False)

    active.check_may_spend(Money(1, "CNY"), db.clock.now())
    assert (await queries.wallet_balance(db, wallet)).posted == 150


async def test_unused_codes_are_forgotten_used_ones_are_evidence(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, shown: ShownCode
) -> None:
    await fund(ledger, wallet, 100)
    await ledger.submit([await payment(db, keyring, wallet, shown.code, 100)])
    async with db.begin("test") as tx:
        await show_code(tx, keyring, wallet)
    db.clock.offset = 3 * CODE_LIFE

    await prune_codes(db)

    [row] = await db.fetch("select used_by from payment_code", ())
    assert row["used_by"] is not None


async def test_a_wallet_over_http(client: SignedClient) -> None:
    opened = await client.post("/v1/wallets", {"holder_name": "王小明"}, key="w")
    wallet_id = opened.json["id"]
    topped = await client.post(
        f"/v1/test_helpers/wallets/{wallet_id}/top_up", {"amount": 10_000}, key="t"
    )
    again = await client.post(
        f"/v1/test_helpers/wallets/{wallet_id}/top_up", {"amount": 10_000}, key="t"
    )
    code = await client.post(f"/v1/wallets/{wallet_id}/payment_codes")
    shown = await client.get(f"/v1/wallets/{wallet_id}")
    listed = await client.get("/v1/wallets?limit=1")

    assert opened.status == topped.status == code.status == 201
    assert opened.json["holder_name"] == "**明"
    assert topped.json["id"].startswith("top_")
    assert again.json == topped.json
    assert is_wallet_code(code.json["code"])
    assert (shown.json["balance"], shown.json["available"]) == (10_000, 10_000)
    assert [each["id"] for each in listed.json["items"]] == [wallet_id]


async def test_freezing_over_http(client: SignedClient) -> None:
    opened = await client.post("/v1/wallets", {"holder_name": "王小明"}, key="w")
    wallet = f"/v1/wallets/{opened.json['id']}"

    frozen = await client.post(f"{wallet}/freeze")
    refused = await client.post(f"{wallet}/payment_codes")
    active = await client.post(f"{wallet}/unfreeze")

    assert (frozen.status, frozen.json["status"]) == (200, "frozen")
    assert (refused.status, refused.code) == (409, "wallet.frozen")
    assert active.json["status"] == "active"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"amount": 0}, "money.amount_out_of_range"),
        ({"amount": -5}, "money.amount_out_of_range"),
        ({"amount": 10**30}, "money.amount_out_of_range"),
        ({"amount": "5"}, "request.wrong_type"),
        ({"amount": 5, "currency": "XYZ"}, "money.unknown_currency"),
        ({"amount": 5, "currency": "HKD"}, "wallet.currency_differs"),
    ],
)
async def test_a_bad_top_up_moves_nothing(
    client: SignedClient, body: dict[str, object], code: str
) -> None:
    opened = await client.post("/v1/wallets", {"holder_name": "王小明"}, key="w")
    wallet_id = opened.json["id"]

    refused = await client.post(f"/v1/test_helpers/wallets/{wallet_id}/top_up", body, key="t")

    assert refused.code == code
    assert (await client.get(f"/v1/wallets/{wallet_id}")).json["balance"] == 0


async def test_nobody_tops_up_with_a_live_key(make_client: MakeClient) -> None:
    live = await make_client(mode=Mode.LIVE)
    opened = await live.post("/v1/wallets", {"holder_name": "王小明"}, key="w")

    refused = await live.post(
        f"/v1/test_helpers/wallets/{opened.json['id']}/top_up", {"amount": 1}, key="t"
    )

    assert (refused.status, refused.code) == (403, "auth.sandbox_only")


async def test_a_top_up_whose_answer_was_lost_in_a_crash_is_found_again(
    client: SignedClient, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await client.post("/v1/wallets", {"holder_name": "王小明"}, key="w")
    wallet = f"/v1/wallets/{opened.json['id']}"
    target = f"/v1/test_helpers/wallets/{opened.json['id']}/top_up"
    arm("wallets.after_top_up:raise")
    with pytest.raises(SimulatedCrash):
        await client.post(target, {"amount": 700}, key="t")
    arm(None)
    early = await client.post(target, {"amount": 700}, key="t")
    moved = real_now() + idempotency.LEASE + timedelta(seconds=1)
    monkeypatch.setattr(idempotency, "real_now", lambda: moved)

    found = await client.post(target, {"amount": 700}, key="t")

    assert (early.status, early.code) == (409, "idempotency.in_flight")
    assert (found.status, found.json["amount"]) == (201, 700)
    assert (await client.get(wallet)).json["balance"] == 700
    [event] = await db.fetch("select type, resource_id from event", ())
    assert (event["type"], event["resource_id"]) == ("wallet.topped_up", found.json["id"])


async def test_another_merchants_wallet_and_another_modes_are_as_unknown_as_none(
    db: Db, keyring: Keyring, make_client: MakeClient
) -> None:
    mine = await make_client()
    opened = await mine.post("/v1/wallets", {"holder_name": "王小明"}, key="w")
    wallet_id = opened.json["id"]
    strangers = [
        await make_client(mode=Mode.LIVE),
        await make_client(of=await new_merchant(db, keyring, "Other Shop")),
    ]

    for stranger in strangers:
        for reply in (
            await stranger.get(f"/v1/wallets/{wallet_id}"),
            await stranger.post(f"/v1/wallets/{wallet_id}/payment_codes"),
            await stranger.post(f"/v1/wallets/{wallet_id}/freeze"),
        ):
            assert (reply.status, reply.code) == (404, "wallet.not_found")
        assert (await stranger.get("/v1/wallets")).json["items"] == []
    unknown = await mine.get(f"/v1/wallets/{show('wal', new_id())}")
    assert (unknown.status, unknown.code) == (404, "wallet.not_found")


async def test_an_aggregator_has_neither_the_routes_nor_the_tables(
    db: Db, keyring: Keyring, ledger: Ledger, app: App, make_db: object
) -> None:
    licensed = {operation.path for operation in app.operations}
    aggregator = {
        operation.path
        for operation in assembled(db, keyring, ledger, Licence.AGGREGATOR).operations
    }
    other = await make_db(licence=Licence.AGGREGATOR)
    tables = await other.fetch(
        "select relname from pg_class where relname in ('wallet', 'payment_code', 'offline_key')",
        (),
    )

    assert licensed - aggregator == {
        operation.path
        for operation in app.operations
        if "wallet" in operation.path or "offline_key" in operation.path
    }
    assert not any("wallet" in path or "offline_key" in path for path in aggregator)
    assert not tables


def test_a_wallet_route_cannot_slip_into_an_aggregator(
    db: Db, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_api, "routes", lambda licence: accounts_api.ROUTES)

    with pytest.raises(RouteWithoutScope):
        assembled(db, keyring, Ledger(db, Licence.AGGREGATOR), Licence.AGGREGATOR)


async def fund(ledger: Ledger, wallet: Wallet, amount: int) -> None:
    reference = new_id()
    transfers = posting.transfers(
        "wallet.topped_up",
        reference=reference,
        accounts={"wallet": account_of(wallet)},
        amounts={"amount": Money(amount, "CNY")},
    )
    [result] = await ledger.submit([Group(reference, wallet.book, transfers)])
    assert result.status == "created"


async def payment(db: Db, keyring: Keyring, wallet: Wallet, code: str, amount: int) -> Group:
    """A payment by wallet as payments will post it."""
    payment_id: UUID = new_id()
    now = db.clock.now()
    found, _ = await find_code(db, keyring, code, book=wallet.book, mode=wallet.mode, now=now)
    money = Money(amount, "CNY")
    return Group(
        id=payment_id,
        book=wallet.book,
        transfers=posting.transfers(
            "payment.captured_by_wallet",
            reference=payment_id,
            accounts={
                "wallet": account_of(wallet),
                "merchant_payable": AccountKey("merchant_payable", "CNY", wallet.merchant_id),
            },
            amounts={"gross": money, "fee": Money(0, "CNY")},
        ),
        companions=(
            use_code_write(found, payment_id, now),
            spend_write(wallet.book, wallet.id, money, now),
        ),
    )
