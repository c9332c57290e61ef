"""The developer portal: sign up, come in, and see one's own test shop and nobody else's."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest

from tests.conftest import MakeDb
from tests.infra.signed_client import SignedClient
from tests.stage import Stage, new_number, settings_for, staged
from tests.surfaces.receiver import receiving
from tests.surfaces.visitors import Reader
from tongbao.infra import failpoints, test_clock
from tongbao.infra.db import Db, Query
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.developers import _store as store
from tongbao.parties.developers import entering
from tongbao.parties.developers.entering import Proof
from tongbao.parties.developers.model import (
    DeveloperLoginRefused,
    Entrance,
    MailNeeded,
    NameNeeded,
    Outfit,
)
from tongbao.parties.identity.keys import lock_key, roll_key
from tongbao.parties.merchants.merchants import lock_merchant
from tongbao.surfaces.demo.stage import DEMO_FEES
from tongbao.surfaces.developer_portal import app as portal
from tongbao.surfaces.developer_portal import keys
from tongbao.surfaces.developer_portal.reading import read_changelog, releases
from tongbao_sandbox.launch import RunningSandbox

PASSWORD = "Blue-Kettle-77"
SECRET = re.compile(r'<p class="secret">([^<]+)</p>')
ID = re.compile(r"\b(?:key|req|evt|whe|whd|pay|mch)_[0-9a-hjkmnp-tv-z]{26}\b")
WAITING = Query(
    int,
    "select count(*)::int as n from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock'",
)
MERCHANTS = Query(int, "select count(*)::int as n from merchant where name = $1")


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("platform")
    async with staged(
        module_db, folder, sandbox, sandbox_sign_up=True, test_clock_shared=True
    ) as ready:
        yield ready


@pytest.fixture
async def stage(shared_stage: Stage) -> Stage:
    return shared_stage


class Developer(Reader):
    """Somebody at the portal, with what they were given."""

    mail = ""
    key_id = ""
    secret = ""

    def keep(self, page: str) -> None:
        """Note the key a page shows this once."""
        self.key_id, self.secret = SECRET.findall(page)

    async def press(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of the portal with the token of the page that is open."""
        assert self.page is not None
        token = re.search(r'name="form_token" value="([^"]+)"', self.page.text)
        assert token is not None
        return await self.post(path, {"form_token": token[1], **fields})


async def inbox(stage: Stage, mail: str) -> list[str]:
    """What was sent to an address."""
    await stage.idle()
    found = await asyncio.to_thread(stage.sandbox.get, "messages/inbox", to=mail)
    return [str(one["text"]) for one in found]


async def code_for(stage: Stage, mail: str) -> str:
    found = re.search(r"\d{6}", (await inbox(stage, mail))[-1])
    assert found is not None
    return found[0]


def new_mail() -> str:
    return f"dev-{uuid4().hex[:12]}@shop.example"


async def signed_up(stage: Stage, name: str = "茶馆", *, mail: str = "") -> Developer:
    """A developer who has just signed up, with the first key."""
    one = Developer(stage.url)
    one.mail = mail or new_mail()
    await one.get("/portal/sign_up")
    one.page = await one.send("/portal/sign_up", mail=one.mail)
    assert one.page.status_code == 200, one.page.text
    code = await code_for(stage, one.mail)
    one.page = await one.send("/portal/sign_up/finish", code=code, name=name, password=PASSWORD)
    assert one.page.status_code == 200, one.page.text
    one.keep(one.page.text)
    return one


def entrance_of(stage: Stage) -> Entrance:
    return Entrance(stage.db, stage.platform.keyring, "mlps3", Mode.SANDBOX)


def api_of(stage: Stage, developer: Developer) -> SignedClient:
    return SignedClient(stage.app, developer.key_id, developer.secret)


def order(**more: Any) -> dict[str, Any]:
    method = {"channel": "wechat_pay", "mode": "qr"}
    base = {"merchant_order_no": new_number(), "amount": 1999, "currency": "CNY", "subject": "茶"}
    return {**base, "method": method, **more}


# Coming in


