"""What lies beside the merchants' API keeps its own documents: people's phones, and partners."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2 as httpx
import jsonschema
import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace

from tests.infra.signed_client import SignedClient, call
from tests.parties.phones import Phone
from tests.stage import Stage
from tests.surfaces import test_open_bank
from tests.surfaces.partnering import ACCOUNTS, BACK, Browser, Partner
from tests.surfaces.test_open_bank import Bank
from tests.surfaces.test_roles import key_with
from tests.surfaces.test_schemathesis import CAMPAIGN, explore
from tongbao.infra.dpop_nonces import current_nonce
from tongbao.infra.web.interface_numbers import Area, Level
from tongbao.kernel.ids import new_id, show
from tongbao.parties.identity.model import scopes_under
from tongbao.surfaces.open_bank import resources
from tongbao.surfaces.open_bank.app import INTERFACES, open_bank
from tongbao.surfaces.open_bank.interfaces import (
    ByAnybody,
    ByConsent,
    Interface,
    LevelTooLow,
)
from tongbao.surfaces.uk_open_banking.app import UK_INTERFACES
from tongbao.surfaces.wallet.assembly import desk_of
from tongbao_sdk import OpenBank, Refused
from tongbao_sdk.errors import MixedUp

the_bank = test_open_bank.the_bank
STRANGER = "13700137009"
QUICK: dict[str, Any] = (
    {} if CAMPAIGN > 1 else {key: {"enabled": False} for key in ("coverage", "stateful")}
)


@pytest.fixture
async def bank(the_bank: Bank, shared_stage: Stage) -> AsyncIterator[Bank]:
    yield the_bank
    await shared_stage.db.fetch("delete from code_allowance", ())


def address(interface: Interface, account: str = "wal_0") -> str:
    return interface.path.replace("{account}", account)


async def document(stage: Stage, at: str) -> dict[str, Any]:
    return dict((await call(stage.app, "GET", at, {}, [b""])).json)


# JR/T 0185-2020: levels and numbers


async def test_every_interface_has_a_level_and_a_number_of_its_own(bank: Bank) -> None:
    told = await document(bank.stage, "/open_bank/openapi.json")
    ids = []
    for each in INTERFACES:
        operation = told["paths"][each.path][each.method.lower()]
        ids.append(operation["x-u-api-id"])
        assert operation["x-security-level"] == each.level
        level = {"A1": "01", "A2": "02"}[each.level]
        assert re.fullmatch(rf"OP000000{level}[0-9]{{14}}", ids[-1])
    assert len(set(ids)) == len(INTERFACES) == sum(map(len, told["paths"].values()))


@pytest.mark.parametrize("each", INTERFACES, ids=lambda each: f"{each.method} {each.path}")
async def test_a_level_binds_who_is_answered(bank: Bank, each: Interface) -> None:
    """A2 answers nobody who has not proved a key of theirs; A1 tells nothing about anybody."""
    app = bank.stage.app
    bare = await call(app, each.method, address(each), {}, [b""])
    forged = await call(
        *(app, each.method, address(each)),
        {"authorization": "DPoP forged", "dpop": bank.partner.proof(each.method, each.path)},
        [b""],
    )
    told = await document(bank.stage, "/open_bank/openapi.json")
    expected = told["paths"][each.path][each.method.lower()]["x-u-api-id"]
    assert bare.headers["x-u-api-id"] == expected
    if each.level is Level.A1:
        assert bare.status == 200
        assert bank.partner.client_id not in bare.body.decode()
    else:
        refused = {"invalid_token"} if isinstance(each.way, ByConsent) else {"invalid_client"}
        assert {bare.json["error"], forged.json["error"]} == refused
        assert (bare.status, forged.status) == (401, 401)


def test_nothing_of_the_higher_level_can_be_declared_for_anybody() -> None:
    with pytest.raises(LevelTooLow):
        Interface("GET", "/open_bank/x", Level.A2, Area.FUNDS, 9, ByAnybody(print))


OF_WALLETS = ("user_wallets:", "wallets:")


async def test_every_route_of_wallets_has_a_level_and_a_number_of_its_own(bank: Bank) -> None:
    """Merchants' programs are third parties too: from the router's own list, not one is left out.

    Whoever is proved is told it with the answer, with a refusal and where the scope is missing.
    """
    stage, numbers = bank.stage, []
    about = [each for each in stage.app.operations if each.access.scope.startswith(OF_WALLETS)]
    assert len(about) > 20
    others = set(scopes_under(stage.platform.settings.licence)) - {e.access.scope for e in about}
    poor = await key_with(stage, others)
    rich = SignedClient(stage.app, stage.shop.key_id, stage.shop.secret.reveal())
    for each in about:
        numbered = each.access.interface
        assert numbered is not None, f"{each.method} {each.path}"
        assert numbered.level is Level.A2
        numbers.append(numbered.api_id("000000"))
        told = stage.app.document["paths"][each.path][each.method.lower()]
        assert (told["x-u-api-id"], told["x-security-level"]) == (numbers[-1], "A2")
        target = re.sub(r"\{\w+\}", "x", each.path)
        for key in (rich, poor):
            answer = await key.send(each.method, target)
            assert answer.headers["x-u-api-id"] == numbers[-1], target
        stranger = await call(stage.app, each.method, target, {}, [b""])
        assert stranger.status == 401, target
    numbers += [each.api_id("000000") for each in (*INTERFACES, *UK_INTERFACES)]
    assert len(set(numbers)) == len(numbers)
    of_shops = await rich.send("GET", "/v1/payments")
    assert "x-u-api-id" not in of_shops.headers


# Tenants


async def test_a_token_opens_nothing_of_another_persons_or_partners(bank: Bank) -> None:
    """Whatever account is asked for that is not the consent's, it is as if there were none."""
    token = await bank.token()
    other = await another(bank, STRANGER)
    theirs = await new_wallet(bank, other)
    rivals = Partner(bank.stage, bank.rival.client_id, bank.rival.key)
    pushed = await rivals.push()
    browser = Browser(bank.stage, other, STRANGER)
    told = await browser.consent(rivals.client_id, pushed.json["request_uri"], theirs)
    rivals_token = (await rivals.exchange(told["code"])).json["access_token"]
    about = [each for each in INTERFACES if "{account}" in each.path]
    assert len(about) == 3
    for each in about:
        mine = await bank.partner.ask(each.method, address(each, bank.wallet), token)
        assert mine.status == 200
        answers = [
            await bank.partner.ask(each.method, address(each, asked), token)
            for asked in (theirs, bank.payee, show("wal", new_id()))
        ]
        assert {(reply.status, reply.body) for reply in answers} == {(404, answers[0].body)}
        stolen = await rivals.ask(each.method, address(each, bank.wallet), rivals_token)
        assert (stolen.status, stolen.body) == (404, answers[0].body)
        thief = await rivals.ask(each.method, address(each, bank.wallet), token)
        assert (thief.status, thief.json["error"]) == (401, "invalid_token")


