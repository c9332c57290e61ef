"""Programs of others complete the open bank's flow: a certified client, and a browser."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.infra.signed_client import Reply
from tests.outsiders import node_with
from tests.parties.phones import PASSWORD, Key
from tests.stage import Stage, staged
from tests.surfaces.partnering import ACCOUNTS, BACK, Browser, answered, b64, text
from tests.surfaces.test_console_browser import fits
from tests.surfaces.test_open_bank import NUMBER, Bank
from tests.surfaces.test_open_bank import the_bank as _the_bank
from tests.surfaces.test_own_factors import Wrist
from tests.surfaces.visitors import browsing, hire
from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.kernel.ids import parse
from tongbao.parties.partners.model import Proving
from tongbao_sandbox.launch import RunningSandbox

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".clients" / "openid_client"
DRIVE = ROOT / "tests" / "clients" / "openid_client" / "drive.mjs"

the_bank = _the_bank


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    """Reached by name: browsers keep passkeys for names alone."""
    folder: Path = tmp_path_factory.mktemp("platform")
    named = "http://localhost:{port}"
    async with staged(module_db, folder, sandbox, public_url=named) as ready:
        yield ready


@pytest.fixture(scope="module")
async def key(the_bank: Bank) -> Key:
    """A passkey of the person's."""
    made = Key(the_bank.stage.url, "localhost")
    asked = (await the_bank.phone.post("/v1/me/passkeys/challenges")).json
    added = await the_bank.phone.post(
        "/v1/me/passkeys",
        challenge_id=asked["challenge_id"],
        name="finger",
        response=made.create(asked["options"]),
    )
    assert added.status == 201, added.body
    return made


@pytest.fixture(scope="module")
def node() -> str:
    return node_with(FOLDER, "openid-client")


