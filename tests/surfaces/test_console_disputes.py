"""The pages of disputes: entered by hand, seen, moved on, with files; debts given up by two."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.clearing.disputes import queries
from tongbao.clearing.disputes.evidence import HandIn, keep_file
from tongbao.clearing.disputes.model import Dispute, DisputeState
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.queries import ApprovalFilter, list_approvals
from tongbao.duties import approvals
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.ids import new_id, parse, show
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.parties.identity.model import Role
from tongbao.parties.merchants.merchants import SANDBOX_BOOK

PDF = b"%PDF-1.7 a receipt"


async def entered(stage: Stage, page: Reader, payment: Any, **more: str) -> Dispute:
    """A dispute that an operator has entered."""
    await page.get("/console/disputes")
    fields = {
        "payment": payment["id"],
        "stage": "chargeback",
        "scheme": "unionpay",
        "scheme_ref": f"CB{new_id().hex[:12]}",
        "reason_code": "4527",
        "reason": "no receipt <b>",
        "amount": "1999",
        "fee": "",
        **more,
    }
    sent = await page.send("/console/disputes/open", **fields)
    assert sent.status_code == 303, sent.text
    [dispute] = await queries.disputes_of_payment(stage.db, parse("pay", payment["id"]))
    return dispute


async def test_a_dispute_is_entered_found_moved_and_its_file_is_read(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 1999)
    async with reader(stage, await hire(stage, Role.FINANCE, "li.fang")) as page:
        dispute = await entered(stage, page, payment)
        own = f"/console/disputes/{show('dsp', dispute.id)}"
        file = await keep_file(
            stage.db,
            stage.platform.blobs,
            dispute,
            HandIn("小票 1.pdf", "application/pdf", PDF),
            actor="key",
            file_id=new_id(),
        )
        for query, is_there in (("", True), ("?due=30", True), ("?due=1", False), ("?q=no", False)):
            listed = (await page.get(f"/console/disputes{query}")).text
            assert (dispute.scheme_ref in listed) == is_there, query
        shown = await page.get(own)
        assert "no receipt &lt;b&gt;" in shown.text
        assert "25 calendar days" in shown.text, "the deadline names its source"
        taken = await page.get(f"{own}/files/{show('evf', file.id)}")
        assert taken.content == PDF
        assert "attachment" in taken.headers["content-disposition"]
        assert (await page.get(f"{own}/files/{show('evf', new_id())}")).status_code == 404
        await page.get(own)
        refused = await page.send(f"{own}/send_on", reason="no")
        assert refused.status_code == 400
        await page.get(own)
        assert (await page.send(f"{own}/send_on", reason="sent by the portal")).status_code == 303
        assert (await page.get("/console/disputes?due=999")).status_code == 400

    moved = await queries.dispute_with_id(stage.db, dispute.id)
    assert moved.state is DisputeState.REPRESENTED
    acts = [each.action for each in await entries_of_subject(stage.db, show("dsp", dispute.id))]
    assert acts == ["dispute.send_on"]


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_every_page_speaks_both_languages(stage: Stage, language: str) -> None:
    payment = await stage.paid("wechat_pay", 1999)
    number = (await stage.attempt_of(payment)).number
    await stage.control("wechat/complain", number=number, detail="没收到")
    await stage.idle()
    async with reader(stage, await hire(stage, login=f"who.{language}"), language=language) as page:
        dispute = await entered(stage, page, payment)
        listed = (await page.get("/console/disputes")).text
        assert ("Chargeback" if language == "en" else "拒付") in listed
        complaint = listed.partition("/console/complaints/")[2].partition('"')[0]
        assert "没收到" in (await page.get(f"/console/complaints/{complaint}")).text
        shown = await page.get(f"/console/disputes/{show('dsp', dispute.id)}")
        assert ("Set aside" if language == "en" else "已冻结") in shown.text


async def test_a_filters_disputes_are_a_file_without_formulas(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 1999)
    async with reader(stage, await hire(stage, Role.FINANCE)) as page:
        dispute = await entered(stage, page, payment, reason_code="=1+1", scheme="visa")
        listed = await page.get("/console/disputes?scheme=visa")
        file = await page.get("/console/disputes.csv?scheme=visa")
        others = await page.get("/console/disputes.csv?scheme=jcb")

    assert 'href="/console/disputes.csv?scheme=visa"' in listed.text
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    [row] = [line for line in file.text.splitlines() if dispute.scheme_ref in line]
    assert row.startswith(f"{show('dsp', dispute.id)},visa,{dispute.scheme_ref},'=1+1,chargeback,")
    assert f",{payment['id']},19.99,CNY," in row
    assert dispute.scheme_ref not in others.text


async def test_who_only_looks_cannot_move_anything(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 1999)
    async with reader(stage, await hire(stage, Role.FINANCE, "fi.fi")) as page:
        dispute = await entered(stage, page, payment)
    own = f"/console/disputes/{show('dsp', dispute.id)}"
    async with reader(stage, await hire(stage, Role.OPERATOR, "op.op")) as page:
        shown = await page.get(own)
        assert "/win" not in shown.text
        token = page.form("/console/logout").fields["form_token"]
        answer = await page.post(f"{own}/win", {"form_token": token, "reason": "because"})
        assert answer.status_code == 403
    assert (await queries.dispute_with_id(stage.db, dispute.id)).state is DisputeState.CHARGEBACK


async def test_a_debt_is_given_up_by_two_people_once(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    payment = await stage.paid("wechat_pay", 1999, client=client)
    maker, checker = (
        await hire(stage, Role.FINANCE, "mk.mk"),
        await hire(stage, Role.FINANCE, "ck.ck"),
    )
    async with reader(stage, maker) as page:
        await entered(stage, page, payment, fee="1000")
        await page.get("/console/disputes")
        address = f"/console/debts/{show('mch', shop.merchant.id)}/write-off"
        sent = await page.send(address, reason="the shop is gone")
        assert sent.status_code == 303, sent.text
    owed = await debt(stage, shop)
    assert owed > 1000
    [found] = (await list_approvals(stage.db, ApprovalFilter(act="merchant_debt.write_off"))).items
    acts = approvals(stage.flow, stage.platform.clearing).acts
    async with stage.db.begin(checker.login) as tx:
        await approve(
            tx, acts, found.id, digest=found.digest.hex(), may={"settlement_act"}, note=""
        )
    await stage.idle()
    assert await debt(stage, shop) == 0
    [lost] = await stage.db.fetch(
        "select (debits_posted - credits_posted)::bigint as amount from ledger_account"
        " where kind = 'bad_debt'",
        (),
    )
    assert lost["amount"] == owed


async def debt(stage: Stage, shop: Any) -> int:
    key = AccountKey("merchant_debt", "CNY", shop.merchant.id)
    return (await balance_of(stage.db, SANDBOX_BOOK, key)).posted