async def another(bank: Bank, number: str) -> Phone:
    phone = Phone(bank.stage.app, bank.phone.post_office)
    phone.mode = bank.phone.mode
    made = await phone.register(number)
    assert made.status == 201, made.body
    return phone


async def new_wallet(bank: Bank, owner: Phone) -> str:
    wallets = bank.stage.client.wallets
    wallet = str((await bank.stage.call(wallets.open, holder_name="王五"))["id"])
    code = (await bank.stage.call(wallets.payment_code, wallet))["code"]
    claimed = await owner.post("/v1/me/wallets", payment_code=code)
    assert claimed.status == 201, claimed.body
    return wallet


async def test_a_phone_sees_and_ends_nothing_of_another_persons(bank: Bank) -> None:
    """Every id that one person is shown is tried at every route with another person's session."""
    await bank.granted()
    other = await another(bank, "13700137008")
    told = await document(bank.stage, "/v1/me/openapi.json")
    lists = [
        path
        for path, verbs in told["paths"].items()
        if "get" in verbs and "{" not in path and path != "/v1/me/consent_texts"
    ]
    shown = {
        each
        for path in lists
        for each in re.findall(
            r"[a-z]{2,4}_[0-9a-hjkmnp-tv-z]{26}", (await bank.phone.get(path)).body.decode()
        )
    }
    assert {"wal", "cns", "dev", "per"} <= {each.partition("_")[0] for each in shown}
    for path, verbs in told["paths"].items():
        for verb, operation in verbs.items():
            for each in sorted(shown) if "{" in path else ():
                target = re.sub(r"\{\w+\}", each, path)
                content = operation.get("requestBody", {}).get("content", {})
                body = {"amount": 1} if content else None
                reply = await other.send(verb.upper(), target, body)
                assert reply.status in {400, 404}, (verb, target, reply.body)
                assert each not in reply.body.decode()
    assert (await bank.phone.get("/v1/me/open_consents?limit=1")).json["items"][0][
        "status"
    ] == "authorised"


