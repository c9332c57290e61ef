"""The crawl over the routes of parties, and that it sees a leak where there is one."""

from __future__ import annotations

import pytest
from litestar import get
from msgspec import Struct

from tests.parties.conftest import MakeClient, new_merchant
from tests.surfaces.crawl import crawl
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.web.caller import needs
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import KeysOnRecord
from tongbao.parties.identity.model import SCOPES
from tongbao.parties.merchants import queries


@pytest.mark.parametrize("other_mode", [False, True])
async def test_a_stranger_learns_nothing_by_any_id(
    app: App, db: Db, keyring: Keyring, make_client: MakeClient, other_mode: bool
) -> None:
    """The stranger is another merchant, or the same one in its other mode."""
    owner = await make_client()
    opened = await owner.post("/v1/wallets", {"holder_name": "张三"}, key="w")
    path = f"/v1/wallets/{opened.json['id']}/offline_keys"
    await owner.post(path, {"device_name": "phone"}, key="k")
    if other_mode:
        stranger = await make_client(mode=Mode.LIVE)
    else:
        stranger = await make_client(of=await new_merchant(db, keyring, "Other"))

    found = await crawl(app.document, owner, stranger)

    breaches = [
        each
        for each in found.breaches
        # A live key may not use test helpers at all, whosever the wallet is.
        if not (other_mode and "/test_helpers/" in each and each.endswith("answered 403"))
        # One merchant is itself in both modes.
        and not (other_mode and "is shown mch_" in each)
    ]
    assert breaches == []
    assert found.untried == set()
    assert found.probes["POST /v1/wallets/{wallet_id}/freeze"] == 1
    assert (await owner.get("/v1/wallets")).json["items"][0]["status"] == "active"


class Leak(Struct, frozen=True):
    """A merchant, told to anybody."""

    id: str
    name: str


@get("/v1/merchants/{merchant_id:str}", opt=needs("merchant:read"))
async def leak_merchant(merchant_id: str, db: Db) -> Leak:
    """Forget to ask whose it is."""
    merchant = await queries.merchant_with_id(db, parse("mch", merchant_id))
    return Leak(show("mch", merchant.id), merchant.name)


@get("/v1/mine", opt=needs("merchant:read"))
async def list_mine(db: Db, caller: object) -> list[str]:
    """Show the caller's own id."""
    return [show("mch", caller.merchant_id)]


async def test_the_crawl_sees_a_route_that_forgets_to_ask_whose_it_is(
    db: Db, keyring: Keyring, make_client: MakeClient
) -> None:
    facts = ApiFacts(
        title="", version="", description="", public_url="", docs_url="", scopes=SCOPES
    )
    app = App([leak_merchant, list_mine], db=db, keys=KeysOnRecord(db, keyring), facts=facts)
    owner = await make_client()
    stranger = await make_client(of=await new_merchant(db, keyring, "Other"))
    owner.app = stranger.app = app

    found = await crawl(app.document, owner, stranger)

    assert any("answered 200" in breach for breach in found.breaches)
