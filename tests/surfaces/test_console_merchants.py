"""Merchants with everything they run, who stands over them, and every list as a file."""

from __future__ import annotations

import csv
import io
import re

import pytest

from tests.stage import Stage, new_number
from tests.surfaces.everything import sell, take_on
from tests.surfaces.visitors import hire, reader
from tongbao.infra.db import Db
from tongbao.kernel.ids import show
from tongbao.parties.identity.model import Role
from tongbao.surfaces.list_files import clearing, parties

FORMULA = re.compile(r"[=+@\t\r]|-(?![0-9.]+$)")
EVERY = [each.name for each in (*parties.LISTS, *clearing.ALWAYS, *clearing.LICENSED)]


async def rows_of(db: Db, name: str) -> int:
    """How often a list was taken, by the audit log."""
    [row] = await db.fetch(
        "select count(*) as n from audit_entry where action = 'list.exported' and subject = $1",
        (name,),
    )
    return int(row["n"])


async def test_a_merchant_is_shown_with_what_it_runs_and_every_list_is_a_file(
    stage: Stage,
) -> None:
    client = stage.client_of(stage.shop)
    await stage.paid("alipay", 20_000)  # its fee is what an agent earns of
    wallet = await stage.call(client.wallets.open, holder_name="王五")
    await stage.call(client.wallets.top_up, wallet["id"], amount=100_000)
    await sell(stage, client, str(wallet["id"]))
    await stage.call(
        client.products.create,
        name="=1+1",
        skus=[
            {"code": new_number()[:16], "price": 990, "currency": "CNY", "name": "大", "stock": 7}
        ],
    )
    await take_on(stage, stage.shop)
    await stage.idle()
    own = f"/console/merchants/{show('mch', stage.shop.merchant.id)}"

    async with reader(stage, await hire(stage, Role.VIEWER, "viewer"), language="zh") as viewer:
        listed = await viewer.get("/console/merchants")
        assert f'href="{own}"' in listed.text
        found = await viewer.follow(await viewer.get(f"/console/merchants?q={own[-30:]}"))
        page = await viewer.get(f"{own}?mode=sandbox")
        for words in ("west", "Wensan Road 1", "老板", "139****5678", "小店", "大", "代理商：own"):
            assert words in page.text, words
        assert "13900005678" not in page.text
        assert "该环境下尚无门店" in found.text, "in the live mode it has none"
        agents = await viewer.get("/console/agents?mode=sandbox")
        assert "own" in agents.text
        assert (await viewer.get("/console/merchants?q=mch_1")).status_code == 404

        for name in EVERY:
            reply = await viewer.get(f"/console/{name}.csv")
            assert reply.headers["content-type"] == "text/csv; charset=utf-8", name
            lines = list(csv.reader(io.StringIO(reply.content.decode("utf-8-sig"))))
            assert len({len(line) for line in lines}) == 1, name
            cells = [cell for line in lines[1:] for cell in line]
            assert not [each for each in cells if FORMULA.match(each)], name
            assert await rows_of(stage.db, name) == 1
            if name in {"applications", "merchants", "agents"}:
                assert len(lines) > 1, name
        wrong = await viewer.get("/console/terminals.csv?status=lost")
        assert wrong.status_code == 400


async def test_a_file_has_every_page_of_its_list(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parties, "PAGE", 1)
    for _ in range(2):
        await stage.open_shop()
    async with reader(stage, await hire(stage)) as admin:
        reply = await admin.get("/console/merchants.csv")
    assert len(set(reply.text.splitlines())) == 1 + 3
