"""Wallets as a service: a merchant's user opens one, and agrees to what is proposed."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.dying import dying
from tests.infra.signed_client import Reply, SignedClient
from tests.parties.card_people import resident_id
from tests.parties.phones import PASSWORD, Key, Phone, address
from tests.stage import Stage, new_number
from tests.surfaces.test_console_browser import FAINT, fits
from tests.surfaces.test_tenants import live_key
from tests.surfaces.test_wallet_app import SandboxOffice
from tests.surfaces.visitors import browsing, hire, reader
from tests.surfaces.wallet_users import RETURN, TERMS, Visitor, told
from tongbao.controls.approvals.approvals import approve, reject
from tongbao.controls.approvals.model import terms_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of, open_approval
from tongbao.infra.tasks import Lease
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication import passkeys
from tongbao.parties.authentication.passkeys import site_of
from tongbao.parties.people.consents import Draft, publish_text
from tongbao.parties.user_wallets import proposals
from tongbao.parties.user_wallets.applications import (
    ExpireApplication,
    leave,
    run_expire_application,
)
from tongbao.parties.user_wallets.changed_terms import CHANGE, change_terms
from tongbao.parties.user_wallets.model import ProgrammeState, ProgrammeUnchanged, Proposal
from tongbao.parties.user_wallets.programmes import (
    ProgrammeMove,
    move_programme,
    programme_of,
    propose_move,
)
from tongbao.parties.user_wallets.proposals import ExpireProposal, run_expire_proposal
from tongbao.parties.user_wallets.queries import (
    account_of_application,
    application_with_id,
    proposal_of_merchant,
)
from tongbao.surfaces.user_wallets.api import PAGES
from tongbao_sdk import Refused, Tongbao

_users = count(1)
_ids = count(500)


@pytest.fixture
async def stage(shared_stage: Stage) -> AsyncIterator[Stage]:
    await shared_stage.live_together()
    await shared_stage.call(shared_stage.client.wallet_programmes.set, **TERMS)
    yield shared_stage
    await shared_stage.db.fetch("delete from code_allowance", ())


def new_user() -> tuple[str, str]:
    """A user of the merchant's, and a phone that nobody has."""
    number = next(_users)
    return f"user-{number}", f"1381234{number:04d}"


async def applied(stage: Stage, user: str, client: Tongbao | None = None) -> tuple[Any, str]:
    """An application and a link to open it by."""
    asking = client or stage.client
    made = await stage.call(asking.wallet_applications.create, user)
    link = await stage.call(asking.wallet_applications.link, made["id"], RETURN)
    return made, link["url"]


async def test_a_user_opens_a_wallet_and_the_merchant_sees_states_only(stage: Stage) -> None:
    client, (user, phone) = stage.client, new_user()
    made, link = await applied(stage, user)
    assert made["status"] == "created"

    back = await Visitor(stage, phone).open(link)

    assert back == {"wallet_application": made["id"], "status": "opened"}
    found = await stage.call(client.wallet_applications.get, made["id"])
    assert (found["status"], found["user_id"]) == ("opened", user)
    assert not any(word in str(found) for word in (phone, "per_", "eac_", "张"))
    balance = await stage.call(client.wallet_applications.balance, made["id"])
    assert (balance["balance"], balance["status"]) == (0, "active")


async def test_what_the_bank_alone_may_ask_is_asked_in_both_languages(stage: Stage) -> None:
    async with stage.db.begin("test") as tx:
        drafts = {"zh": Draft("用户协议", "内容"), "en": Draft("Terms", "what they say")}
        version = await publish_text(tx, "user_wallet", drafts, is_required=True)
    try:
        user, phone = new_user()
        _, link = await applied(stage, user)
        visitor = Visitor(stage, phone, language="zh")
        page = await visitor.begin(link)
        assert "用户协议" in text(page)
        assert "《用户协议》</span>" in text(page).replace("我已阅读并同意", "")
        policy = page.headers["content-security-policy"]
        assert "form-action 'self' https://shop.example;" in policy
        assert "<script" not in text(page)

        bare = await visitor.post("phone", contact=phone)
        assert (bare.status, "请阅读并同意所有必需的协议" in text(bare)) == (422, True)
        agreed = {f"agree.user_wallet.{version}": "on"}
        wrong = await visitor.post("phone", contact="12345", **agreed)
        assert wrong.status == 422
        page = await visitor.prove_phone(**agreed)
        assert "设置密码" in text(page)
        weak = await visitor.post("password", password="password1")
        assert weak.status == 422
        visitor.language = "en"
        page = await visitor.post("password", password=PASSWORD)
        assert "Who you are" in text(page)
        wrong = await visitor.post("name", name="张三", resident_id="110101199003078671")
        assert wrong.status == 422
        [row] = await stage.db.fetch(
            "select contact_sealed, person_id from wallet_session order by created_at desc limit 1",
            (),
        )
        assert row["contact_sealed"] is None  # it is the person's now, under their own key
        [given] = await stage.db.fetch(
            "select version from person_consent where person_id = $1 and kind = 'user_wallet'",
            (row["person_id"],),
        )
        assert given["version"] == version
    finally:
        await stage.db.fetch("delete from person_consent where kind = 'user_wallet'", ())
        await stage.db.fetch("delete from consent_text where kind = 'user_wallet'", ())