# Shapes


async def test_answers_have_the_shapes_of_the_document(bank: Bank) -> None:
    told = await document(bank.stage, "/open_bank/openapi.json")
    seen: set[str] = set()

    async def ask(method: str, path: str, token: str, body: Any = None) -> Any:
        reply = await bank.partner.ask(method, path.replace("{account}", bank.wallet), token, body)
        responses = told["paths"][path][method.lower()]["responses"]
        schema = responses[str(reply.status)]["content"]["application/json"]["schema"]
        jsonschema.validate(reply.json, {**schema, "components": told["components"]})
        seen.add(f"{method} {path}")

    token = await bank.token()
    at = f"{resources.PREFIX}/accounts"
    for path in (f"{resources.PREFIX}/consent", at, f"{at}/{{account}}"):
        await ask("GET", path, token)
    await ask("GET", f"{at}/{{account}}/balance", token)
    await ask("GET", f"{at}/{{account}}/transactions", token)
    asked = {"account_id": bank.wallet, "amount": {"amount": 1, "currency": "CNY"}}
    token = await bank.token({"type": "funds_confirmation"})
    await ask("POST", f"{resources.PREFIX}/funds_confirmations", token, asked)
    token = await bank.token(bank.payment(1))
    for method in ("POST", "POST", "GET"):
        await ask(method, f"{resources.PREFIX}/payments", token)
    served = {f"{i.method} {i.path}" for i in INTERFACES if isinstance(i.way, ByConsent)}
    assert seen == served


