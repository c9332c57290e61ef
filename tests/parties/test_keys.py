"""API keys: made once, shown once, replaced with an overlap, revoked at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.infra.signed_client import SignedClient
from tests.parties.conftest import LICENCE, MakeClient, new_merchant
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, SealUnreadable
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.identity import keys as keys_module
from tongbao.parties.identity import queries
from tongbao.parties.identity.keys import KeysOnRecord, create_key, revoke_key, roll_key
from tongbao.parties.identity.model import (
    SCOPES,
    KeyEnded,
    KeyNotFound,
    NewKey,
    OverlapTooLong,
    ScopeUnknown,
    check_scopes,
    scopes_under,
)
from tongbao.parties.merchants.model import Merchant


@pytest.fixture
async def key(db: Db, keyring: Keyring, merchant: Merchant) -> NewKey:
    async with db.begin("test") as tx:
        return await create_key(
            tx,
            keyring,
            merchant.id,
            Mode.SANDBOX,
            licence=LICENCE,
            name="till",
            scopes=["payments:write", "payments:read", "payments:read"],
        )


def holder(app: App, new: NewKey) -> SignedClient:
    return SignedClient(app, show("key", new.key.id), new.secret.reveal())


async def test_a_secret_says_its_mode_and_is_stored_sealed(
    db: Db, keyring: Keyring, merchant: Merchant
) -> None:
    for mode in Mode:
        async with db.begin("test") as tx:
            new = await create_key(
                tx, keyring, merchant.id, mode, licence=LICENCE, name="k", scopes=["events:read"]
            )
        secret = new.secret.reveal()
        assert secret.startswith(f"sk_{mode.value}_")
        assert len(secret) > 45
        assert new.key.secret_tail == secret[-4:]
        assert secret not in repr(new)
        [row] = await db.fetch("select * from api_key where id = $1", (new.key.id,))
        assert secret.encode() not in row["secret_sealed"]


async def test_scopes_are_sorted_and_known(key: NewKey) -> None:
    assert key.key.scopes == ["payments:read", "payments:write"]


@pytest.mark.parametrize("scopes", [[], ["payments:all"], ["payments:read", ""]])
def test_a_key_can_be_allowed_only_what_exists(scopes: list[str]) -> None:
    with pytest.raises(ScopeUnknown):
        check_scopes(scopes, LICENCE)


def test_an_aggregators_keys_know_no_wallets() -> None:
    licensed = set(SCOPES) - set(scopes_under(Licence.AGGREGATOR))

    assert licensed == {
        *("wallets:read", "wallets:write", "red_packets:read", "red_packets:write"),
        *("transfers:read", "transfers:write", "settlements:write", "commissions:read"),
        *("vault:read", "vault:write", "user_wallets:read", "user_wallets:write"),
    }
    with pytest.raises(ScopeUnknown):
        check_scopes(["wallets:read"], Licence.AGGREGATOR)


async def test_a_key_is_found_with_its_merchants_book_of_the_mode(
    db: Db, keyring: Keyring, merchant: Merchant, key: NewKey
) -> None:
    found = await KeysOnRecord(db, keyring).find(key.key.id)

    assert found is not None
    assert found.secret == key.secret
    assert found.caller.merchant_id == merchant.id
    assert found.caller.book == merchant.sandbox_book == 2
    assert found.caller.scopes == {"payments:read", "payments:write"}
    assert not found.revoked


async def test_a_secret_moved_to_another_row_does_not_open(
    db: Db, keyring: Keyring, merchant: Merchant, key: NewKey
) -> None:
    async with db.begin("test") as tx:
        other = await create_key(
            tx, keyring, merchant.id, Mode.LIVE, licence=LICENCE, name="k", scopes=["events:read"]
        )
    await db.execute(
        "update api_key set secret_sealed = $2 where id = $1",
        (other.key.id, key.key.secret_sealed),
    )

    with pytest.raises(SealUnreadable):
        await KeysOnRecord(db, keyring).find(other.key.id)


async def test_a_rolled_key_stays_good_until_its_overlap_ends(
    db: Db, keyring: Keyring, key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with db.begin("test") as tx:
        new = await roll_key(tx, keyring, key.key, overlap=timedelta(hours=1))
    on_record = KeysOnRecord(db, keyring)
    during = [await on_record.find(each.key.id) for each in (key, new)]
    monkeypatch.setattr(keys_module, "real_now", lambda: real_now() + timedelta(hours=1, seconds=1))
    after = [await on_record.find(each.key.id) for each in (key, new)]

    assert [found.revoked for found in during if found] == [False, False]
    assert [found.revoked for found in after if found] == [True, False]
    assert new.key.scopes == key.key.scopes
    assert new.secret != key.secret


async def test_business_time_ends_no_key(db: Db, keyring: Keyring, key: NewKey) -> None:
    async with db.begin("test") as tx:
        await roll_key(tx, keyring, key.key, overlap=timedelta(hours=1))
    db.clock.offset = timedelta(days=2)

    found = await KeysOnRecord(db, keyring).find(key.key.id)

    assert found is not None
    assert not found.revoked


async def test_without_overlap_the_old_key_ends_at_once(
    db: Db, keyring: Keyring, key: NewKey, app: App
) -> None:
    async with db.begin("test") as tx:
        await roll_key(tx, keyring, key.key, overlap=timedelta())

    assert (await holder(app, key).get("/v1/merchant")).code == "auth.key_revoked"
    async with db.begin("test") as tx:
        with pytest.raises(KeyEnded):
            await roll_key(tx, keyring, key.key, overlap=timedelta())


async def test_a_second_roll_never_keeps_the_old_key_longer(
    db: Db, keyring: Keyring, key: NewKey
) -> None:
    async with db.begin("test") as tx:
        await roll_key(tx, keyring, key.key, overlap=timedelta(hours=1))
        first = await queries.key_of_merchant(tx, key.key.id, key.key.merchant_id, Mode.SANDBOX)
        await roll_key(tx, keyring, key.key, overlap=timedelta(days=1))
        second = await queries.key_of_merchant(tx, key.key.id, key.key.merchant_id, Mode.SANDBOX)

    assert first.expires_at == second.expires_at


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
async def test_an_overlap_has_limits(
    db: Db, keyring: Keyring, key: NewKey, overlap: timedelta
) -> None:
    async with db.begin("test") as tx:
        with pytest.raises(OverlapTooLong):
            await roll_key(tx, keyring, key.key, overlap=overlap)


async def test_a_waiting_roll_sees_the_revocation_it_waited_for(
    db: Db, keyring: Keyring, key: NewKey
) -> None:
    """Forced interleaving on the key's row."""

    async def roll() -> None:
        async with db.begin("second") as tx:
            await roll_key(tx, keyring, key.key, overlap=timedelta(hours=1))

    async with db.begin("first") as tx:
        await revoke_key(tx, key.key.merchant_id, Mode.SANDBOX, key.key.id)
        waiting = asyncio.create_task(roll())
        await asyncio.sleep(0.05)
        assert not waiting.done()

    with pytest.raises(KeyEnded):
        await waiting


