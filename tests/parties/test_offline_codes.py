"""Codes made without network: the formula, the phone's keys, and a code that pays once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.infra.signed_client import SignedClient
from tests.parties.conftest import MakeClient, new_merchant
from tests.parties.test_wallets import fund
from tongbao.infra.crypto import Keyring, SealUnreadable
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, Result
from tongbao.ledger.rules import posting
from tongbao.parties.accounts.model import CodeUsedOrExpired, Wallet, WalletFrozen
from tongbao.parties.accounts.queries import wallet_balance
from tongbao.parties.accounts.wallets import account_of, open_wallet, set_frozen
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.offline_codes import keys, model
from tongbao.parties.offline_codes.codes import code_writes, find_offline_code
from tongbao.parties.offline_codes.keys import (
    AliasesTaken,
    GivenKey,
    give_key,
    key_of_wallet,
    revoke_key,
    secret_of,
    status_of,
)
from tongbao.parties.offline_codes.model import (
    KEY_LIFE,
    KEYS_MAX,
    MISSES_MAX,
    OVERLAP,
    STALE_STEPS,
    STEP_S,
    OfflineKeyNotFound,
    OfflineKeysTooMany,
    OfflineKeyStopped,
    code_of,
    is_late,
    is_offline_code,
    number_of,
    step_at,
    step_shown,
)
from tongbao_sdk.offline_codes import OfflineWallet, hmac_sm3, one_time_number, sm3

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors/offline_codes/offline_codes.json").read_text()
)["vectors"]
NOON = datetime(2026, 11, 22, 4, 0, 10, tzinfo=UTC)
SECRET = bytes(range(32))


@pytest.fixture
def caller(merchant: Merchant) -> Caller:
    return Caller(new_id(), merchant.id, Mode.SANDBOX, merchant.book(Mode.SANDBOX), frozenset())


@pytest.fixture
async def wallet(db: Db, caller: Caller, ledger: Ledger) -> Wallet:
    async with db.begin("test") as tx:
        opened = await open_wallet(tx, caller, holder_name="张三")
    await fund(ledger, opened, 1_000_000)
    return opened


@pytest.fixture
async def given_key(db: Db, keyring: Keyring, wallet: Wallet) -> GivenKey:
    return await give(db, keyring, wallet)


async def give(db: Db, keyring: Keyring, wallet: Wallet, **more: UUID) -> GivenKey:
    async with db.begin("test") as tx:
        return await give_key(tx, keyring, wallet, key_id=new_id(), device_name="phone", **more)


def shown(given: GivenKey, at: datetime, steps: int = 0) -> str:
    return code_of(bytes.fromhex(given.secret.reveal()), given.key.alias, step_at(at) + steps)


def wrong(given: GivenKey, at: datetime) -> str:
    """A code of the key's alias with a number that was not, is not and will not be soon."""
    near = {shown(given, at, step)[-7:] for step in range(-STALE_STEPS - 1, 3)}
    number = next(f"{n:07}" for n in range(500) if f"{n:07}" not in near)
    return f"89{given.key.alias}{number}"


async def pay(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, text: str, *, at: datetime,
    amount: int = 100,
) -> Result:  # fmt: skip
    """A payment by wallet as payments post it."""
    now, payment_id, money = db.clock.now(), new_id(), Money(amount, "CNY")
    code = await find_offline_code(db, keyring, text, book=wallet.book, mode=wallet.mode, at=at)
    payable = AccountKey("merchant_payable", "CNY", wallet.merchant_id)
    transfers = posting.transfers(
        "payment.captured_by_wallet",
        reference=payment_id,
        accounts={"wallet": account_of(wallet), "merchant_payable": payable},
        amounts={"gross": money, "fee": Money(0, "CNY")},
    )
    writes = code_writes(code, payment_id, money, now)
    [result] = await ledger.submit([Group(payment_id, wallet.book, transfers, writes)])
    return result


# --- the formula ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row["code"])
def test_both_sides_make_the_codes_of_the_vectors(row: dict[str, str]) -> None:
    secret, alias, step = bytes.fromhex(row["secret"]), row["alias"], int(row["step"])
    message = b"PAY1" + alias.encode() + step.to_bytes(8, "big")

    assert hmac_sm3(secret, message).hex() == row["hmac_sm3"]
    assert one_time_number(secret, alias, step) == number_of(secret, alias, step) == row["number"]
    assert code_of(secret, alias, step) == row["code"]
    assert step_at(datetime.fromtimestamp(int(row["unix_time"]), UTC)) == step
    assert is_offline_code(row["code"])


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=200))
def test_the_phones_sm3_is_the_librarys(key: bytes, message: bytes) -> None:
    assert sm3(message) == hashlib.new("sm3", message).digest()
    assert hmac_sm3(key, message) == hmac.digest(key, message, "sm3")


