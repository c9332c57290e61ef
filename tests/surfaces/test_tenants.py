"""Two tenants on one platform: neither learns of the other, nor touches what is the other's."""

from __future__ import annotations

import re

import pytest

from tests.infra.signed_client import SignedClient
from tests.stage import Stage
from tests.surfaces.crawl import ID, crawl
from tests.surfaces.everything import (
    PROOF_OF_CALLS,
    snapshot,
    something_of_everything,
)
from tests.surfaces.receiver import receiving
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import create_key
from tongbao.parties.identity.model import scopes_under
from tongbao.surfaces.demo.stage import Shop

SHARED = {
    # One merchant is itself in both modes, and its test helpers are for its sandbox keys alone.
    "other mode": re.compile(r"is shown mch_|(/test_helpers/\S+|/replay) answered 403$"),
    "other merchant": re.compile(r"(?!)"),
}


async def live_key(stage: Stage, shop: Shop) -> Shop:
    """A key of the same merchant in its other mode."""
    licence = stage.platform.settings.licence
    async with stage.db.begin("operator") as tx:
        key = await create_key(
            tx,
            stage.platform.keyring,
            shop.merchant.id,
            Mode.LIVE,
            licence=licence,
            name="live",
            scopes=list(scopes_under(licence)),
        )
    return Shop(shop.merchant, show("key", key.key.id), key.secret)


@pytest.mark.parametrize("who", ["other merchant", "other mode"])
async def test_a_stranger_learns_nothing_and_changes_nothing(stage: Stage, who: str) -> None:
    """Every id the owner can see is tried at every route; the answers are those of made-up ids."""
    app = stage.app
    async with receiving() as receiver:
        await something_of_everything(stage, stage.shop, receiver.url)
        if who == "other merchant":
            other = await stage.open_shop()
            await something_of_everything(stage, other, receiver.url)
        else:
            other = await live_key(stage, stage.shop)
    owner = SignedClient(app, stage.shop.key_id, stage.shop.secret.reveal())
    stranger = SignedClient(app, other.key_id, other.secret.reveal())
    before = await snapshot(stage, without=PROOF_OF_CALLS)

    found = await crawl(app.document, owner, stranger)

    assert [each for each in found.breaches if not SHARED[who].search(each)] == []
    assert found.untried == set()
    assert await snapshot(stage, without=PROOF_OF_CALLS) == before


async def test_lists_show_the_callers_own_and_nothing_else(stage: Stage) -> None:
    app = stage.app
    async with receiving() as receiver:
        mine = await something_of_everything(stage, stage.shop, receiver.url)
        other = await stage.open_shop()
        theirs = await something_of_everything(stage, other, receiver.url)
    live = await live_key(stage, stage.shop)
    clients = {
        "mine": SignedClient(app, stage.shop.key_id, stage.shop.secret.reveal()),
        "theirs": SignedClient(app, other.key_id, other.secret.reveal()),
        "live": SignedClient(app, live.key_id, live.secret.reveal()),
    }
    lists = [
        path
        for path, verbs in app.document["paths"].items()
        if "get" in verbs and "{" not in path and "/test_helpers/" not in path
        if not any(each.get("required") for each in verbs["get"]["parameters"])  # it works out
    ]
    assert len(lists) >= 6

    shown: dict[str, set[str]] = {}
    for name, client in clients.items():
        replies = [await client.get(path) for path in lists]
        assert {reply.status for reply in replies} == {200}
        shown[name] = {each for reply in replies for each in ID.findall(reply.body.decode())}

    for one in (mine, theirs):
        del one["delivery_id"], one["offline_key_id"]  # listed below endpoint and wallet only
        del one["registration_id"], one["split_id"]  # below its application; below its payment
        del one["transfer_id"]  # below its batch
        del one["request_id"]  # by now far down in the log
        del one["image_id"]  # below its complaint only
    assert set(mine.values()) <= shown["mine"]
    assert set(theirs.values()) <= shown["theirs"]
    assert not shown["mine"] & shown["theirs"]
    own_calls = {each for each in shown["live"] if each.startswith("req_")}
    assert shown["live"] - own_calls == {live.key_id, show("mch", stage.shop.merchant.id)}


async def test_numbers_and_keys_of_a_stranger_are_free(stage: Stage) -> None:
    """Order numbers, refund numbers and idempotency keys belong to a merchant and a mode."""
    other = await stage.open_shop()
    client = stage.client_of(other)
    number = {"merchant_order_no": "SAME-1", "idempotency_key": "same"}

    mine = await stage.scan_code(await stage.wallet_code(), **number)
    wallet = await stage.call(client.wallets.open, holder_name="李四")
    await stage.call(client.wallets.top_up, wallet["id"], amount=10_000)
    shown = await stage.call(client.wallets.payment_code, wallet["id"])
    theirs = await stage.scan_code(shown["code"], client=client, **number)

    assert mine["id"] != theirs["id"]
    assert await stage.call(client.payments.find, "SAME-1") == theirs
    refund_no = {"merchant_refund_no": "SAME-R", "idempotency_key": "same"}
    mine_back = await stage.refund(mine, 1, **refund_no)
    theirs_back = await stage.refund(theirs, 1, client=client, **refund_no)
    assert mine_back["id"] != theirs_back["id"]