async def test_who_has_an_account_logs_in_and_binds_it_and_nobody_is_told(stage: Stage) -> None:
    (user, phone), client = new_user(), stage.client
    made, link = await applied(stage, user)
    await Visitor(stage, phone).open(link)
    shop = await stage.open_shop()
    other = stage.client_of(shop)
    await stage.call(other.wallet_programmes.set, **TERMS)
    second, link = await applied(stage, user, other)
    visitor, stranger = Visitor(stage, phone), Visitor(stage, new_user()[1])
    same = [await visitor.begin(link)]
    _, elsewhere = await applied(stage, new_user()[0], other)
    same.append(await stranger.begin(elsewhere))
    assert {each.status for each in same} == {200}
    for one in (visitor, stranger):
        await one.office.wait()
        page = await one.post("phone", contact=one.phone)
        assert (page.status, "Enter the code" in text(page)) == (200, True)
    page = await visitor.post("code", code=await visitor.code())
    assert "has an account here" in text(page)
    wrong = await visitor.post("password", password="not the password")
    assert (wrong.status, "The password is wrong" in text(wrong)) == (422, True)
    page = await visitor.post("password", password=PASSWORD)
    assert "Agree and open" in text(page)  # the name is known already
    assert told(await visitor.post("open"))["status"] == "opened"

    rows = await stage.db.fetch(
        "select account_id from wallet_application where user_ref = $1", (user,)
    )
    assert len({row["account_id"] for row in rows}) == 1
    mine = await stage.call(client.wallet_applications.get, made["id"])
    theirs = await stage.call(other.wallet_applications.get, second["id"])
    assert mine.keys() == theirs.keys()
    with pytest.raises(Refused) as refused:
        await stage.call(other.wallet_applications.link, made["id"], RETURN)
    assert refused.value.code == "wallet_application.not_found"