async def test_who_signs_up_has_a_shop_that_takes_payments(stage: Stage) -> None:
    developer = await signed_up(stage)

    made = await api_of(stage, developer).post("/v1/payments", order(), key=uuid4().hex)
    shown = await developer.get("/portal/keys")

    assert made.status == 201, made.json
    assert made.json["status"] == "pending"
    assert developer.secret.startswith("sk_sandbox_")
    assert developer.key_id in shown.text
    assert developer.secret not in shown.text
    assert f"…{developer.secret[-4:]}" in shown.text
    assert developer.mail not in shown.text


async def test_nothing_tells_whether_an_address_has_an_account(stage: Stage) -> None:
    known = (await signed_up(stage)).mail
    await stage.db.execute("delete from code_allowance", ())
    stranger, said = Developer(stage.url), []
    for mail in (known, new_mail()):
        for way in ("sign_up", "new_password"):
            await stage.db.execute("delete from code_allowance", ())
            await stranger.get(f"/portal/{way}")
            page = await stranger.send(f"/portal/{way}", mail=mail)
            text = re.sub(r"cod_\w+", "cod", page.text.replace(mail, "M"))
            said.append((way, page.status_code, re.sub(r'nonce="[^"]*"', "", text)))
        await stranger.get("/portal/login")
        page = await stranger.send("/portal/login", mail=mail, password="Wrong-Kettle-1")
        said.append(("login", page.status_code, page.text.replace(mail, "M")))

    assert said[:3] == said[3:]
    assert [status for _, status, _ in said[:3]] == [200, 200, 401]
    told = await inbox(stage, known)
    assert any("log in" in text for text in told), "the owner of the address learns it by mail"


async def test_codes_are_rationed_and_good_once(stage: Stage) -> None:
    developer = Developer(stage.url)
    mail = new_mail()
    await developer.get("/portal/sign_up")
    developer.page = await developer.send("/portal/sign_up", mail=mail)
    code = await code_for(stage, mail)
    form = developer.form("/portal/sign_up/finish").fields

    finish = {**form, "code": code, "name": "两家店", "password": PASSWORD}
    both = await asyncio.gather(
        *(developer.post("/portal/sign_up/finish", finish) for _ in range(2))
    )
    await developer.get("/portal/login")
    again = Developer(stage.url)
    await again.get("/portal/sign_up")
    refused = await again.send("/portal/sign_up", mail=mail)

    assert sorted(page.status_code for page in both) == [200, 422]
    assert await MERCHANTS.one(stage.db, "两家店") == 1
    assert refused.status_code == 429
    assert "Wait a minute" in refused.text


async def test_five_failures_lock_and_a_code_opens_again(stage: Stage) -> None:
    developer = await signed_up(stage)
    stranger = Developer(stage.url)
    for _ in range(5):
        await stranger.get("/portal/login")
        await stranger.send("/portal/login", mail=developer.mail, password="Wrong-Kettle-1")
    await stranger.get("/portal/login")
    locked = await stranger.send("/portal/login", mail=developer.mail, password=PASSWORD)
    await stage.db.execute("delete from code_allowance", ())

    await stranger.get("/portal/new_password")
    stranger.page = await stranger.send("/portal/new_password", mail=developer.mail)
    code = await code_for(stage, developer.mail)
    new = "Green-Kettle-88"
    entered = await stranger.send("/portal/new_password/finish", code=code, password=new)
    there = await stranger.follow(entered)
    gone = await developer.get("/portal/keys")
    await developer.get("/portal/login")
    back = await developer.send("/portal/login", mail=developer.mail.upper(), password=new)

    assert locked.status_code == 401
    assert "茶馆" in there.text
    assert gone.status_code == 303, "every session of before has ended"
    assert back.headers["location"] == "/portal"