@pytest.mark.parametrize("signed", [False, True], ids=["plain", "JAR and JARM"])
async def test_openid_client_completes_the_flow(
    node: str, the_bank: Bank, shared_stage: Stage, *, signed: bool
) -> None:
    partner, key = the_bank.partner, the_bank.partner.key
    if signed:
        must = Proving(signs_requests=True)
        partner = await the_bank.taken_on("Signer", key, proving=must)
    await shared_stage.db.fetch("delete from code_allowance", ())
    private = key.key.private_numbers().private_value.to_bytes(32, "big")
    given = {
        "issuer": shared_stage.url,
        "client_id": partner.client_id,
        "signed": signed,
        "jwk": {**key.jwk, "d": b64(private)},
        "kid": "k1",
        "redirect_uri": BACK,
        "details": ACCOUNTS,
    }
    run = await asyncio.create_subprocess_exec(
        *(node, str(DRIVE), str(FOLDER)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    assert run.stderr is not None
    try:
        run.stdin.write(json.dumps(given).encode() + b"\n")
        line = await asyncio.wait_for(run.stdout.readline(), 60)
        assert line, (await run.stderr.read()).decode()
        url = urlsplit(json.loads(line)["url"])
        query = {name: value for name, [value] in parse_qs(url.query).items()}
        assert set(query) == {"client_id", "request_uri"}
        browser = the_bank.browser()
        told = await browser.consent(query["client_id"], query["request_uri"])
        assert set(told) == ({"response"} if signed else {"code", "state", "iss"})
        run.stdin.write(json.dumps({"back": browser.sent_to}).encode() + b"\n")
        line = await asyncio.wait_for(run.stdout.readline(), 60)
        assert line, (await run.stderr.read()).decode()
        heard = json.loads(line)
    finally:
        if run.returncode is None:
            run.kill()
        await run.wait()

    assert heard["token_type"] == "dpop"
    assert [each["id"] for each in heard["accounts"]["items"]] == [the_bank.wallet]
    assert heard["refreshed"] == heard["accounts"]
    assert heard["revoked"] == "invalid_token"


async def at_the_last_page(bank: Bank, details: Any = ACCOUNTS) -> tuple[Browser, Reply]:
    await bank.stage.db.fetch("delete from code_allowance", ())
    pushed = await bank.partner.push(details)
    browser = bank.browser()
    await browser.open(bank.partner.client_id, pushed.json["request_uri"])
    await browser.log_in()
    chosen = {f"account.{bank.wallet}": "on"}
    return browser, await browser.post("choose", **chosen)


def question(page: Reply) -> tuple[str, dict[str, Any]]:
    """What the page asks a passkey to sign."""
    shown = text(page)
    [options] = re.findall(r'data-passkey="([^"]+)"', shown)
    [challenge] = re.findall(r'name="challenge_id" value="(\w+)"', shown)
    return challenge, json.loads(html.unescape(options))


async def test_a_passkey_confirms_exactly_what_the_page_shows(the_bank: Bank, key: Key) -> None:
    browser, page = await at_the_last_page(the_bank)
    other, another = await at_the_last_page(the_bank, the_bank.payment(100))
    challenge, options = question(page)
    elsewhere, _ = question(another)
    stranger = Key(the_bank.stage.url, "localhost")
    for named, said in (
        (elsewhere, key.get(question(another)[1])),  # about another consent
        ("chg_none", key.get(options)),
        (challenge, stranger.get(options)),
    ):
        wrong = await browser.post("passkey", challenge_id=named, response=json.dumps(said))
        assert (wrong.status, "did not confirm" in text(wrong)) == (422, True)
    assert (await browser.post("passkey", challenge_id=challenge, response="{")).status == 422
    challenge, options = question(wrong)
    said = json.dumps(key.get(options))
    back = await browser.post("passkey", challenge_id=challenge, response=said)
    assert back.status == 303, text(back)
    tokens = await the_bank.partner.exchange(answered(back)["code"])
    assert tokens.status == 400  # the verifier is the second request's
    assert (await other.post("reject")).status == 303
    [entry] = await the_bank.stage.db.fetch(
        "select facts from audit_entry where action = 'consent.authorised'"
        " order by at desc limit 1",
        (),
    )
    assert "passkey" in str(entry["facts"])


async def with_authenticator(page: Any) -> tuple[Any, str]:
    """Have Chromium play an authenticator with a finger that is always there."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        **dict.fromkeys(("hasResidentKey", "hasUserVerification", "isUserVerified"), True),
    }
    made = await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return devtools, str(made["authenticatorId"])


async def test_a_browser_confirms_with_its_own_passkey(the_bank: Bank, key: Key) -> None:
    """The page's script asks the authenticator that Chromium plays, and sends what it answers."""
    stage = the_bank.stage
    await stage.db.fetch("delete from code_allowance", ())
    me = (await the_bank.phone.get("/v1/me")).json["id"]
    pushed = await the_bank.partner.push()
    address = (
        f"{stage.url}/oauth/authorize?client_id={the_bank.partner.client_id}"
        f"&request_uri={pushed.json['request_uri']}"
    )
    async with browsing(stage, alone=True) as watched:
        page = watched.page
        devtools, authenticator = await with_authenticator(page)
        private = key.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        credential = {
            "credentialId": base64.b64encode(key.id).decode(),
            "isResidentCredential": True,
            "rpId": "localhost",
            "privateKey": base64.b64encode(private).decode(),
            "userHandle": base64.b64encode(parse("per", me).bytes).decode(),
            "signCount": key.count + 1,
            "backupEligibility": True,
            "backupState": True,
        }
        kept = {"authenticatorId": authenticator, "credential": credential}
        await devtools.send("WebAuthn.addCredential", kept)
        await page.goto(address)
        await page.fill("input[name=contact]", NUMBER)
        await page.fill("input[name=password]", PASSWORD)
        await page.click("form[action$=log_in] button")
        await page.check(f"input[name='account.{the_bank.wallet}']")
        await page.click("form[action$=choose] button")
        await page.set_viewport_size({"width": 320, "height": 640})
        brand = await page.locator(".brand").bounding_box()
        assert brand["height"] < 40, "the name is on one line"
        assert await fits(page)
        assert watched.complaints == []
        async with page.expect_request(lambda asked: asked.url.startswith(BACK)) as sent:
            await page.click("form[action$=passkey] button")
        told = parse_qs(urlsplit((await sent.value).url).query)
        key.count += 10
    tokens = await the_bank.partner.exchange(told["code"][0])
    assert tokens.status == 200, tokens.body


async def test_an_operator_enrols_a_passkey_in_a_browser_and_logs_in_with_it(
    shared_stage: Stage,
) -> None:
    """The console asks by the same script, to make a passkey and to use it."""
    person = await hire(shared_stage, login="passkey.browser")
    wrist = Wrist(person.totp)
    async with browsing(shared_stage, alone=True) as watched:
        page = watched.page
        devtools, authenticator = await with_authenticator(page)
        await page.goto(f"{shared_stage.url}/console/login")
        await page.fill("input[name=login]", person.login)
        await page.fill("input[name=password]", person.password)
        await page.fill("input[name=code]", wrist.code())
        await page.click("form button.is-solid")
        await page.wait_for_url("**/console/payments*")
        await page.goto(f"{shared_stage.url}/console/me")
        form = page.locator("form[data-make]")
        await page.locator("details:has(form[data-make]) summary").click()
        await form.locator("input[name=name]").fill("desk key")
        await form.locator("input[name=password]").fill(person.password)
        await form.locator("input[name=code]").fill(wrist.code())
        await form.locator("button").click()
        await page.wait_for_selector("td:has-text('desk key')")
        kept = await devtools.send("WebAuthn.getCredentials", {"authenticatorId": authenticator})
        assert [each["rpId"] for each in kept["credentials"]] == ["localhost"]
        await page.context.clear_cookies()
        await page.goto(f"{shared_stage.url}/console/login?with=passkey")
        await page.fill("input[name=login]", person.login)
        await page.fill("input[name=password]", person.password)
        await page.click("form button.is-solid")
        await page.wait_for_url("**/console/payments*")
        assert watched.complaints == []
    [*_, entered] = await audit.entries_of_actions(shared_stage.db, ["operator.logged_in"])
    assert entered.facts == {"by": "passkey"}