async def test_one_user_has_one_application_however_many_ask_at_once(stage: Stage) -> None:
    user, phone = new_user()
    tries = [stage.call(stage.client.wallet_applications.create, user) for _ in range(4)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    made = [each for each in answers if not isinstance(each, BaseException)]
    refused = [each for each in answers if isinstance(each, Refused)]
    assert (len(made), len(refused)) == (1, 3)
    assert {each.code for each in refused} == {"wallet_application.user_known"}
    [found] = await stage.call(
        lambda: list(stage.client.wallet_applications.list(user_id=user, status="created"))
    )
    assert found["id"] == made[0]["id"]

    first = await stage.call(stage.client.wallet_applications.link, found["id"], RETURN)
    second = await stage.call(stage.client.wallet_applications.link, found["id"], RETURN)
    early, late = Visitor(stage, phone), Visitor(stage, phone)
    assert (await early.begin(first["url"])).status == 409  # the second link has ended it
    await late.begin(second["url"])
    await late.prove_phone()
    await late.post("password", password=PASSWORD)
    await late.post("name", name="张三", resident_id=resident_id(next(_ids)))
    tries = [late.post("open") for _ in range(3)]
    replies = await asyncio.gather(*tries)
    assert sorted(each.status for each in replies) == [303, 409, 409]
    rows = await stage.db.fetch(
        "select count(*)::int as n from e_account a join wallet_application w"
        " on w.person_id = a.person_id where w.id = $1",
        (parse("wap", found["id"]),),
    )
    assert [row["n"] for row in rows] == [1]


async def test_a_link_is_good_once_in_one_browser_and_for_a_while(stage: Stage) -> None:
    client, (user, phone) = stage.client, new_user()
    made, link = await applied(stage, user)
    with pytest.raises(Refused) as refused:
        await stage.call(client.wallet_applications.link, made["id"], f"{RETURN}/")
    assert refused.value.code == "wallet_programme.return_unknown"
    [row] = await stage.db.fetch(
        "select link_hash from wallet_session order by id desc limit 1", ()
    )
    assert parse_qs(urlsplit(link).query)["link"][0].encode() not in row["link_hash"]

    mine, other = Visitor(stage, phone), Visitor(stage, phone)
    before = await mine.send("GET", link.removeprefix(stage.url))
    assert (before.status, "Go on with Tongbao?" in text(before)) == (200, True)
    state = await stage.call(client.wallet_applications.get, made["id"])
    assert state["status"] == "created"  # whoever only looks at the link has opened nothing
    assert (await mine.begin(link)).status == 200
    assert (await mine.begin(link)).status == 200  # followed again in the same browser
    assert (await other.begin(link)).status == 409
    assert (await other.look()).status == 409
    assert (await Visitor(stage, phone).begin(link[:-2])).status == 409
    forged = await mine.send("POST", f"{PAGES}/refuse", {}, **{"sec-fetch-site": "cross-site"})
    assert forged.status == 403
    for step in ("open", "name", "revoke", "close", "confirm", "decline", "send"):
        assert (await mine.post(step)).status == 409, step
    state = await stage.call(client.wallet_applications.get, made["id"])
    assert state["status"] == "in_progress"
    assert told(await mine.post("refuse")) == {
        "wallet_application": made["id"],
        "status": "refused",
    }
    state = await stage.call(client.wallet_applications.get, made["id"])
    assert (state["status"], state["code"]) == ("refused", "wallet_application.declined")

    link = (await stage.call(client.wallet_applications.link, made["id"], RETURN))["url"]
    await stage.db.fetch("update wallet_session set expires_at = now() - interval '1 s'", ())
    assert (await other.begin(link)).status == 409


async def test_what_nobody_came_to_end_expires_and_is_told(stage: Stage) -> None:
    made, _ = await applied(stage, new_user()[0])
    offset = stage.db.clock.offset
    try:
        stage.db.clock.offset += timedelta(days=8)
        await stage.idle()
    finally:
        stage.db.clock.offset = offset
    found = await stage.call(stage.client.wallet_applications.get, made["id"])
    assert found["status"] == "expired"
    assert await stage.events(made) == ["wallet_application.updated"]


async def test_a_person_dies_between_any_two_steps_and_goes_on(stage: Stage) -> None:
    user, phone = new_user()
    signed = SignedClient(stage.app, stage.shop.key_id, stage.shop.secret.reveal())
    with dying("user_wallets.before_apply_commit"):
        await signed.post("/v1/wallet_applications", {"user_id": user}, key=new_number())
    made, link = await applied(stage, user)
    visitor = Visitor(stage, phone)
    await visitor.begin(link)
    await visitor.office.wait()
    await visitor.post("phone", contact=phone)
    code = await visitor.code()
    with dying("user_wallets.before_proved_commit"):
        await visitor.post("code", code=code)
    assert (await visitor.post("code", code=code)).status == 200  # it was not used up
    with dying("user_wallets.before_entered_commit"):
        await visitor.post("password", password=PASSWORD)
    assert (await visitor.post("password", password=PASSWORD)).status == 200
    await visitor.post("name", name="张三", resident_id=resident_id(next(_ids)))
    with dying("user_wallets.before_open_commit"):
        await visitor.post("open")
    count = "select count(*)::int as n from e_account where person_id = (select person_id from"
    count += " wallet_session where application_id = $1 and person_id is not null)"
    key = (parse("wap", made["id"]),)
    assert [row["n"] for row in await stage.db.fetch(count, key)] == [0]
    assert told(await visitor.post("open"))["status"] == "opened"
    assert [row["n"] for row in await stage.db.fetch(count, key)] == [1]


async def test_a_merchant_whose_request_died_asks_again(stage: Stage) -> None:
    user, phone = new_user()
    made, link = await applied(stage, user)
    with dying("user_wallets.before_link_commit"):
        await posted(stage, f"/v1/wallet_applications/{made['id']}/links", return_url=RETURN)
    first = Visitor(stage, phone)
    assert (await first.begin(link)).status == 200  # the link that died has ended no other
    with dying("user_wallets.before_refuse_commit"):
        await first.post("refuse")
    assert told(await first.post("refuse"))["status"] == "refused"
    link = (await stage.call(stage.client.wallet_applications.link, made["id"], RETURN))["url"]
    assert (await Visitor(stage, phone).open(link))["status"] == "opened"
    terms = {"kind": "top_up", "amount": 100, "currency": "CNY", "purpose": "会员充值"}
    number = new_number()
    asked = {"application_id": made["id"], "merchant_proposal_no": number, **terms}
    with dying("user_wallets.before_propose_commit"):
        await posted(stage, "/v1/wallet_proposals", **asked)
    terms.pop("currency")
    await stage.call(stage.client.wallet_proposals.create, number, made["id"], **terms)
    async with stage.db.begin("test") as tx:
        found = await application_with_id(tx, parse("wap", made["id"]))
    with dying("user_wallets.before_leave_commit"):
        async with stage.db.begin("test") as tx:
            await leave(tx, found, by="person")
    assert await stage.call(stage.client.wallet_applications.balance, made["id"])


async def posted(stage: Stage, path: str, **body: Any) -> Reply:
    """Ask as the merchant, in this very process."""
    signed = SignedClient(stage.app, stage.shop.key_id, stage.shop.secret.reveal())
    return await signed.post(path, body, key=new_number())


async def test_what_expires_does_so_though_the_worker_dies_of_it(
    stage: Stage, wallet: Opened
) -> None:
    proposed, _ = await wallet.propose()
    made, _ = await applied(stage, new_user()[0])
    offset = stage.db.clock.offset
    try:
        stage.db.clock.offset += timedelta(days=8)
        async with stage.db.begin("test") as tx:
            found = await application_with_id(tx, parse("wap", made["id"]))
        lease = Lease(new_id(), 1)
        with dying("user_wallets.before_expiry_commit"):
            task = ExpireApplication(found.id, found.expires_at)
            await run_expire_application(stage.db, task, lease)
        with dying("user_wallets.before_proposal_expiry_commit"):
            await run_expire_proposal(stage.db, ExpireProposal(parse("wpr", proposed["id"])), lease)
        await stage.idle()
    finally:
        stage.db.clock.offset = offset
    assert (await wallet.read(proposed))["status"] == "expired"
    found = await stage.call(stage.client.wallet_applications.get, made["id"])
    assert found["status"] == "expired"
    assert await stage.events(made) == ["wallet_application.updated"]


# Proposals


class Opened:
    """A user's wallet and the user's browser."""

    def __init__(self, stage: Stage, phone: str, made: Any) -> None:
        self.stage, self.phone, self.made = stage, phone, made

    async def propose(self, **more: Any) -> tuple[Any, str]:
        terms = {"kind": "top_up", "amount": 3_000, "purpose": "会员充值", **more}
        client = self.stage.client
        made = await self.stage.call(
            client.wallet_proposals.create, new_number(), self.made["id"], **terms
        )
        return made, (await self.stage.call(client.wallet_proposals.link, made["id"], RETURN))[
            "url"
        ]

    async def balance(self) -> int:
        client = self.stage.client
        found = await self.stage.call(client.wallet_applications.balance, self.made["id"])
        return int(found["balance"])

    async def read(self, proposal: Any) -> Any:
        return await self.stage.call(self.stage.client.wallet_proposals.get, proposal["id"])


@pytest.fixture
async def wallet(stage: Stage) -> Opened:
    user, phone = new_user()
    made, link = await applied(stage, user)
    await Visitor(stage, phone).open(link)
    return Opened(stage, phone, made)


async def test_a_person_agrees_to_a_proposal_and_it_happens_once(
    stage: Stage, wallet: Opened
) -> None:
    made, link = await wallet.propose()
    visitor = Visitor(stage, wallet.phone)
    assert (await visitor.begin(link)).status == 200
    other = new_user()[1]
    assert (await visitor.post("log_in", contact=other, password=PASSWORD)).status == 422
    page = await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)
    assert "会员充值" in text(page)
    await visitor.office.wait()
    await visitor.post("send")
    assert (await visitor.post("confirm", code="00000x")).status == 422
    code = await visitor.code()
    replies = await asyncio.gather(*(visitor.post("confirm", code=code) for _ in range(3)))
    assert sum(each.status == 303 for each in replies) == 1
    await stage.idle()
    assert await wallet.balance() == 3_000
    found = await wallet.read(made)
    assert (found["status"], found["code"]) == ("done", None)
    assert await stage.events(made) == ["wallet_proposal.updated"] * 2
    [line] = await stage.call(
        lambda: list(stage.client.wallet_applications.lines(wallet.made["id"]))
    )
    assert (line["kind"], line["change"]) == ("e_account.topped_up", 3_000)
    with pytest.raises(Refused) as refused:
        await stage.call(stage.client.wallet_proposals.link, made["id"], RETURN)
    assert refused.value.code == "wallet_proposal.over"


