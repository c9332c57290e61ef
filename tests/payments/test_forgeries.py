"""Forged callbacks are evidence, and no way to fill a disk."""

from __future__ import annotations

import httpx2 as httpx

from tests.stage import Stage
from tongbao.payments.callbacks import inbox


async def _address(stage: Stage) -> str:
    """The address of an account that has kept nothing so far."""
    await stage.platform.db.execute("delete from inbound_callback", ())
    [row] = await stage.platform.db.fetch(
        "select channel, notify_token from channel_account where channel = 'wechat_pay'", ()
    )
    return f"{stage.url}/callbacks/{row['channel']}/{row['notify_token']}"


async def _kept(stage: Stage) -> list[tuple[str, int]]:
    rows = await stage.platform.db.fetch(
        "select state, copies from inbound_callback order by copies", ()
    )
    return [(row["state"], row["copies"]) for row in rows]


async def test_a_forgery_that_comes_again_is_counted_and_not_kept_again(stage: Stage) -> None:
    address = await _address(stage)

    async with httpx.AsyncClient() as stranger:
        for body in (b"{}", b"{}", b"{ }"):
            reply = await stranger.post(address, content=body)
            assert reply.status_code >= 400

    assert await _kept(stage) == [("forged", 1), ("forged", 2)]


async def test_an_account_keeps_only_so_many_forgeries_a_day(stage: Stage, monkeypatch) -> None:
    monkeypatch.setattr(inbox, "_REFUSED_A_DAY_MAX", 3)
    address = await _address(stage)

    async with httpx.AsyncClient() as stranger:
        for number in range(6):
            reply = await stranger.post(address, content=b'{"n": %d}' % number)
            assert reply.status_code >= 400

    assert len(await _kept(stage)) == 3