class ByPhone(requests.auth.AuthBase):
    """Signs what is about to be sent, as a phone would; it never ends its own session."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert request.url is not None
        assert request.method is not None
        target = urlsplit(request.url)._replace(scheme="", netloc="").geturl()
        body = request.body or b""
        sent = body.encode() if isinstance(body, str) else body
        said = self.phone.authorization(request.method, target, sent, token=self.phone.token)
        request.headers["Authorization"] = said
        return request


class ByToken(requests.auth.AuthBase):
    """Proves its key with every request, on one consent."""

    def __init__(self, partner: Partner, token: str) -> None:
        self.partner, self.token = partner, token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert request.url is not None
        assert request.method is not None
        path = urlsplit(request.url).path
        request.headers["Authorization"] = f"DPoP {self.token}"
        request.headers["DPoP"] = self.partner.proof(request.method, path, token=self.token)
        return request


async def test_the_phones_api_keeps_what_its_document_promises(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.sessions, "get_environ_proxies", lambda *_, **__: {})
    phone = await another(bank, "13700137007")
    told = await document(bank.stage, "/v1/me/openapi.json")
    endings = {
        f"/v1/me/{each}"
        for each in ("log_out", "erasure", "password", "devices/{device_id}/remove")
    }
    told["paths"] = {path: each for path, each in told["paths"].items() if path not in endings}

    found = await asyncio.to_thread(lambda: explore(told, bank.stage.url, ByPhone(phone), **QUICK))

    assert not found.wrong, "\n\n".join(found.wrong.values())
    assert found.answers["GET /v1/me", 200]
    assert (await phone.get("/v1/me")).status == 200  # nobody was locked out on the way


async def test_the_open_bank_keeps_what_its_document_promises(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.sessions, "get_environ_proxies", lambda *_, **__: {})
    told = await document(bank.stage, "/open_bank/openapi.json")
    about = f"{resources.PREFIX}/"
    told["paths"] = {path: each for path, each in told["paths"].items() if path.startswith(about)}
    for verbs in told["paths"].values():
        for operation in verbs.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["example"] = bank.wallet
    token = await bank.token()

    found = await asyncio.to_thread(
        lambda: explore(told, bank.stage.url, ByToken(bank.partner, token), **QUICK)
    )

    assert not found.wrong, "\n\n".join(found.wrong.values())
    assert found.answers[f"GET {about}accounts/{{account}}/balance", 200]


# The SDK of partners


@contextmanager
def served_with(stage: Stage, **changes: Any) -> Iterator[None]:
    """The open bank under other settings."""
    platform = stage.platform
    people = desk_of(platform)

    def mount(**given: Any) -> None:
        settings = replace(platform.settings, **given)
        for prefix, app in open_bank(settings, people, platform.ledger).items():
            stage.app.mount(prefix, app)

    mount(**changes)
    try:
        yield
    finally:
        mount()


async def test_proofs_need_a_nonce_of_ours_where_that_is_switched_on(bank: Bank) -> None:
    at = f"{resources.PREFIX}/accounts"
    token, partner = await bank.token(), bank.partner
    with served_with(bank.stage, dpop_nonces=True):
        bare = await partner.ask("GET", at, token)
        assert (bare.status, bare.json["error"]) == (401, "use_dpop_nonce")
        assert 'DPoP error="use_dpop_nonce"' in bare.headers["www-authenticate"]
        nonce = bare.headers["dpop-nonce"]
        old = current_nonce(b"k" * 32)  # of another key, as one of long ago would be
        for said, status in ((nonce, 200), (old, 401), (nonce[:-1], 401), (7, 401)):
            proof = partner.proof("GET", at, token=token, nonce=said)
            assert (await partner.ask("GET", at, token, proof=proof)).status == status, said
        refused = await partner.refresh("unknown")
        assert (refused.status, refused.json["error"]) == (400, "use_dpop_nonce")
        assert refused.headers["dpop-nonce"] == nonce
    assert "dpop-nonce" not in (await partner.ask("GET", at, token)).headers


async def test_a_partner_asks_only_so_often_and_another_is_not_slowed(bank: Bank) -> None:
    at = f"{resources.PREFIX}/accounts"
    token = await bank.token()
    await bank.stage.db.fetch("delete from rate_bucket", ())
    with served_with(bank.stage, rate_units_per_s=1, rate_burst=3):
        replies = [await bank.partner.ask("GET", at, token) for _ in range(5)]
        assert [each.status for each in replies[:3]] == [200, 200, 200]
        assert replies[-1].status == 429
        assert int(replies[-1].headers["retry-after"]) >= 1
        assert replies[-1].json["error"] == "request.rate_limited"
        assert (await bank.rival.push()).status == 201


async def test_the_sdk_goes_the_whole_way(bank: Bank) -> None:
    with served_with(bank.stage, dpop_nonces=True):
        await go_the_whole_way(bank)


async def go_the_whole_way(bank: Bank) -> None:
    stage = bank.stage
    pem = bank.partner.key.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ).decode()
    seen: set[str] = set()

    def note(request: httpx.Request) -> None:
        path = request.url.path.replace(bank.wallet, "{account}")
        seen.add(f"{request.method} {path}")

    client = httpx.Client(trust_env=False, event_hooks={"request": [note]})
    sdk = OpenBank(stage.url, bank.partner.client_id, private_key=pem, key_id="k1", client=client)

    async def granted(details: Any) -> Any:
        asked = await stage.call(sdk.ask, details, redirect_uri=BACK)
        query = dict(parse_qsl(urlsplit(asked["url"]).query))
        told = await bank.browser().consent(query["client_id"], query["request_uri"], bank.wallet)
        with pytest.raises(MixedUp):
            await stage.call(sdk.take, {**asked, "state": "another"}, told)
        with pytest.raises(MixedUp):
            await stage.call(sdk.take, asked, {**told, "iss": "https://else.example"})
        return await stage.call(sdk.take, asked, told)

    grant = await granted(ACCOUNTS)
    grant = await stage.call(sdk.refresh, grant)
    assert (await stage.call(sdk.consent, grant))["id"] == grant["consent_id"]
    assert [each["id"] for each in await stage.call(sdk.accounts, grant)] == [bank.wallet]
    assert (await stage.call(sdk.introspect, grant))["token_type"] == "DPoP"
    assert (await stage.call(sdk.account, grant, bank.wallet))["status"] == "active"
    held = await stage.call(sdk.balance, grant, bank.wallet)
    [newest] = (await stage.call(sdk.transactions, grant, bank.wallet, limit=1))["items"]
    assert newest["balance_after"] == held["booked"] == await bank.balance(bank.wallet)
    await stage.call(sdk.end, grant)
    with pytest.raises(Refused) as refused:
        await stage.call(sdk.accounts, grant)
    assert refused.value.code == "invalid_token"
    funds = await granted({"type": "funds_confirmation"})
    asked = {"amount": 1, "currency": "CNY"}
    assert await stage.call(sdk.has_funds, funds, bank.wallet, **asked)
    paying = await granted(bank.payment(2))
    made = await stage.call(sdk.pay, paying)
    assert await stage.call(sdk.pay, paying) == made
    assert await stage.call(sdk.payments, paying) == [made]
    proved = {f"{i.method} {i.path}" for i in INTERFACES if i.level is Level.A2}
    assert seen == proved