async def test_a_password_that_is_replaced_while_it_is_checked_lets_nobody_in(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    developer, entrance = await signed_up(stage), entrance_of(stage)
    await stage.db.execute("delete from code_allowance", ())
    sent = await entering.ask_code(
        entrance, developer.mail, purpose="recover", language="en", source="127.0.0.1"
    )
    proof = Proof(developer.mail, show("cod", sent.code_id), await code_for(stage, developer.mail))
    check = entering.matching_hash

    async def slowly(db: Db, owner_id: UUID, password: str) -> str | None:
        matched = await check(db, owner_id, password)
        await entering.set_new_password(entrance, proof, "Green-Kettle-88")
        return matched

    monkeypatch.setattr(entering, "matching_hash", slowly)
    with pytest.raises(DeveloperLoginRefused):
        await entering.log_in(entrance, developer.mail, PASSWORD)


async def test_what_is_no_address_name_or_password_is_refused(stage: Stage) -> None:
    entrance = entrance_of(stage)
    outfit = Outfit(stage.platform.settings.licence, [], {}, ["payments:read"])
    proof = Proof("a@b.example", "cod_x", "000000")

    for mail in ("13800138000", "nobody", "a@b", "x" * 300 + "@b.example", ""):
        with pytest.raises(MailNeeded):
            entering.read_mail(mail)
        with pytest.raises(DeveloperLoginRefused):
            await entering.log_in(entrance, mail, PASSWORD)
    for name in ("", " \t ", "x" * 129, "a\x07b"):
        with pytest.raises(NameNeeded):
            await entering.sign_up(entrance, outfit, proof, password=PASSWORD, name=name)


async def test_a_death_before_the_commit_leaves_nothing_and_the_code_good(stage: Stage) -> None:
    entrance, mail = entrance_of(stage), new_mail()
    sent = await entering.ask_code(
        entrance, mail, purpose="register", language="en", source="127.0.0.1"
    )
    proof = Proof(mail, show("cod", sent.code_id), await code_for(stage, mail))
    outfit = Outfit(stage.platform.settings.licence, DEMO_FEES, {}, ["payments:read"])
    failpoints.arm("developers.before_sign_up_commit:raise")
    try:
        with pytest.raises(SimulatedCrash):
            await entering.sign_up(entrance, outfit, proof, password=PASSWORD, name="断电店")
    finally:
        failpoints.arm(None)
    none = await MERCHANTS.one(stage.db, "断电店")

    made = await entering.sign_up(entrance, outfit, proof, password=PASSWORD, name="断电店")

    assert none == 0
    assert made.key.key.merchant_id == made.developer.merchant_id


async def test_who_leaves_is_forgotten_and_their_keys_with_them(stage: Stage) -> None:
    developer = await signed_up(stage)
    client = api_of(stage, developer)
    await developer.get("/portal/webhooks")
    await developer.send("/portal/webhooks", url="http://127.0.0.1:9/x", type="*")
    await developer.get("/portal")
    wrong = await developer.send("/portal/close", password="Wrong-Kettle-1")
    still = await client.get("/v1/webhook_endpoints")
    await developer.get("/portal")
    failpoints.arm("developers.before_close_commit:raise")
    try:
        died = await developer.send("/portal/close", password=PASSWORD)
    finally:
        failpoints.arm(None)
    await developer.get("/portal")
    gone = await developer.send("/portal/close", password=PASSWORD)
    await stage.db.execute("delete from code_allowance", ())

    assert (wrong.status_code, still.status, died.status_code) == (401, 200, 500)
    assert len(still.json["items"]) == 1
    assert gone.status_code == 303
    assert (await client.get("/v1/payments")).status == 401
    assert (await developer.get("/portal/keys")).status_code == 303
    await developer.get("/portal/login")
    back = await developer.send("/portal/login", mail=developer.mail, password=PASSWORD)
    assert back.status_code == 401
    again = await signed_up(stage, mail=developer.mail)
    assert again.key_id != developer.key_id


def test_loopback_is_for_developers_of_this_machine(tmp_path: Path) -> None:
    def reaches(**changes: Any) -> bool:
        settings = settings_for(tmp_path, "http://127.0.0.1:1", port=1, **changes)
        return settings.webhooks_reach_loopback

    far = "https://pay.example"
    assert reaches(sandbox_sign_up=True)
    assert reaches(public_url=far)
    assert not reaches(sandbox_sign_up=True, public_url=far)


async def test_a_firm_that_may_hold_no_money_has_a_portal_too(
    make_db: MakeDb, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    """Without people of its own, wallets, and whatever is about other people's money."""
    db = await make_db(licence=Licence.AGGREGATOR)
    how: dict[str, Any] = {"licence": Licence.AGGREGATOR, "sandbox_sign_up": True}
    async with staged(db, tmp_path, sandbox, **how) as plain:
        developer = await signed_up(plain)
        made = await api_of(plain, developer).post("/v1/payments", order(), key=uuid4().hex)
        shown = await developer.get("/portal/keys")

    assert made.status == 201, made.json
    assert "scope:payments:write" in shown.text
    assert "scope:wallets:write" not in shown.text


async def test_there_is_no_portal_unless_it_is_switched_on(
    db: Db, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    async with staged(db, tmp_path, sandbox) as closed:
        one = Reader(closed.url)
        # As every address that is not there, to whoever signs nothing.
        assert (await one.get("/portal/sign_up")).status_code == 401


# Pages


async def test_every_page_is_whole_in_both_languages_and_has_no_script(stage: Stage) -> None:
    developer = await signed_up(stage)
    client = api_of(stage, developer)
    for language in ("en", "zh"):
        developer.client.headers["accept-language"] = language
        for filled in (False, True):
            if filled:
                await client.post("/v1/payments", order(amount=1), key=uuid4().hex)
                await client.post("/v1/payments", {}, key=uuid4().hex)
            for route in portal.ROUTES:
                if route.method == "GET" and "{" not in route.pattern:
                    page = await developer.get(f"/portal{route.pattern}")
                    if page.status_code == 303:
                        assert route.pattern == "/login"
                        continue
                    assert page.status_code == 200, (route.pattern, page.text)
                    policy = page.headers["content-security-policy"]
                    assert "script-src 'nonce-" in policy
                    assert "<script" not in page.text
                    assert 'style="' not in page.text
                    assert page.headers["cache-control"] == "no-store"


async def test_without_a_session_or_a_form_of_ours_nothing_opens(stage: Stage) -> None:
    developer = await signed_up(stage)
    stranger = Developer(stage.url)
    for route in portal.ROUTES:
        path = "/portal" + re.sub(r"\{\w+\}", "x", route.pattern)
        if route.method == "GET":
            page = await stranger.get(path)
            assert page.status_code == (200 if route.is_open else 303), path
        else:
            assert (await stranger.post(path, {})).status_code in {303, 403}, path
            assert (await developer.post(path, {"form_token": "x"})).status_code == 403, path
    elsewhere = {"sec-fetch-site": "cross-site"}
    developer_page = await developer.get("/portal/keys")
    token = re.search(r'name="form_token" value="([^"]+)"', developer_page.text)
    assert token is not None
    forged = await developer.post("/portal/keys", {"form_token": token[1]}, **elsewhere)
    assert forged.status_code == 403
    assert (await developer.get("/portal/nowhere")).status_code == 404
    assert (await developer.post("/portal/events", {})).status_code == 405
    wanted = await stranger.get("/portal/events?type=x")
    assert wanted.headers["location"] == "/portal/login?next=%2Fportal%2Fevents%3Ftype%3Dx"


async def test_a_key_is_made_replaced_narrowed_and_revoked(stage: Stage) -> None:
    developer = await signed_up(stage)
    await developer.get("/portal/keys")
    made = await developer.press("/portal/keys", name="读", **{"scope:payments:read": "on"})
    narrow = Developer(stage.url)
    narrow.keep(made.text)
    reads = await api_of(stage, narrow).get("/v1/payments")
    writes = await api_of(stage, narrow).post("/v1/payments", order(), key=uuid4().hex)
    rolled = await developer.press(f"/portal/keys/{narrow.key_id}/roll", overlap="1h")
    successor = Developer(stage.url)
    successor.keep(rolled.text)
    both = [(await api_of(stage, each).get("/v1/payments")).status for each in (narrow, successor)]
    scopes = {"scope:events:read": "on"}
    await developer.press(f"/portal/keys/{successor.key_id}/scopes", **scopes)
    widened = [
        (await api_of(stage, successor).get(path)).status for path in ("/v1/payments", "/v1/events")
    ]
    await developer.press(f"/portal/keys/{successor.key_id}/revoke")
    over = await api_of(stage, successor).get("/v1/events")
    nothing = await developer.press("/portal/keys", name="无")
    strange = await developer.press("/portal/keys", name="x", **{"scope:root": "on"})

    assert (reads.status, writes.status) == (200, 403)
    assert both == [200, 200]
    assert widened == [403, 200]
    assert over.status == 401
    assert (nothing.status_code, strange.status_code) == (400, 400)


async def test_there_is_room_for_so_many_keys_however_fast_they_are_asked_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 3)
    developer = await signed_up(stage)
    await developer.get("/portal/keys")
    fields = {"name": "x", "scope:payments:read": "on"}
    made = await asyncio.gather(*(developer.press("/portal/keys", **fields) for _ in range(6)))
    roll = await developer.press(f"/portal/keys/{developer.key_id}/roll")

    assert sorted(page.status_code for page in made) == [200, 200, 422, 422, 422, 422]
    assert roll.status_code == 422


async def test_a_request_is_found_and_sent_again_once(stage: Stage) -> None:
    developer = await signed_up(stage)
    client = api_of(stage, developer)
    bad = await client.post("/v1/payments", order(amount=0), key=uuid4().hex)
    good = await client.post("/v1/payments", order(), key=uuid4().hex)
    found = await developer.get("/portal/requests?status=400&method=POST")
    asked = good.headers["x-request-id"]
    shown = await developer.get(f"/portal/requests/{asked}")
    again = [await developer.send(f"/portal/requests/{asked}/replay") for _ in range(2)]

    assert bad.headers["x-request-id"] in found.text
    assert asked not in found.text
    assert good.json["id"] in shown.text
    # The order number was used: the answer is the payment that there is, or the refusal.
    assert all(page.status_code == 200 for page in again)
    payments = await client.send("GET", "/v1/payments")
    assert [each["id"] for each in payments.json["items"]] == [good.json["id"]]
    log = await developer.get("/portal/requests?status=400&method=POST")
    assert log.text.count(bad.headers["x-request-id"]) >= 1
    assert len({re.sub(r"req_\w+|nonce-\S+", "", page.text) for page in again}) == 1
    assert (await developer.get("/portal/requests?cursor=nonsense")).status_code == 400
    assert "Nothing fits" in (await developer.get("/portal/requests?route=/v1/no")).text


async def test_what_waits_while_an_account_is_closed_adds_nothing_to_its_shop(
    stage: Stage,
) -> None:
    """Forced interleaving on the shop's row: neither a page nor the API leaves a key behind."""
    developer = await signed_up(stage)
    merchant_id, db = await merchant_of(stage, developer), stage.db
    await developer.get("/portal/keys")
    async with db.begin("tests") as tx:
        await lock_merchant(tx, merchant_id)
        closing = asyncio.create_task(closed(stage, merchant_id))
        await until_so_many_wait(db, 1)
        form = {"name": "late", "scope:payments:read": "on"}
        making = asyncio.create_task(developer.press("/portal/keys", **form))
        path = f"/v1/api_keys/{developer.key_id}/roll"
        rolling = asyncio.create_task(
            api_of(stage, developer).post(path, {"overlap_s": 60}, key="r")
        )
        await until_so_many_wait(db, 3)
    await closing

    assert (await making).status_code == 401
    assert (await rolling).status in {401, 409}
    assert await good_keys(db, merchant_id) == []


async def test_a_key_that_is_replaced_as_its_account_closes_has_no_successor(stage: Stage) -> None:
    """Forced interleaving on the key's row."""
    developer = await signed_up(stage)
    merchant_id, db = await merchant_of(stage, developer), stage.db
    async with db.begin("tests") as tx:
        old = await lock_key(tx, parse("key", developer.key_id))
        await roll_key(tx, stage.platform.keyring, old, overlap=timedelta(hours=1))
        closing = asyncio.create_task(closed(stage, merchant_id))
        await until_so_many_wait(db, 1)
    await closing

    assert await good_keys(db, merchant_id) == []


async def closed(stage: Stage, merchant_id: UUID) -> None:
    rows = await stage.db.fetch("select id from developer where merchant_id = $1", (merchant_id,))
    found = await store.GET.one(stage.db, rows[0]["id"])
    await entering.close_account(entrance_of(stage), found, PASSWORD)


async def good_keys(db: Db, merchant_id: UUID) -> list[Any]:
    return list(
        await db.fetch(
            "select id from api_key where merchant_id = $1 and revoked_at is null", (merchant_id,)
        )
    )


async def until_so_many_wait(db: Db, many: int) -> None:
    async with asyncio.timeout(30):
        while await WAITING.one(db) < many:  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.01)


async def merchant_of(stage: Stage, developer: Developer) -> UUID:
    key_id = parse("key", developer.key_id)
    [row] = await stage.db.fetch("select merchant_id from api_key where id = $1", (key_id,))
    merchant_id: UUID = row["merchant_id"]
    return merchant_id


async def test_webhooks_are_registered_tested_and_replayed(stage: Stage) -> None:
    developer = await signed_up(stage)
    async with receiving() as receiver:
        await developer.get("/portal/webhooks")
        made = await developer.send("/portal/webhooks", url=receiver.url, type="*")
        endpoint = ID.findall(made.text)[0]
        await developer.get(f"/portal/webhooks/{endpoint}")
        await developer.send(f"/portal/webhooks/{endpoint}/test")
        await stage.idle()
        page = await developer.get(f"/portal/webhooks/{endpoint}")
        delivery = next(each for each in ID.findall(page.text) if each.startswith("whd"))
        replayed = await developer.send(f"/portal/deliveries/{delivery}/replay")
        await stage.idle()
        told = await developer.get("/portal/events?type=webhook.test")
        bad = await developer.press("/portal/webhooks", url="http://10.0.0.1/x", type="*")
        await developer.get(f"/portal/webhooks/{endpoint}")
        off = await developer.follow(await developer.send(f"/portal/webhooks/{endpoint}/disable"))
        gone = await developer.follow(await developer.send(f"/portal/webhooks/{endpoint}/delete"))

    assert len(receiver.received) == 2
    assert replayed.headers["location"] == f"/portal/webhooks/{endpoint}?done=replayed"
    assert "webhook.test" in told.text
    assert bad.status_code in {400, 422}
    assert "told nothing more" in off.text
    assert endpoint not in gone.text


async def test_the_simulated_customer_pays_for_ones_own_payment(stage: Stage) -> None:
    developer = await signed_up(stage)
    await developer.get("/portal/simulator")
    asked = await developer.send("/portal/simulator", behaviour="qr", channel="alipay")
    page = await developer.follow(asked)
    payment = next(each for each in ID.findall(page.text) if each.startswith("pay"))
    paid = await developer.send(f"/portal/simulator/{payment}/pay")
    await stage.idle()
    events = await developer.get(f"/portal/events?about={payment}")
    await developer.get("/portal/simulator")
    over = await developer.press(f"/portal/simulator/{payment}/pay")
    charged = await developer.send("/portal/simulator", behaviour="decline", channel="wechat_pay")
    await stage.idle()
    wrong = [
        (await developer.press("/portal/simulator", **fields)).status_code
        for fields in (
            {"behaviour": "qr", "channel": "alipay", "amount": "0"},
            {"behaviour": "qr", "channel": "alipay", "amount": "1.234"},
            {"behaviour": "fly", "channel": "alipay", "amount": "1"},
            {"behaviour": "qr", "channel": "nobody", "amount": "1"},
        )
    ]

    assert paid.headers["location"] == "/portal/simulator?done=customer_acted"
    assert "payment.succeeded" in events.text
    assert over.status_code == 409
    assert charged.status_code == 303
    assert "Failed" in (await developer.get("/portal/simulator")).text
    assert wrong == [400, 400, 400, 400]


async def test_what_can_be_triggered_happens_from_a_page_too(stage: Stage) -> None:
    developer = await signed_up(stage)
    page = await developer.get("/portal/simulator")
    for event in ("settlement.closed", "complaint.opened"):
        running = asyncio.ensure_future(
            developer.press("/portal/simulator/happening", event=event, channel="wechat_pay")
        )
        while not running.done():
            await stage.idle()
            await asyncio.sleep(0)
        done = await running
        await stage.idle()
        seen = await developer.get(f"/portal/events?type={event}")

        assert done.headers["location"] == "/portal/events?done=happened", done.text
        assert len(re.findall(r"evt_\w+", seen.text)) > 0
    refused = await developer.press(
        "/portal/simulator/happening", event="payment.authorised", channel="alipay"
    )
    nonsense = await developer.press("/portal/simulator/happening", event="x", channel="alipay")

    assert "<option>agreement.signed</option>" in page.text
    assert "POST /v1/payments" in refused.text, "the API's answer is shown"
    assert nonsense.status_code == 400


async def test_examples_name_the_developers_key_and_never_its_secret(stage: Stage) -> None:
    developer = await signed_up(stage)
    page = html.unescape((await developer.get("/portal/docs/payments")).text)

    assert f"TONGBAO_KEY='{developer.key_id}'" in page
    assert f'key_id="{developer.key_id}"' in page
    assert f'keyId: "{developer.key_id}"' in page
    assert developer.secret not in page
    assert (await developer.get("/portal/docs/nothing")).status_code == 404
    only = await developer.get("/portal/errors?q=refund.exceeds_captured")
    assert "Codes: 1" in only.text
    assert "Nothing fits" in (await developer.get("/portal/errors?q=zzzz")).text


async def test_the_clock_goes_on_and_never_back(stage: Stage) -> None:
    developer = await signed_up(stage)
    await test_clock.load_offset(stage.db, allowed=True)
    before = stage.db.clock.now()
    await developer.get("/portal/clock")
    moved = await developer.press("/portal/clock", step="1h")
    nonsense = await developer.press("/portal/clock", step="-1d")

    assert moved.headers["location"] == "/portal/clock?done=clock_moved"
    assert (stage.db.clock.now() - before).total_seconds() > 3500
    assert nonsense.status_code == 400


async def test_whoever_shares_a_deployment_is_told_why_the_clock_stays(
    make_db: MakeDb, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    async with staged(await make_db(), tmp_path, sandbox, sandbox_sign_up=True) as stage:
        await test_clock.load_offset(stage.db, allowed=True)
        developer = await signed_up(stage)
        page = await developer.get("/portal/clock")
        refused = await developer.press("/portal/clock", step="1h")

    assert "you cannot move their time" in page.text
    assert 'name="step"' not in page.text
    assert refused.status_code == 403
    assert "TONGBAO_TEST_CLOCK_SHARED" in refused.text


# Whose


async def test_one_developer_never_sees_anothers(stage: Stage) -> None:
    """Every route with an id, with every id of the other's: as unknown as one that was made up."""
    one, other = await signed_up(stage, "甲"), await signed_up(stage, "乙")
    async with receiving() as receiver:
        await one.get("/portal/webhooks")
        await one.send("/portal/webhooks", url=receiver.url, type="*")
        client = api_of(stage, one)
        await client.post("/v1/payments", order(), key=uuid4().hex)
        await one.get("/portal/simulator")
        await one.send("/portal/simulator", behaviour="pay", channel="alipay")
        await stage.idle()
        owned: set[str] = set()
        for path in [
            f"/portal{each.pattern}"
            for each in portal.ROUTES
            if each.method == "GET" and not each.is_open and "{" not in each.pattern
        ]:
            owned |= set(ID.findall((await one.get(path)).text))
        for each in sorted(owned):
            for kind in ("webhooks", "events", "requests"):
                page = await one.get(f"/portal/{kind}/{each}")
                owned |= set(ID.findall(page.text)) if page.status_code == 200 else set()
        seen = [
            (await other.get(f"/portal{each.pattern}")).text
            for each in portal.ROUTES
            if each.method == "GET" and not each.is_open and "{" not in each.pattern
        ]
        kinds = {each[:3] for each in owned}
        await other.get("/portal/keys")
        for route in portal.ROUTES:
            if "{" in route.pattern and "tag" not in route.pattern:
                for each in sorted(owned):
                    path = f"/portal{route.pattern}".replace("{action}", "pay")
                    path = re.sub(r"\{\w+\}", each, path)
                    scopes = {"scope:payments:read": "on"}
                    answer = (
                        await other.client.get(f"{stage.url}{path}")
                        if route.method == "GET"
                        else await other.press(path, **scopes)
                    )
                    assert answer.status_code == 404, (route.method, path, answer.status_code)
        received = len(receiver.received)
        await stage.idle()

    assert kinds >= {"key", "req", "evt", "whe", "whd", "pay", "mch"}
    assert not owned & set(ID.findall("".join(seen)))
    assert len(receiver.received) == received, "nothing of it made a delivery go again"


def test_the_changelog_is_read_as_it_is_written() -> None:
    text = "# C\n\nlead\n\n## [Unreleased]\n\n### Added\n\n- one\n  and more\n- two\n\n## [0.1.0] - d\n\n### Fixed\n\n- x\n"  # noqa: E501
    found = list(read_changelog(text))

    assert [(each.name, each.sections) for each in found] == [
        ("Unreleased", (("Added", ("one and more", "two")),)),
        ("0.1.0 - d", (("Fixed", ("x",)),)),
    ]
    assert releases(), "the project's own"