async def test_a_person_pays_the_merchant_on_the_page_and_nobody_elses_code(
    stage: Stage, wallet: Opened
) -> None:
    _, link = await wallet.propose()
    await Visitor(stage, wallet.phone).agree(link)
    asked = await stage.show_qr("wallet", 1_000)
    code = asked["next_action"]["code_url"]
    other = stage.client_of(await stage.open_shop())
    theirs = await stage.show_qr("wallet", 1_000, client=other)
    for wrong in (
        {"payment_code": code, "amount": 999},
        {"payment_code": theirs["next_action"]["code_url"]},
        {},
        {"payment_code": code, "kind": "top_up"},
    ):
        with pytest.raises(Refused) as refused:
            await wallet.propose(**{"kind": "payment", "amount": 1_000, **wrong})
        assert refused.value.code == "wallet_proposal.invalid"
    terms = {"kind": "payment", "amount": 1_000, "payment_code": code}
    made, link = await wallet.propose(**terms)
    visitor = Visitor(stage, wallet.phone)
    await visitor.begin(link)
    await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)
    await visitor.office.wait()
    await visitor.post("send")
    with dying("user_wallets.after_order"):  # it is paid, and nobody has heard of it
        await visitor.post("confirm", code=await visitor.code())
    await stage.idle()
    assert (await wallet.read(made))["status"] == "done"
    assert (await stage.read(asked))["status"] == "succeeded"
    assert await wallet.balance() == 2_000
    with pytest.raises(Refused) as refused:
        await wallet.propose(**terms)
    assert refused.value.code == "wallet.qr_paid"


async def test_a_proposal_stays_within_what_the_person_allows_in_a_day(
    stage: Stage, wallet: Opened
) -> None:
    with pytest.raises(Refused) as refused:
        await wallet.propose(amount=50_001)
    assert refused.value.code == "wallet_proposal.too_large"
    made, links = [], []
    for _ in range(2):  # each is allowed, and both together are not
        one, link = await wallet.propose(amount=50_000)
        made.append(one)
        links.append(link)
    assert (await Visitor(stage, wallet.phone).agree(links[0]))["status"] == "done"
    visitor = Visitor(stage, wallet.phone)
    await visitor.begin(links[1])
    await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)
    await visitor.office.wait()
    await visitor.post("send")
    assert (await visitor.post("confirm", code=await visitor.code())).status == 409
    assert (await wallet.read(made[1]))["status"] == "awaiting"

    failing, link = await wallet.propose(kind="withdrawal", amount=30_000)
    await stage.db.fetch("update e_account set held = balance where state = 'active'", ())
    assert (await Visitor(stage, wallet.phone).agree(link))["status"] == "failed"
    assert (await wallet.read(failing))["code"] == "wallet_proposal.not_done"  # no word of a freeze
    await stage.db.fetch("update e_account set held = 0", ())
    again, link = await wallet.propose(kind="withdrawal", amount=30_000)  # what failed is not used
    assert (await Visitor(stage, wallet.phone).agree(link))["status"] == "done"
    assert await wallet.balance() == 20_000
    assert (await wallet.read(again))["status"] == "done"


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ("user_wallets.before_agree_commit", "awaiting"),
        ("user_wallets.after_agree", "done"),
        ("user_wallets.before_order", "done"),
        ("user_wallets.after_order", "done"),
        ("user_wallets.before_settle_commit", "done"),
    ],
)
async def test_a_death_after_the_agreement_loses_nothing_and_doubles_nothing(
    stage: Stage, wallet: Opened, place: str, left: str
) -> None:
    made, link = await wallet.propose()
    visitor = Visitor(stage, wallet.phone)
    await visitor.begin(link)
    await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)
    await visitor.office.wait()
    await visitor.post("send")
    code = await visitor.code()
    with dying(place):
        await visitor.post("confirm", code=code)
    await stage.idle()
    assert (await wallet.read(made))["status"] == left
    assert await wallet.balance() == (3_000 if left == "done" else 0)