@given(st.integers(-STALE_STEPS - 5, 5))
def test_a_code_pays_in_its_step_and_one_beside_it(steps: int) -> None:
    code = code_of(SECRET, "123456789", step_at(NOON) + steps)
    found = step_shown(SECRET, code, NOON)

    assert (found == step_at(NOON) + steps) == (abs(steps) <= 1)
    assert is_late(SECRET, code, NOON) == (-STALE_STEPS <= steps < -1)


def test_a_phone_with_a_wrong_clock_makes_right_codes() -> None:
    key = {
        "secret": SECRET.hex(), "alias": "123456789", "prefix": "89", "digits": 7, "step_s": 30,
        "server_time": NOON.isoformat(),
    }  # fmt: skip
    phone = OfflineWallet(key, received_at=NOON.timestamp() + 7200)

    shown_then = phone.code(NOON.timestamp() + 7200 + 90)

    assert step_shown(SECRET, shown_then, NOON + timedelta(seconds=90)) == step_at(NOON) + 3
    assert phone.seconds_left(NOON.timestamp() + 7200) == 20
    assert SECRET.hex() not in repr(phone)


@pytest.mark.parametrize("text", ["", "89", "88" + "0" * 16, "8" * 19, "89" + "x" * 16, "８９" * 9])
def test_what_is_no_such_code_is_none(text: str) -> None:
    assert not is_offline_code(text)


# --- the phone's key ------------------------------------------------------------------------------


async def test_the_secret_is_kept_sealed_in_its_place(
    db: Db, keyring: Keyring, wallet: Wallet, given_key: GivenKey
) -> None:
    other = await give(db, keyring, wallet)
    key, secret = given_key.key, bytes.fromhex(given_key.secret.reveal())
    [row] = await db.fetch("select * from offline_key where id = $1", (key.id,))
    log = await db.fetch("select facts::text as facts from audit_entry", ())
    moved = model.OfflineKey(**{**dict(row), "id": other.key.id, "mode": Mode(row["mode"])})

    assert secret_of(keyring, key) == secret
    assert secret not in row["secret_sealed"]
    assert not any(secret.hex() in entry["facts"] for entry in log)
    assert key.secret_sealed.hex() not in repr(key)
    with pytest.raises(SealUnreadable):
        secret_of(keyring, moved)


