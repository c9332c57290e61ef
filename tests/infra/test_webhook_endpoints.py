"""Webhook endpoints: addresses that are let in, how many, whose they are, how they are kept."""

from __future__ import annotations

import asyncio
import base64

import pytest

from tests.infra import webhook_receiver
from tests.infra.webhook_receiver import DAY, LIVE, OWNER, RULES, STRANGER, endpoint, somebody_waits
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.webhooks import _store as store
from tongbao.infra.webhooks import deliveries, endpoints
from tongbao.infra.webhooks.model import (
    DeliveryUnknown,
    EndpointLimitReached,
    EndpointUnknown,
    EventTypeUnknown,
    UrlNotAllowed,
    WebhookRules,
    check_event_types,
    check_url,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode

keyring = webhook_receiver.keyring


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/hooks",
        "ftp://shop.example/hooks",
        "https://",
        "https://user:pass@shop.example/",
        "https://shop.example/#part",
        "https://shop.example:99999/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://shop.example/a b",
        "https://shop.example/\n",
        "https://商店.example/",
        "https://shop.example/" + "x" * 2048,
        "shop.example",
        "",
    ],
)
def test_live_endpoints_have_public_https_addresses(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        check_url(url, Mode.LIVE, RULES)


def test_loopback_is_for_sandbox_endpoints_where_it_is_allowed() -> None:
    for url in ("http://127.0.0.1:8000/", "http://localhost/x", "https://[::1]:9/"):
        check_url(url, Mode.SANDBOX, RULES)
        for mode, rules in (
            (Mode.LIVE, RULES),
            (Mode.SANDBOX, WebhookRules(RULES.event_types)),
        ):
            with pytest.raises(UrlNotAllowed):
                check_url(url, mode, rules)
    for mode in Mode:
        check_url("https://shop.example:8443/hooks?shop=1", mode, RULES)
    with pytest.raises(UrlNotAllowed):
        check_url("http://shop.example/", Mode.SANDBOX, RULES)


def test_a_filter_that_could_never_match_is_refused() -> None:
    known = RULES.event_types
    assert check_event_types(["cat.*", "dog.walked", "cat.*"], known) == ("cat.*", "dog.walked")
    assert check_event_types(["*"], known) == ("*",)
    for patterns in ([], ["cow.*"], ["cat"], ["cat.f*"], ["**"]):
        with pytest.raises(EventTypeUnknown):
            check_event_types(patterns, known)


async def test_a_merchant_has_at_most_16_endpoints_per_mode(db: Db, keyring: Keyring) -> None:
    made = [await endpoint(db, keyring, "https://shop.example/") for _ in range(16)]
    with pytest.raises(EndpointLimitReached):
        await endpoint(db, keyring, "https://shop.example/")
    await endpoint(db, keyring, "https://shop.example/", owner=LIVE)
    await endpoint(db, keyring, "https://shop.example/", owner=STRANGER)

    async with db.begin("merchant") as tx:
        await endpoints.delete_endpoint(tx, OWNER, made[3].endpoint.id)
    await endpoint(db, keyring, "https://shop.example/")
    assert len(await endpoints.endpoints_of(db, OWNER)) == 16


async def test_two_requests_for_the_last_place_get_one(db: Db, keyring: Keyring) -> None:
    for _ in range(15):
        await endpoint(db, keyring, "https://shop.example/")
    async with db.begin("one") as one:
        await endpoints.create_endpoint(
            one, keyring, RULES, OWNER, url="https://one.example/", event_types=["*"]
        )
        other = asyncio.create_task(endpoint(db, keyring, "https://other.example/"))
        await somebody_waits(db)
    with pytest.raises(EndpointLimitReached):
        await other
    assert len(await endpoints.endpoints_of(db, OWNER)) == 16


async def test_two_requests_for_two_places_get_both(db: Db, keyring: Keyring) -> None:
    async with db.begin("one") as one:
        await endpoints.create_endpoint(
            one, keyring, RULES, OWNER, url="https://one.example/", event_types=["*"]
        )
        other = asyncio.create_task(endpoint(db, keyring, "https://other.example/"))
        await somebody_waits(db)
    await other
    assert sorted(each.slot or 0 for each in await endpoints.endpoints_of(db, OWNER)) == [1, 2]


async def test_nobody_reaches_another_merchants_endpoint(db: Db, keyring: Keyring) -> None:
    made = (await endpoint(db, keyring, "https://shop.example/")).endpoint
    for owner in (STRANGER, LIVE):
        assert await endpoints.endpoints_of(db, owner) == []
        with pytest.raises(EndpointUnknown):
            await endpoints.endpoint_of(db, owner, made.id)
        with pytest.raises(EndpointUnknown):
            await deliveries.deliveries_of_endpoint(db, owner, made.id)
        async with db.begin("stranger") as tx:
            for act in (
                endpoints.update_endpoint(tx, RULES, owner, made.id, url="https://x.example/"),
                endpoints.rotate_key(tx, keyring, owner, made.id, overlap=DAY),
                endpoints.enable_endpoint(tx, owner, made.id),
                endpoints.disable_endpoint(tx, owner, made.id),
                endpoints.delete_endpoint(tx, owner, made.id),
                deliveries.send_test(tx, owner, made.id, note=""),
                deliveries.replay_range(tx, owner, made.id, since=tx.now, until=tx.now),
            ):
                with pytest.raises(EndpointUnknown):
                    await act
            with pytest.raises(DeliveryUnknown):
                await deliveries.replay_delivery(tx, owner, new_id())


async def test_secrets_are_stored_sealed_and_acts_are_audited(db: Db, keyring: Keyring) -> None:
    issued = await endpoint(db, keyring, "https://shop.example/")
    assert issued.secret.reveal() not in repr(issued)
    (key,) = await store.KEYS_IN_USE.all(db, [issued.endpoint.id], db.clock.now())
    shared = base64.b64decode(issued.secret.reveal().removeprefix("whsec_"))
    assert shared not in key.sealed
    opened = endpoints.opened_key(keyring, key)
    assert opened.shared == shared
    assert opened.public_text == issued.public_key

    async with db.begin("merchant") as tx:
        await endpoints.update_endpoint(
            tx, RULES, OWNER, issued.endpoint.id, event_types=["cat.fed"], description="shop"
        )
        await endpoints.disable_endpoint(tx, OWNER, issued.endpoint.id)
        await endpoints.disable_endpoint(tx, OWNER, issued.endpoint.id)
        await endpoints.enable_endpoint(tx, OWNER, issued.endpoint.id)
        await endpoints.delete_endpoint(tx, OWNER, issued.endpoint.id)
    entries = await audit.entries_of_subject(db, show("whe", issued.endpoint.id))
    acts = [entry.action.removeprefix("webhook_endpoint.") for entry in entries]
    assert acts == ["create", "update", "disable", "enable", "delete"]
    assert await endpoints.signing_keys_of(db, [issued.endpoint.id], real_now()) == {}