@pytest.mark.parametrize("kind", ["withdrawal", "payment"])
async def test_what_was_refused_to_one_who_carries_it_out_fails_nothing_that_another_has_done(
    stage: Stage, wallet: Opened, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The other moves the money a moment later, and dies before it can say so."""
    _, link = await wallet.propose()
    await Visitor(stage, wallet.phone).agree(link)
    terms: dict[str, Any] = {"kind": kind, "amount": 1_000}
    if kind == "payment":
        asked = await stage.show_qr("wallet", 1_000)
        terms["payment_code"] = asked["next_action"]["code_url"]
    made, link = await wallet.propose(**terms)
    really = proposals._done

    async def refused_and_overtaken(carrier: proposals.Carrier, proposal: Proposal) -> Any:
        monkeypatch.setattr(proposals, "_done", really)
        try:
            return await really(carrier, proposal)
        finally:
            await stage.db.fetch("update e_account set held = 0", ())
            with dying("user_wallets.after_order"):
                await proposals.carry_out(carrier, proposal.id)

    monkeypatch.setattr(proposals, "_done", refused_and_overtaken)
    await stage.db.fetch("update e_account set held = balance where state = 'active'", ())
    told_first = await Visitor(stage, wallet.phone).agree(link)

    assert told_first["status"] == "processing"
    assert await wallet.balance() == 2_000
    await stage.idle()
    assert (await wallet.read(made))["status"] == "done"
    assert await wallet.balance() == 2_000


@pytest.mark.parametrize("kind", ["withdrawal", "payment"])
async def test_what_is_told_failed_moves_no_money_any_more(
    stage: Stage, wallet: Opened, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It was looked at before it failed, and goes on after it."""
    _, link = await wallet.propose()
    await Visitor(stage, wallet.phone).agree(link)
    terms: dict[str, Any] = {"kind": kind, "amount": 1_000}
    if kind == "payment":
        asked = await stage.show_qr("wallet", 1_000)
        terms["payment_code"] = asked["next_action"]["code_url"]
    made, link = await wallet.propose(**terms)
    really = proposals._done

    async def overtaken_by_a_failure(carrier: proposals.Carrier, proposal: Proposal) -> Any:
        monkeypatch.setattr(proposals, "_done", really)
        await stage.db.fetch("update e_account set held = balance where state = 'active'", ())
        await proposals.carry_out(carrier, proposal.id)
        await stage.db.fetch("update e_account set held = 0", ())
        return await really(carrier, proposal)

    monkeypatch.setattr(proposals, "_done", overtaken_by_a_failure)
    await Visitor(stage, wallet.phone).agree(link)

    await stage.idle()
    assert (await wallet.read(made))["status"] == "failed"
    assert await wallet.balance() == 3_000


async def test_a_person_ends_it_and_the_merchant_may_do_nothing_more(
    stage: Stage, wallet: Opened
) -> None:
    client, wap = stage.client, wallet.made["id"]
    waiting, _ = await wallet.propose()
    phone = Phone(stage.app, SandboxOffice(stage))
    phone.mode = {"mode": "sandbox"}
    await phone.post_office.wait()
    asked = await phone.ask_code(wallet.phone, "log_in")
    second = {"type": "message_code", "code_id": asked.json["code_id"]}
    second["code"] = await phone.code(address(wallet.phone))
    assert (await phone.log_in(wallet.phone, second=second)).status == 201
    [seen] = (await phone.get("/v1/me/open_consents")).json["items"]
    assert (seen["id"], seen["kind"], seen["status"]) == (wap, "user_wallet", "authorised")
    assert (seen["amount"], seen["amount_a_day"]) == (50_000, 80_000)

    for _ in range(2):  # repeating it changes nothing
        ended = await phone.post(f"/v1/me/open_consents/{wap}/revoke")
        assert ended.json["status"] == "revoked"

    assert (await wallet.read(waiting))["status"] == "declined"
    for call in (client.wallet_applications.balance, wallet_lines(client)):
        with pytest.raises(Refused) as refused:
            await stage.call(call, wap)
        assert refused.value.code == "wallet_application.state_wrong"
    stranger = Phone(stage.app, phone.post_office)
    stranger.mode = phone.mode
    await stranger.register(new_user()[1])
    stolen = await stranger.post(f"/v1/me/open_consents/{wap}/revoke")
    assert stolen.code == "consent.not_found"
    link = await stage.call(client.wallet_applications.link, wap, RETURN)
    back = await Visitor(stage, wallet.phone).open(link["url"])  # asked anew, on the same account
    assert back["status"] == "opened"


async def test_a_person_closes_the_account_on_the_page_once_it_is_empty(
    stage: Stage, wallet: Opened
) -> None:
    _, link = await wallet.propose(amount=100)
    await Visitor(stage, wallet.phone).agree(link)
    managing = await stage.call(
        stage.client.wallet_applications.link, wallet.made["id"], RETURN, purpose="manage"
    )
    visitor = Visitor(stage, wallet.phone)
    await visitor.begin(managing["url"])
    await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)
    await visitor.office.wait()
    await visitor.post("send")
    full = await visitor.post("close", code=await visitor.code())
    assert (full.status, "Take all money out" in text(full)) == (422, True)
    _, link = await wallet.propose(kind="withdrawal", amount=100)
    assert (await Visitor(stage, wallet.phone).agree(link))["status"] == "done"
    await visitor.office.wait()
    await visitor.post("send")
    assert told(await visitor.post("close", code=await visitor.code()))["status"] == "ended"
    found = await stage.call(stage.client.wallet_applications.get, wallet.made["id"])
    assert found["status"] == "ended"


