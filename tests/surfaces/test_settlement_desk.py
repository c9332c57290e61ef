"""The console's settlement room: batches, files and transfers, each let go by a second person."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import pytest

from tests.stage import Stage, new_number
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.clearing.settlement_batches.batches import draw_batch, open_batch, release_batch
from tongbao.clearing.settlement_terms.model import PaysBy, TermFigures
from tongbao.clearing.settlement_terms.queries import holds_of_merchant
from tongbao.clearing.settlement_terms.terms import NewTerms, set_terms
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Role

FILE = """number,destination,payee,name,bank,amount,note
1,bank,6222020200112230009,王五,,1.00,=HYPERLINK("x")
"""


@pytest.fixture
async def finance(stage: Stage) -> AsyncIterator[Reader]:
    async with reader(stage, await hire(stage, Role.FINANCE)) as one:
        yield one


async def test_a_batch_a_file_and_transfers_are_seen_exported_and_proposed(
    stage: Stage, finance: Reader
) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    day = business_date(stage.db.clock.now())
    async with stage.db.begin("tests") as tx:
        terms = TermFigures(pays_by=PaysBy.BANK_FILE)
        await set_terms(tx, NewTerms(shop.merchant.id, Mode.SANDBOX, day, terms))
    await stage.paid("alipay", 10_000, client=client)
    report = await stage.call(client.transfer_batches.send, new_number(), FILE.replace('"', "'"))
    assert report["batch"] is not None
    await stage.advance(days=1)
    async with stage.db.begin("tests") as tx:
        batch = await open_batch(tx, Mode.SANDBOX)
        await tx.execute("update settlement_batch set releases_itself = false", ())
    await draw_batch(stage.platform.clearing, batch.id)

    own = f"/console/settlement-batches/{show('sba', batch.id)}"
    for path in ("/console/settlement-batches?mode=sandbox&state=drawn", own, f"{own}/export"):
        page = await finance.get(path)
        assert page.status_code == 200, path
        assert "99.20" in page.text, path
    rows = list(csv.reader(io.StringIO((await finance.get(f"{own}/export")).text.lstrip("\ufeff"))))
    assert [row[10] for row in rows[1:]] == ["99.20"]
    await finance.get(own)
    proposed = await finance.send(f"{own}/release", reason="looked at it")
    assert "/console/inbox/apv_" in proposed.headers["location"]
    await finance.get(own)
    unsaid = await finance.send(f"{own}/drop", reason="x")
    assert unsaid.status_code == 400
    await stage.db.execute("update settlement_batch set releases_itself = true", ())
    await stage.db.execute("update settlement_batch set state = 'releasing'", ())
    await release_batch(stage.platform.clearing, batch.id)

    [settled] = await stage.call(lambda: list(client.settlements.list()))
    for layout in ("csv", "xlsx", "pdf"):
        paper = await finance.get(f"/console/settlements/{settled['id']}/paper/{layout}")
        assert paper.status_code == 200
        mine = await stage.call(client.settlements.statement, settled["id"], layout)
        assert len(mine["content"]) >= len(paper.content)
    await finance.get("/console/payout-files")
    made = await finance.send("/console/payout-files", mode="sandbox", currency="CNY",
                              layout="csv")  # fmt: skip
    assert made.status_code == 303
    page = await finance.get("/console/payout-files")
    assert "99.20" in page.text
    [file] = await stage.db.fetch("select id from payout_file", ())
    target = f"/console/payout-files/{show('pyf', file['id'])}"
    assert (await finance.get(f"{target}/content")).status_code == 409  # nobody has approved it
    await finance.get("/console/payout-files")
    sent = await finance.send(f"{target}/send", reason="today's file")
    assert "/console/inbox/apv_" in sent.headers["location"]

    page = await finance.get("/console/transfer-batches?state=listed")
    assert report["batch"]["number"] in page.text
    page = await finance.get(f"/console/transfer-batches/{report['batch']['id']}")
    assert "•••• 0009" in page.text
    assert "6222020200112230009" not in page.text
    refused = await finance.send(
        f"/console/transfer-batches/{report['batch']['id']}/release", reason="pay day"
    )
    assert refused.status_code == 422  # everything is settled: the balance does not cover it


async def test_terms_and_holds_are_seen_and_proposed(stage: Stage, finance: Reader) -> None:
    shop = await stage.open_shop()
    own = f"/console/settlement-terms/{show('mch', shop.merchant.id)}/sandbox"
    page = await finance.get("/console/settlement-terms?mode=sandbox")
    assert f'href="{own}"' in page.text
    assert "nothing agreed" in page.text
    today = business_date(stage.db.clock.now()).isoformat()
    figures = {"delay_days": "3", "counts": "working", "pays_by": "bank_file", "reason": "agreed"}

    await finance.get(own)
    odd = await finance.send(f"{own}/propose", valid_from=today, **figures, reserve_ppm="5")
    assert odd.status_code == 400  # a reserve without its days
    await finance.get(own)
    wrong = await finance.send(f"{own}/propose", valid_from=today, **figures, payable_min="x")
    assert wrong.status_code == 400
    await finance.get(own)
    sent = await finance.send(f"{own}/propose", valid_from=today, **figures)
    place = sent.headers["location"].partition("?")[0]
    assert "/console/inbox/apv_" in place
    assert "delay_days" in (await finance.get(place)).text
    assert place in (await finance.get(own)).text

    held = await finance.send(f"{own}/hold", amount="500", reason="a dispute <1>")
    page = await finance.follow(held)
    assert "a dispute &lt;1&gt;" in page.text
    [hold] = await holds_of_merchant(stage.db, shop.merchant.id, Mode.SANDBOX)
    assert (hold.amount, hold.lifted_at) == (500, None)
    lifted = await finance.send(f"/console/settlement-holds/{show('shd', hold.id)}/lift",
                                reason="the dispute is over")  # fmt: skip
    assert "/console/inbox/apv_" in lifted.headers["location"]
    [hold] = await holds_of_merchant(stage.db, shop.merchant.id, Mode.SANDBOX)
    assert hold.lifted_at is None  # nobody else has said so yet
    zh = await finance.get(f"{own}?lang=zh")
    assert zh.status_code == 200