async def test_a_revoked_key_is_refused_from_then_on(client: SignedClient, db: Db) -> None:
    before = await client.get("/v1/merchant")
    ended = await client.post(f"/v1/api_keys/{client.key_id}/revoke")
    after = await client.get("/v1/merchant")

    assert (before.status, ended.status) == (200, 200)
    assert ended.json["is_good"] is False
    assert (after.status, after.code) == (401, "auth.key_revoked")


async def test_revoking_again_changes_nothing(db: Db, key: NewKey) -> None:
    times = []
    for _ in range(2):
        async with db.begin("test") as tx:
            ended = await revoke_key(tx, key.key.merchant_id, Mode.SANDBOX, key.key.id)
        times.append(ended.revoked_at)

    assert times[0] == times[1] is not None


async def test_rolling_over_http_shows_the_secret_once(client: SignedClient, app: App) -> None:
    target = f"/v1/api_keys/{client.key_id}/roll"
    rolled = await client.post(target, {"overlap_s": 60}, key="r")
    again = await client.post(target, {"overlap_s": 60}, key="r")
    listed = await client.get("/v1/api_keys")

    successor = SignedClient(app, rolled.json["id"], rolled.json["secret"])
    assert (await successor.get("/v1/merchant")).status == 200
    assert "secret" not in again.json
    assert again.headers["idempotency-replayed"] == "true"
    assert [each["id"] for each in listed.json["items"]] == [rolled.json["id"], client.key_id]
    assert listed.json["items"][1]["replaced_by"] == rolled.json["id"]
    assert "secret" not in str(listed.json).replace("secret_tail", "")