async def passkey_of(stage: Stage, wallet: Opened) -> Key:
    """A passkey of whoever opened the wallet, as their phone has added it."""
    found = await application_with_id(stage.db, parse("wap", wallet.made["id"]))
    assert found.person_id is not None
    site, owner = site_of(stage.url), found.person_id
    key = Key(site.origins[0], site.id)
    async with stage.db.begin("test") as tx:
        asked = await passkeys.new_challenge(tx, "passkey.add", owner)
        options = passkeys.creation_options(site, asked, owner_id=owner, account="1", known=[])
        made = key.create(options)
        await passkeys.add_passkey(tx, site, asked, owner, "finger", response=made)
    return key


def asked_of_passkey(page: Reply) -> tuple[str, dict[str, Any]]:
    """What a page asks a passkey to sign, and under which number."""
    [options] = re.findall(r'data-passkey="([^"]+)"', text(page))
    [challenge] = re.findall(r'name="challenge_id" value="(\w+)"', text(page))
    return challenge, json.loads(html.unescape(options))


async def test_a_passkey_confirms_exactly_what_the_page_shows(stage: Stage, wallet: Opened) -> None:
    (made, link), (_, dearer) = await wallet.propose(), await wallet.propose(amount=3_001)
    visitor, other = [Visitor(stage, wallet.phone) for _ in "12"]

    async def shown(visitor: Visitor, link: str) -> Reply:
        await visitor.begin(link)
        return await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)

    assert b"data-passkey" not in (await shown(Visitor(stage, wallet.phone), dearer)).body
    key = await passkey_of(stage, wallet)
    _, dearer = await wallet.propose(amount=3_001)
    page, another = await shown(visitor, link), await shown(other, dearer)
    (challenge, options), (elsewhere, signed) = asked_of_passkey(page), asked_of_passkey(another)
    assert options["userVerification"] == "required"
    stranger = Key(key.origin, key.rp)
    for named, said in (
        (elsewhere, json.dumps(key.get(signed))),  # about another amount
        (challenge, json.dumps(stranger.get(options))),
        (challenge, json.dumps(key.get(options))),  # that challenge is used up
        ("chl_none", json.dumps(key.get(options))),
        (challenge, "{"),
    ):
        wrong = await visitor.post("passkey", challenge_id=named, response=said)
        assert (wrong.status, "did not confirm" in text(wrong)) == (422, True)
    assert (await wallet.read(made))["status"] == "awaiting"
    challenge, options = asked_of_passkey(wrong)
    answer = json.dumps(key.get(options))
    done = await visitor.post("passkey", challenge_id=challenge, response=answer)
    assert told(done)["status"] == "done"
    again = await visitor.post("passkey", challenge_id=challenge, response=answer)
    assert again.status == 409, "the page is over"
    assert await wallet.balance() == 3_000


async def test_a_passkey_signs_for_the_card_that_was_chosen_first(
    stage: Stage, wallet: Opened
) -> None:
    await passkey_of(stage, wallet)
    found = await application_with_id(stage.db, parse("wap", wallet.made["id"]))
    card, now = new_id(), stage.db.clock.now()
    await stage.db.fetch(
        "insert into bound_card (id, person_id, mode, vault_card_id, par, bin, last4, issuer,"
        " brand, kind, phone_masked, phone_mark, device, state, reference, is_default, in_use,"
        " asked_at, bound_at) values ($1, $2, 'sandbox', $1, repeat('0', 29), '625188', '0001',"
        " 'b', 'b', 'DC', 'x', $3, $1, 'bound', '', true, 0, $4, $4)",
        (card, found.person_id, b"m" * 32, now),
    )
    made, link = await wallet.propose()
    visitor = Visitor(stage, wallet.phone)
    await visitor.begin(link)
    page = await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)
    assert f'name="card" value="{show("bcd", card)}"' in text(page)
    assert b"data-passkey" not in page.body, "which card, or none, is part of what is signed"

    await visitor.office.wait()
    chosen = await visitor.post("send", card=show("bcd", card))

    challenge, _ = asked_of_passkey(chosen)
    account = await account_of_application(stage.db, found)
    of = (stage.shop.merchant.id, Mode.SANDBOX, parse("wpr", made["id"]))
    proposal = await proposal_of_merchant(stage.db, *of)
    act = await proposals.act_of(stage.db, account, proposal, show("bcd", card))
    [row] = await stage.db.fetch(
        "select act_digest from challenge where id = $1", (parse("chl", challenge),)
    )
    assert row["act_digest"] == act.digest


