"""A shop to which everything has happened that a merchant can see, and all the ids of it."""

from __future__ import annotations

from typing import Any

from tests.stage import Stage
from tongbao.surfaces.demo.stage import Shop


async def something_of_everything(stage: Stage, shop: Shop, hooks: str) -> dict[str, str]:
    """Make something of every kind, and return one id for each path parameter of the API."""
    client = stage.client_of(shop)
    endpoint = await stage.call(client.webhook_endpoints.create, hooks)
    wallet = await stage.call(client.wallets.open, holder_name="张三")
    await stage.call(client.wallets.top_up, wallet["id"], amount=10_000)
    shown = await stage.call(client.wallets.payment_code, wallet["id"])
    paid = await stage.scan_code(shown["code"], client=client)
    refund = await stage.refund(paid, 100, client=client)
    await stage.show_qr("wechat_pay", client=client)
    delivery = await stage.call(client.webhook_endpoints.test, endpoint["id"])
    other = await stage.call(client.api_keys.roll, shop.key_id, overlap_s=2_592_000)
    await stage.idle()
    return {
        "payment_id": paid["id"],
        "refund_id": refund["id"],
        "event_id": delivery["event_id"],
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "wallet_id": wallet["id"],
        "key_id": other["id"],
    }


async def snapshot(stage: Stage, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a digest of every table, so that a test can say that nothing has changed."""
    rows = await stage.db.fetch(
        "select tablename from pg_tables where schemaname = 'public' order by 1", ()
    )
    digests = {}
    for (table,) in rows:
        if table not in without:
            sql = f"select count(*), md5(string_agg(t::text, '|' order by t::text)) from {table} t"
            [digest] = await stage.db.fetch(sql, ())
            digests[table] = tuple(digest)
    return digests


PROOF_OF_CALLS = ("api_nonce", "api_key")
"""What every signed call leaves, refused or not: its nonce, and when the key was last used."""