async def test_a_key_that_takes_anothers_place_leaves_it_a_moment(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    newer = await give(db, keyring, wallet, replaces=given_key.key.id)
    old = await key_of_wallet(db, wallet, given_key.key.id)

    assert old.expires_at - newer.key.created_at == OVERLAP
    assert newer.key.alias != old.alias
    assert (await pay(db, keyring, ledger, wallet, shown(given_key, NOON), at=NOON)).happened
    db.clock.offset = OVERLAP
    with pytest.raises(OfflineKeyStopped):
        await pay(db, keyring, ledger, wallet, shown(given_key, NOON, 1), at=NOON)
    assert (await pay(db, keyring, ledger, wallet, shown(newer, NOON), at=NOON)).happened
    old = await key_of_wallet(db, wallet, given_key.key.id)
    assert status_of(old, db.clock.now()) == "expired"


async def test_a_key_is_over_after_a_day(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    db.clock.offset = KEY_LIFE

    with pytest.raises(OfflineKeyStopped):
        await pay(db, keyring, ledger, wallet, shown(given_key, NOON), at=NOON)


async def test_a_wallet_has_so_many_phones_and_a_frozen_one_gets_none(
    db: Db, keyring: Keyring, wallet: Wallet
) -> None:
    given = [await give(db, keyring, wallet) for _ in range(KEYS_MAX)]

    with pytest.raises(OfflineKeysTooMany):
        await give(db, keyring, wallet)
    await give(db, keyring, wallet, replaces=given[0].key.id)
    async with db.begin("test") as tx:
        await revoke_key(tx, given[1].key)
    await give(db, keyring, wallet)
    with pytest.raises(OfflineKeyNotFound):
        await give(db, keyring, wallet, replaces=new_id())
    async with db.begin("test") as tx:
        await set_frozen(tx, wallet, frozen=True)
    with pytest.raises(WalletFrozen):
        await give(db, keyring, wallet)


async def test_two_phones_at_once_cannot_both_be_the_last(
    db: Db, keyring: Keyring, wallet: Wallet
) -> None:
    """Forced interleaving on the wallet's row."""
    for _ in range(KEYS_MAX - 1):
        await give(db, keyring, wallet)
    async with db.begin("first") as tx:
        await give_key(tx, keyring, wallet, key_id=new_id(), device_name="first")
        waiting = asyncio.create_task(give(db, keyring, wallet))
        await asyncio.sleep(0.05)
        assert not waiting.done()

    with pytest.raises(OfflineKeysTooMany):
        await waiting


async def test_an_alias_is_given_out_once(
    db: Db, keyring: Keyring, wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["000000001", "000000001", "000000002"])
    monkeypatch.setattr(keys, "new_alias", lambda: next(drawn))
    first, second = [await give(db, keyring, wallet) for _ in range(2)]
    monkeypatch.setattr(keys, "new_alias", lambda: "000000001")

    assert (first.key.alias, second.key.alias) == ("000000001", "000000002")
    with pytest.raises(AliasesTaken):
        await give(db, keyring, wallet)


# --- paying ---------------------------------------------------------------------------------------


async def test_a_code_pays_once_and_the_next_one_pays_too(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    code = shown(given_key, NOON)

    assert (await pay(db, keyring, ledger, wallet, code, at=NOON)).happened
    with pytest.raises(CodeUsedOrExpired):
        await pay(db, keyring, ledger, wallet, code, at=NOON)
    later = await pay(db, keyring, ledger, wallet, shown(given_key, NOON, 1), at=NOON)

    assert later.happened
    assert (await wallet_balance(db, wallet)).posted == 1_000_000 - 200
    [row] = await db.fetch("select misses from offline_key", ())
    assert row["misses"] == 0, "a code that was used is no guess"


async def test_of_many_payments_with_one_code_at_once_one_happens(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    code = shown(given_key, NOON)
    asked = [pay(db, keyring, ledger, wallet, code, at=NOON) for _ in range(5)]

    results = await asyncio.gather(*asked, return_exceptions=True)

    happened = [each for each in results if isinstance(each, Result) and each.happened]
    others = [
        each.code if isinstance(each, Result) else getattr(each, "code", each)
        for each in results
        if each not in happened
    ]
    assert len(happened) == 1
    assert set(others) == {"wallet.code_used_or_expired"}
    assert (await wallet_balance(db, wallet)).posted == 1_000_000 - 100


async def test_a_refused_payment_leaves_the_code_and_the_allowance_as_they_were(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    limit = given_key.allowance.limit_each
    code = shown(given_key, NOON)

    refused = await pay(db, keyring, ledger, wallet, code, at=NOON, amount=limit + 1)
    accepted = await pay(db, keyring, ledger, wallet, code, at=NOON, amount=limit)

    assert (refused.status, refused.code) == ("refused", "offline_key.limit_exceeded")
    assert accepted.happened


async def test_a_day_without_network_has_a_limit_of_the_whole_wallet(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    """Another phone, or another key, does not begin anew."""
    other = await give(db, keyring, wallet)
    each, day = given_key.allowance.limit_each, given_key.allowance.limit_per_day
    amounts = [each] * (day // each) + [day % each or 1]
    shows = [given_key, other] * 3

    spent = [
        await pay(
            db, keyring, ledger, wallet, shown(shows[n], NOON, n // 2 - 1), at=NOON, amount=amount
        )
        for n, amount in enumerate(amounts)
    ]
    over = await pay(db, keyring, ledger, wallet, shown(other, NOON, 1), at=NOON, amount=each)

    assert all(result.happened for result in spent)
    assert (over.status, over.code) == ("refused", "offline_key.limit_exceeded")
    db.clock.offset = timedelta(hours=23, minutes=59)
    next_day = await pay(db, keyring, ledger, wallet, shown(other, NOON, 1), at=NOON, amount=each)
    assert next_day.happened


async def test_wrong_numbers_lock_the_key_and_late_ones_do_not(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    async def shows(code: str) -> None:
        with pytest.raises(CodeUsedOrExpired):
            await pay(db, keyring, ledger, wallet, code, at=NOON)

    for _ in range(MISSES_MAX + 1):
        await shows(shown(given_key, NOON, -5))
    for _ in range(MISSES_MAX - 1):
        await shows(wrong(given_key, NOON))
    assert (await pay(db, keyring, ledger, wallet, shown(given_key, NOON), at=NOON)).happened
    for _ in range(MISSES_MAX):
        await shows(wrong(given_key, NOON))

    with pytest.raises(OfflineKeyStopped):
        await pay(db, keyring, ledger, wallet, shown(given_key, NOON, 1), at=NOON)
    await shows(wrong(given_key, NOON))
    locked = await key_of_wallet(db, wallet, given_key.key.id)
    assert (locked.state, locked.misses) == ("locked", MISSES_MAX)


async def test_a_key_that_is_revoked_between_scan_and_commit_pays_nothing(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    """Forced interleaving on the key's row."""
    place = {"book": wallet.book, "mode": wallet.mode, "at": NOON}
    code = await find_offline_code(db, keyring, shown(given_key, NOON), **place)
    writes = code_writes(code, new_id(), Money(100, "CNY"), db.clock.now())

    async def second() -> list[int]:
        async with db.begin("payment") as tx:
            return [await write.run(tx) for write in writes]

    async with db.begin("owner") as tx:
        await revoke_key(tx, given_key.key)
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()

    assert (await waiting)[1] == 0, "the key is not held, which refuses the payment's group"


async def test_a_frozen_wallet_pays_nothing_without_network_either(
    db: Db, keyring: Keyring, ledger: Ledger, wallet: Wallet, given_key: GivenKey
) -> None:
    async with db.begin("test") as tx:
        await set_frozen(tx, wallet, frozen=True)

    refused = await pay(db, keyring, ledger, wallet, shown(given_key, NOON), at=NOON)

    assert (refused.status, refused.code) == ("refused", "wallet.spending_refused")


async def test_a_code_of_another_book_or_mode_is_no_code(
    db: Db, keyring: Keyring, wallet: Wallet, given_key: GivenKey
) -> None:
    code = shown(given_key, NOON)
    for book, mode in ((1, wallet.mode), (wallet.book, Mode.LIVE)):
        with pytest.raises(CodeUsedOrExpired):
            await find_offline_code(db, keyring, code, book=book, mode=mode, at=NOON)
    for text in ("", "88" + code[2:], "89" + "0" * 16):
        with pytest.raises(CodeUsedOrExpired):
            await find_offline_code(
                db, keyring, text, book=wallet.book, mode=wallet.mode, at=real_now()
            )


# --- over HTTP ------------------------------------------------------------------------------------


async def test_a_phones_key_over_http(client: SignedClient) -> None:
    opened = await client.post("/v1/wallets", {"holder_name": "王小明"}, key="w")
    path = f"/v1/wallets/{opened.json['id']}/offline_keys"

    given = await client.post(path, {"device_name": "phone"}, key="k")
    again = await client.post(path, {"device_name": "phone"}, key="k")
    listed = await client.get(f"{path}?limit=1")
    revoked = await client.post(f"/v1/offline_keys/{given.json['id']}/revoke")

    assert (given.status, again.status, revoked.status) == (201, 201, 200)
    assert len(bytes.fromhex(given.json["secret"])) == 32
    assert (given.json["step_s"], given.json["prefix"], given.json["digits"]) == (STEP_S, "89", 7)
    assert "secret" not in again.json
    assert again.json["alias"] == given.json["alias"]
    assert [each["id"] for each in listed.json["items"]] == [given.json["id"]]
    assert "secret" not in listed.json["items"][0]
    assert revoked.json["status"] == "revoked"


async def test_another_merchants_keys_are_as_unknown_as_none(
    db: Db, keyring: Keyring, make_client: MakeClient
) -> None:
    mine = await make_client()
    stranger = await make_client(of=await new_merchant(db, keyring, "Other Shop"))
    opened, theirs = [
        await each.post("/v1/wallets", {"holder_name": "王小明"}, key="w")
        for each in (mine, stranger)
    ]
    path = f"/v1/wallets/{opened.json['id']}/offline_keys"
    given = await mine.post(path, {"device_name": "phone"}, key="k")

    for reply in (
        await stranger.post(path, {"device_name": "phone"}, key="s"),
        await stranger.get(path),
    ):
        assert (reply.status, reply.code) == (404, "wallet.not_found")
    replaced = {"device_name": "phone", "replaces": given.json["id"]}
    for reply in (
        await stranger.post(f"/v1/offline_keys/{given.json['id']}/revoke"),
        await stranger.post(f"/v1/wallets/{theirs.json['id']}/offline_keys", replaced, key="r"),
    ):
        assert (reply.status, reply.code) == (404, "offline_key.not_found")