async def test_an_account_is_closed_with_a_passkey_once_it_is_empty(
    stage: Stage, wallet: Opened
) -> None:
    key, visitor = await passkey_of(stage, wallet), Visitor(stage, wallet.phone)
    _, link = await wallet.propose(amount=100)
    await Visitor(stage, wallet.phone).agree(link)
    terms = {"purpose": "manage"}
    client = stage.client.wallet_applications
    managing = await stage.call(client.link, wallet.made["id"], RETURN, **terms)
    await visitor.begin(managing["url"])
    page = await visitor.post("log_in", contact=wallet.phone, password=PASSWORD)

    async def close(page: Reply) -> Reply:
        challenge, options = asked_of_passkey(page)
        said = json.dumps(key.get(options))
        return await visitor.post("passkey", challenge_id=challenge, response=said)

    full = await close(page)
    assert (full.status, "Take all money out" in text(full)) == (422, True)
    _, link = await wallet.propose(kind="withdrawal", amount=100)
    assert (await Visitor(stage, wallet.phone).agree(link))["status"] == "done"
    assert told(await close(full))["status"] == "ended"
    assert (await stage.call(client.get, wallet.made["id"]))["status"] == "ended"


async def test_a_page_of_whom_it_was_shows_nothing_of_whom_it_is(
    stage: Stage, wallet: Opened
) -> None:
    client, wap = stage.client, wallet.made["id"]
    managing = await stage.call(client.wallet_applications.link, wap, RETURN, purpose="manage")
    before = Visitor(stage, wallet.phone)
    await before.begin(managing["url"])
    await before.post("log_in", contact=wallet.phone, password=PASSWORD)
    assert (await before.look()).status == 200
    async with stage.db.begin("test") as tx:
        found = await application_with_id(tx, parse("wap", wap))
        await leave(tx, found, by="person")
    link = await stage.call(client.wallet_applications.link, wap, RETURN)
    other = Visitor(stage, new_user()[1])
    assert (await other.open(link["url"]))["status"] == "opened"
    await stage.db.fetch("update wallet_session set ended_at = null where purpose = 'manage'", ())
    for reply in (await before.look(), await before.post("send"), await before.post("revoke")):
        assert reply.status == 409
    found = await stage.call(client.wallet_applications.get, wap)
    assert found["status"] == "opened"


async def test_a_suspended_programme_opens_no_page_and_reads_nothing(
    stage: Stage, wallet: Opened
) -> None:
    _, opening = await applied(stage, new_user()[0])
    late = Visitor(stage, new_user()[1])
    await late.begin(opening)
    await late.prove_phone()
    await late.post("password", password=PASSWORD)
    await late.post("name", name="张三", resident_id=resident_id(next(_ids)))
    _, link = await wallet.propose()
    programme = await programme_of(stage.db, stage.shop.merchant.id, Mode.SANDBOX)
    assert programme is not None
    for after in (ProgrammeState.SUSPENDED, ProgrammeState.ACTIVE):
        async with stage.db.begin("maker") as tx:
            asked = await propose_move(
                tx, programme, after, reason="it asked for too much", may={"onboarding_act"}
            )
        async with stage.db.begin("checker") as tx:
            acts, digest = stage.platform.approvals.acts, asked.digest.hex()
            await approve(tx, acts, asked.id, digest=digest, may={"onboarding_act"})
        with dying("user_wallets.before_move_commit"):
            async with stage.db.begin("test") as tx:
                to: Any = after.value
                move = ProgrammeMove(programme.shown_id, "shop", programme.state, to)
                await move_programme(tx, move)
        unmoved = await programme_of(stage.db, stage.shop.merchant.id, Mode.SANDBOX)
        assert unmoved == programme
        await stage.idle()
        programme = await programme_of(stage.db, stage.shop.merchant.id, Mode.SANDBOX)
        assert programme is not None
        assert programme.state is after
        if after is ProgrammeState.SUSPENDED:
            assert (await late.post("open")).status == 409
            assert (await Visitor(stage, wallet.phone).begin(link)).status == 409
            with pytest.raises(Refused) as refused:
                await wallet.balance()
            assert refused.value.code == "wallet_programme.not_active"
            async with stage.db.begin("maker") as tx:
                with pytest.raises(ProgrammeUnchanged):
                    await propose_move(tx, programme, after, reason="once more", may=set())
    assert await wallet.balance() == 0


async def agreed(stage: Stage, approval: Any) -> str:
    """Have somebody else agree, and say what became of it."""
    async with stage.db.begin("checker") as tx:
        acts, digest = stage.platform.approvals.acts, approval.digest.hex()
        await approve(tx, acts, approval.id, digest=digest, may={"onboarding_act"})
    await stage.idle()
    return (await approval_with_id(stage.db, approval.id)).state.value