async def test_a_key_cannot_get_more_rights_by_rolling_another(make_client: MakeClient) -> None:
    strong = await make_client()
    weak = await make_client(scopes=["api_keys:write", "api_keys:read"])

    refused = await weak.post(f"/v1/api_keys/{strong.key_id}/roll", {}, key="a")
    allowed = await strong.post(f"/v1/api_keys/{weak.key_id}/roll", {}, key="a")

    assert (refused.status, refused.code) == (403, "api_key.scopes_exceed_own")
    assert allowed.status == 201


async def test_keys_are_listed_page_by_page(
    db: Db, keyring: Keyring, merchant: Merchant, make_client: MakeClient
) -> None:
    ids = [(await make_client()).key_id for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = await queries.keys_of_merchant(db, merchant.id, Mode.SANDBOX, cursor=cursor, limit=2)
        seen += [show("key", each.id) for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == ids[::-1]


async def test_another_merchants_key_and_another_modes_are_as_unknown_as_none(
    db: Db, keyring: Keyring, make_client: MakeClient, merchant: Merchant
) -> None:
    mine = await make_client()
    live = await make_client(mode=Mode.LIVE)
    theirs = await make_client(of=await new_merchant(db, keyring, "Other Shop"))

    for client in (live, theirs):
        for reply in (
            await client.get(f"/v1/api_keys/{mine.key_id}"),
            await client.post(f"/v1/api_keys/{mine.key_id}/revoke"),
            await client.post(f"/v1/api_keys/{mine.key_id}/roll", {}, key="a"),
        ):
            assert (reply.status, reply.code) == (404, "api_key.not_found")
    assert (await mine.get(f"/v1/api_keys/{mine.key_id}")).status == 200
    with pytest.raises(KeyNotFound):
        async with db.begin("test") as tx:
            await revoke_key(tx, merchant.id, Mode.LIVE, parse("key", mine.key_id))


async def test_use_is_noted_to_the_hour(
    client: SignedClient, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def noted() -> object:
        [row] = await db.fetch("select last_used_at from api_key", ())
        return row["last_used_at"]

    assert await noted() is None
    await client.get("/v1/merchant")
    first = await noted()
    await client.get("/v1/merchant")
    same_hour = await noted()
    monkeypatch.setattr(keys_module, "real_now", lambda: real_now() + timedelta(minutes=61))
    await client.get("/v1/merchant")

    assert first is not None
    assert same_hour == first
    assert await noted() > first


async def test_every_act_on_a_key_is_in_the_audit_log(
    db: Db, keyring: Keyring, key: NewKey
) -> None:
    async with db.begin("alice") as tx:
        await roll_key(tx, keyring, key.key, overlap=timedelta(hours=1))
        await revoke_key(tx, key.key.merchant_id, Mode.SANDBOX, key.key.id)

    entries = await audit.entries_of_subject(db, show("key", key.key.id))

    assert [entry.action for entry in entries] == [
        "api_key.created",
        "api_key.rolled",
        "api_key.revoked",
    ]
    assert key.secret.reveal() not in str(entries)