async def test_terms_of_an_admitted_programme_change_once_somebody_else_agrees(
    stage: Stage,
) -> None:
    shop = await stage.open_shop()
    live, may = stage.client_of(await live_key(stage, shop)), {"onboarding_act"}

    async def now() -> Any:
        [found] = await stage.call(lambda: list(live.wallet_programmes.list()))
        return found

    async def programme() -> Any:
        return await programme_of(stage.db, shop.merchant.id, Mode.LIVE)

    async def admission() -> Any:
        async with stage.db.begin("maker") as tx:
            return await propose_move(
                tx, await programme(), ProgrammeState.ACTIVE, reason="they are known", may=may
            )

    async def change() -> Any:
        return await open_approval(stage.db, CHANGE, (await programme()).shown_id)

    await stage.call(live.wallet_programmes.set, **TERMS)
    looked_at = await admission()
    await stage.call(live.wallet_programmes.set, **{**TERMS, "day_max": 90_000})
    assert await agreed(stage, looked_at) == "failed", "they have seen other terms"
    assert await agreed(stage, await admission()) == "applied"

    dear = {**TERMS, "each_max": 70_000, "return_urls": ["https://other.example/back"]}
    dearer = {**dear, "each_max": 80_000}
    for terms in (dear, dearer, dearer):
        said = await stage.call(live.wallet_programmes.set, **terms)
        assert (said["day_max"], said["waiting"]["each_max"]) == (90_000, terms["each_max"])
        assert said["return_urls"] == [RETURN]
    asked = await change()
    assert await change() == asked, "the same again proposes nothing new"
    shown = await changes_of(stage.platform.approvals, asked)
    assert ("CNY at once", "500.00", "800.00") in [(x.en, x.before, x.after) for x in shown]
    assert asked.maker.startswith("key_")
    with dying("user_wallets.before_terms_commit"):
        async with stage.db.begin("test") as tx:
            await change_terms(tx, terms_of(CHANGE, asked))
    assert (await now())["each_max"] == TERMS["each_max"]
    assert await agreed(stage, asked) == "applied"
    changed = await now()
    assert (changed["each_max"], changed["waiting"]) == (80_000, None)
    assert changed["return_urls"] == dearer["return_urls"]

    await stage.call(live.wallet_programmes.set, **TERMS)
    async with stage.db.begin("checker") as tx:
        acts = stage.platform.approvals.acts
        await reject(tx, acts, (await change()).id, reason="they asked for too much", may=may)
    assert (await now()) == changed
    with pytest.raises(ProgrammeUnchanged):  # those that it was to replace are gone
        async with stage.db.begin("test") as tx:
            await change_terms(tx, terms_of(CHANGE, asked))


async def test_in_real_money_a_programme_waits_for_two_people(stage: Stage) -> None:
    live = stage.client_of(await live_key(stage, stage.shop))
    made = await stage.call(live.wallet_programmes.set, **TERMS)
    assert made["status"] == "pending"
    with pytest.raises(Refused) as refused:
        await stage.call(live.wallet_applications.create, "user-1")
    assert refused.value.code == "wallet_programme.not_active"
    for wrong in (
        {"return_urls": ["http://127.0.0.1/back"]},
        {"return_urls": ["https://a.example/#x"]},
        {"grants": ["balance", "balance"]},
        {"day_max": 1},
    ):
        with pytest.raises(Refused) as refused:
            await stage.call(live.wallet_programmes.set, **{**TERMS, **wrong})
        assert refused.value.code == "wallet_programme.terms_invalid"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_phone_without_scripts_is_enough(stage: Stage) -> None:
    user, number = new_user()
    _, link = await applied(stage, user)
    office, size = Visitor(stage, number), {"width": 320, "height": 640}
    async with browsing(stage, viewport=size, java_script_enabled=False) as watched:
        page = watched.page

        async def go_on(button: str, **fields: str) -> None:
            assert await fits(page)
            for label, value in fields.items():
                await page.get_by_label(label).fill(value)
            await page.get_by_role("button", name=button, exact=True).click()

        await page.route(f"{RETURN}*", lambda route: route.fulfill(body="back"))
        await page.goto(link)
        await go_on("继续")
        await office.office.wait()
        await go_on("获取验证码", 手机号=number)
        await page.get_by_role("heading", name="输入验证码").wait_for()
        await go_on("继续", 验证码=await office.code())
        await go_on("继续", 密码=PASSWORD)
        await go_on("提交核验", 姓名="张三", 身份证号码=resident_id(next(_ids)))
        assert await page.evaluate(FAINT) == []
        await go_on("同意并开通")
        await page.wait_for_url(f"{RETURN}?*status=opened")
        assert not watched.complaints


async def test_operators_see_who_asks_for_what_and_two_of_them_stop_a_programme(
    stage: Stage, wallet: Opened
) -> None:
    at = "/console/user_wallets"
    merchant = show("mch", stage.shop.merchant.id)
    programme = await programme_of(stage.db, stage.shop.merchant.id, Mode.SANDBOX)
    assert programme is not None
    async with reader(stage, await hire(stage, login="wallets.one")) as one:
        listed = (await one.get(f"{at}?mode=sandbox&q={merchant}&status=opened")).text
        assert wallet.made["id"] in listed
        assert wallet.phone not in listed
        of_user = (await one.get(f"{at}?mode=sandbox&user={wallet.made['user_id']}")).text
        assert wallet.made["id"] in of_user
        assert wallet.made["id"] not in (await one.get(at)).text  # that is real money
        assert (await one.get(f"{at}?mode=sandbox&status=nonsense")).status_code == 400
        move = f"{at}/{programme.shown_id}/move"
        await one.get(f"{at}?mode=sandbox")
        assert (await one.send(move, to="gone", reason="no such state")).status_code == 400
        await one.get(f"{at}?mode=sandbox")
        reply = await one.send(move, to="suspended", reason="it asked for too much")
        assert reply.status_code == 303, reply.text
        inbox = (await one.get(reply.headers["location"])).text
        assert RETURN in inbox
    found = await programme_of(stage.db, stage.shop.merchant.id, Mode.SANDBOX)
    assert found is not None
    assert found.state is ProgrammeState.ACTIVE  # one person alone stops nothing
    proposed = reply.headers["location"].rpartition("/")[2].partition("?")[0]
    async with stage.db.begin("checker") as tx:
        acts, may = stage.platform.approvals.acts, {"onboarding_act"}
        await reject(tx, acts, parse("apv", proposed), reason="it asked for little", may=may)


def wallet_lines(client: Tongbao) -> Any:
    return lambda wap: list(client.wallet_applications.lines(wap))


def text(reply: Reply) -> str:
    return reply.body.decode()
