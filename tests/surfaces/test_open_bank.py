"""The open bank: FAPI 2.0's negative cases by their names, consents, accounts and payments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.dying import dying
from tests.infra.signed_client import Reply, call
from tests.parties.phones import Phone
from tests.stage import Stage
from tests.surfaces.partnering import (
    ACCOUNTS,
    BACK,
    Browser,
    Es256,
    Partner,
    Rsa,
    answered,
    digest,
    now,
    text,
)
from tests.surfaces.test_wallet_app import SandboxOffice
from tongbao.controls.approvals.approvals import approve
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.consents.consents import revoke_consent
from tongbao.parties.consents.grants import prune_grants
from tongbao.parties.partners.model import Changing, Kind, PartnerState, Proving, TakingOn
from tongbao.parties.partners.partners import (
    active_partner,
    partner_with_id,
    propose_change,
    propose_partner,
    prune_tokens,
    suspend_partner,
)

NUMBER, OTHER = "13700137000", "13700137001"
MAY = {"merchants_act"}


class Bank:
    """A stage with a partner, a person with a wallet, and somebody to pay."""

    stage: Stage
    partner: Partner
    rival: Partner
    phone: Phone
    wallet: str
    payee: str

    def browser(self) -> Browser:
        return Browser(self.stage, self.phone, NUMBER)

    async def taken_on(
        self,
        name: str,
        key: Es256,
        kinds: list[str] | None = None,
        *,
        proving: Proving = Proving(),  # noqa: B008 - frozen
    ) -> Partner:
        """A partner that two operators have taken on."""
        jwks = [{**key.jwk, "kid": "k1"}]
        kinds = kinds or [each.value for each in Kind]
        terms = TakingOn(name, Mode.SANDBOX, [BACK], jwks, kinds, proving)
        async with self.stage.db.begin("maker") as tx:
            asked = await propose_partner(tx, terms, reason="a fine firm", may=MAY)
        await self.agree(asked)
        return Partner(self.stage, show("ptn", derived_id(asked.id, "partner")), key)

    async def agree(self, asked: Any) -> None:
        async with self.stage.db.begin("checker") as tx:
            acts = self.stage.platform.approvals.acts
            await approve(tx, acts, asked.id, digest=asked.digest.hex(), may=MAY)
        await self.stage.idle()

    async def granted(self, details: Any = ACCOUNTS) -> tuple[str, Reply]:
        """A code and the tokens that came of it."""
        pushed = await self.partner.push(details)
        assert pushed.status == 201, pushed.body
        told = await self.browser().consent(
            self.partner.client_id, pushed.json["request_uri"], self.wallet
        )
        return told["code"], await self.partner.exchange(told["code"])

    async def code(self, partner: Partner | None = None, details: Any = ACCOUNTS) -> str:
        by = partner or self.partner
        pushed = await by.push(details)
        return (await self.browser().consent(by.client_id, pushed.json["request_uri"]))["code"]

    async def token(self, details: Any = ACCOUNTS) -> str:
        _, tokens = await self.granted(details)
        assert tokens.status == 200, tokens.body
        return str(tokens.json["access_token"])

    def payment(self, amount: int = 700) -> dict[str, Any]:
        return {
            "type": "payment_initiation",
            "amount": {"amount": amount, "currency": "CNY"},
            "creditor": {"account": self.payee, "name": "Lucky Noodles"},
            "remittance": "lunch",
        }

    async def balance(self, wallet: str) -> int:
        found = await self.stage.call(self.stage.client.wallets.get, wallet)
        return int(found["balance"])


@pytest.fixture(scope="module")
async def the_bank(module_stage: Stage) -> Bank:
    bank, stage = Bank(), module_stage
    bank.stage = stage
    await stage.live_together()
    bank.partner = await bank.taken_on("Ledger Lens", Es256())
    bank.rival = await bank.taken_on("Rival", Rsa())
    office = SandboxOffice(stage)
    bank.phone = Phone(stage.app, office)
    bank.phone.mode = {"mode": "sandbox"}
    made = await bank.phone.register(NUMBER)
    assert made.status == 201, made.body
    wallets = stage.client.wallets
    bank.wallet = (await stage.call(wallets.open, holder_name="张三"))["id"]
    await stage.call(wallets.top_up, bank.wallet, amount=100_000)
    bank.payee = (await stage.call(wallets.open, holder_name="李四"))["id"]
    shown = await stage.call(wallets.payment_code, bank.wallet)
    async with stage.db.begin("test") as tx:  # a phone bound long ago needs no proofs for this
        await tx.execute("update step_up_rule set level = 0 where kind = 'security'", ())
    claimed = await bank.phone.post("/v1/me/wallets", payment_code=shown["code"])
    assert claimed.status == 201, claimed.body
    return bank


@pytest.fixture
async def bank(the_bank: Bank, shared_stage: Stage) -> AsyncIterator[Bank]:
    yield the_bank
    await shared_stage.db.fetch("delete from code_allowance", ())


def error_of(reply: Reply) -> str:
    assert reply.status in {400, 401}, (reply.status, reply.body)
    return str(reply.json["error"])


# The way through


async def test_a_partner_sees_what_a_person_consented_to_and_no_more(bank: Bank) -> None:
    pushed = await bank.partner.push()
    browser = bank.browser()
    page = await browser.open(bank.partner.client_id, pushed.json["request_uri"])
    assert "Ledger Lens" in text(page)
    assert "balances" in text(page)
    policy = page.headers["content-security-policy"]
    assert "form-action 'self' https://app.partner.example;" in policy
    told = await bank.browser().consent(
        bank.partner.client_id, (await bank.partner.push()).json["request_uri"]
    )
    assert told == {"code": told["code"], "state": "xyz", "iss": bank.stage.url}
    tokens = (await bank.partner.exchange(told["code"])).json
    assert tokens["token_type"] == "DPoP"
    assert tokens["authorization_details"][0]["permissions"] == ACCOUNTS["permissions"]

    ask, token = bank.partner.ask, tokens["access_token"]
    listed = (await ask("GET", "/open_bank/accounts", token)).json["items"]
    at = f"/open_bank/accounts/{bank.wallet}"
    balance = (await ask("GET", f"{at}/balance", token)).json
    movements = (await ask("GET", f"{at}/transactions?limit=5", token)).json["items"]
    assert [each["id"] for each in listed] == [bank.wallet]
    assert listed[0]["holder_name"] == "*三"
    assert balance["available"] == await bank.balance(bank.wallet)
    assert movements[-1]["code"] == "wallet.topped_up/amount"
    stranger = await ask("GET", f"/open_bank/accounts/{bank.payee}/balance", token)
    assert stranger.json["error"] == "consent.account_not_held"
    assert (await ask("POST", "/open_bank/payments", token)).json["error"] == "insufficient_scope"

    again = await bank.partner.refresh(tokens["refresh_token"])
    assert again.status == 200
    assert "refresh_token" not in again.json  # it is not rotated
    assert (await ask("GET", "/open_bank/consent", again.json["access_token"])).status == 200


async def test_the_metadata_says_what_fapi_asks_for(bank: Bank) -> None:
    told = (
        await call(bank.stage.app, "GET", "/.well-known/oauth-authorization-server", {}, [b""])
    ).json

    assert told["issuer"] == bank.stage.url
    assert told["require_pushed_authorization_requests"] is True
    assert told["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert told["code_challenge_methods_supported"] == ["S256"]
    assert told["response_types_supported"] == ["code"]
    assert set(told["grant_types_supported"]) <= {
        *("authorization_code", "refresh_token", "client_credentials")
    }
    assert told["authorization_response_iss_parameter_supported"] is True
    assert told["request_object_signing_alg_values_supported"] == ["PS256", "ES256", "EdDSA"]
    assert told["response_modes_supported"] == ["query", "jwt"]


async def test_a_payment_is_made_once_however_often_it_is_asked_for(bank: Bank) -> None:
    before, payee = await bank.balance(bank.wallet), await bank.balance(bank.payee)
    token = await bank.token(bank.payment(700))
    tries = [bank.partner.ask("POST", "/open_bank/payments", token) for _ in range(4)]
    replies = await asyncio.gather(*tries)
    later = await bank.partner.ask("POST", "/open_bank/payments", token)
    listed = await bank.partner.ask("GET", "/open_bank/payments", token)

    assert {each.status for each in (*replies, later)} <= {200, 201}, [r.body for r in replies]
    assert len({each.json["id"] for each in (*replies, later)}) == 1
    assert listed.json["items"][0]["status"] == "succeeded"
    assert await bank.balance(bank.wallet) == before - 700
    assert await bank.balance(bank.payee) == payee + 700
    status = await bank.phone.get("/v1/me/open_consents")
    assert status.json["items"][0]["status"] == "consumed"


async def test_a_payment_that_the_book_refuses_changes_nothing(bank: Bank) -> None:
    before = await bank.balance(bank.wallet)
    token = await bank.token(bank.payment(before + 1))
    refused = await bank.partner.ask("POST", "/open_bank/payments", token)
    assert refused.json["error"] == "consent.payment_refused"
    assert refused.json["facts"] == {"reason": "ledger.exceeds_balance"}
    assert await bank.balance(bank.wallet) == before
    assert (await bank.partner.ask("GET", "/open_bank/payments", token)).json["items"] == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x-cvc1234-y", "invalid_grant"),  # as random letters are, once in many thousands
        ("x.4111-1111-1111-1111.y", "invalid_grant"),
        ("4111111111111111", "card_number.unexpected"),
        ("x 4111111111111111", "card_number.unexpected"),
    ],
)
async def test_what_only_proves_something_is_no_card(bank: Bank, code: str, said: str) -> None:
    await bank.code()
    assert error_of(await bank.partner.exchange(code)) == said


async def test_funds_are_confirmed_by_yes_and_no(bank: Bank) -> None:
    token = await bank.token({"type": "funds_confirmation"})
    answers = [
        await bank.partner.ask(
            *("POST", "/open_bank/funds_confirmations", token),
            {"account_id": bank.wallet, "amount": {"amount": amount, "currency": "CNY"}},
        )
        for amount in (1, 10**9)
    ]
    assert [each.json["funds_available"] for each in answers] == [True, False]
    assert set(answers[0].json) == {"object", "funds_available"}


async def test_a_person_lists_and_revokes_a_consent_and_its_tokens_end(bank: Bank) -> None:
    _, tokens = await bank.granted()
    [newest, *_] = (await bank.phone.get("/v1/me/open_consents?limit=1")).json["items"]
    assert (newest["partner"], newest["status"]) == ("Ledger Lens", "authorised")
    for _ in range(2):  # repeating it changes nothing
        ended = await bank.phone.post(f"/v1/me/open_consents/{newest['id']}/revoke")
        assert ended.json["status"] == "revoked"
    denied = await bank.partner.ask("GET", "/open_bank/accounts", tokens.json["access_token"])
    assert error_of(denied) == "invalid_token"
    assert error_of(await bank.partner.refresh(tokens.json["refresh_token"])) == "invalid_grant"
    stranger = Phone(bank.stage.app, bank.phone.post_office)
    stranger.mode = bank.phone.mode
    await stranger.register(OTHER)
    stolen = await stranger.post(f"/v1/me/open_consents/{newest['id']}/revoke")
    assert stolen.code == "consent.not_found"
    assert (await stranger.get("/v1/me/open_consents")).json["items"] == []


async def test_who_rejects_is_sent_back_without_a_code(bank: Bank) -> None:
    pushed = await bank.partner.push()
    browser = bank.browser()
    await browser.open(bank.partner.client_id, pushed.json["request_uri"])
    told = answered(await browser.post("reject"))
    assert told == {"error": "access_denied", "state": "xyz", "iss": bank.stage.url}
    assert (await browser.post("confirm", code="000000")).status == 409


async def test_a_revoked_refresh_token_takes_its_consent_with_it(bank: Bank) -> None:
    _, tokens = await bank.granted()
    fields = {"token": tokens.json["refresh_token"]}
    assert (await bank.rival.form("/oauth/revoke", fields)).status == 200  # it is not the rival's
    asked = await bank.partner.ask("GET", "/open_bank/consent", tokens.json["access_token"])
    assert asked.status == 200
    assert (await bank.partner.form("/oauth/revoke", fields)).status == 200
    assert (await bank.partner.form("/oauth/revoke", {"token": "unknown"})).status == 200
    asked = await bank.partner.ask("GET", "/open_bank/consent", tokens.json["access_token"])
    assert error_of(asked) == "invalid_token"


# The browser


async def test_a_browser_gets_nowhere_with_what_is_not_its_own(bank: Bank) -> None:
    pushed = await bank.partner.push()
    uri, mine, other = pushed.json["request_uri"], bank.browser(), bank.browser()
    assert (await other.open(bank.rival.client_id, uri)).status == 409
    assert (await mine.open(bank.partner.client_id, uri)).status == 200
    assert (await mine.open(bank.partner.client_id, uri)).status == 200  # loaded again
    assert (await other.open(bank.partner.client_id, uri)).status == 409
    assert (await other.log_in()).status == 409
    wrong = await mine.log_in("not the password")
    assert (wrong.status, "wrong" in text(wrong)) == (422, True)
    forged = await mine.send(
        "POST", "/oauth/authorize/log_in", {"contact": NUMBER}, **{"sec-fetch-site": "cross-site"}
    )
    assert forged.status == 403
    assert (await mine.post("choose", **{f"account.{bank.wallet}": "on"})).status == 409
    assert (await mine.log_in()).status == 200
    assert (await mine.post("choose", **{f"account.{bank.payee}": "on"})).status == 422
    await bank.phone.post_office.wait()
    assert (await mine.post("choose", **{f"account.{bank.wallet}": "on"})).status == 200
    wrong = await mine.post("confirm", code="12345x")
    assert wrong.status == 422
    mine.language = "zh"
    assert "确认授权" in text(await mine.send("GET", "/oauth/authorize"))
    assert (await mine.post("confirm", code=await mine.code())).status == 303
    assert (await mine.post("confirm", code="123456")).status == 409


async def test_one_request_does_not_let_anybody_guess_for_long(bank: Bank) -> None:
    pushed = await bank.partner.push()
    browser = bank.browser()
    browser.contact = "13700137777"  # nobody's
    await browser.open(bank.partner.client_id, pushed.json["request_uri"])
    tries = [(await browser.log_in(f"guess {number}")).status for number in range(11)]
    assert tries == [*[422] * 10, 429]


async def test_a_stranger_without_a_token_makes_nobody_remember_a_proof(bank: Bank) -> None:
    count = "select count(*) as n from seen_token"
    before = await bank.stage.db.fetch(count, ())
    refused = await bank.partner.ask("GET", "/open_bank/accounts", "made-up")
    assert error_of(refused) == "invalid_token"
    assert await bank.stage.db.fetch(count, ()) == before


async def test_a_pushed_request_is_over_after_a_minute(bank: Bank) -> None:
    pushed = await bank.partner.push()
    await bank.stage.db.fetch("update authorisation set expires_at = now() - interval '1 s'", ())
    reply = await bank.browser().open(bank.partner.client_id, pushed.json["request_uri"])
    assert reply.status == 409
    assert "location" not in reply.headers


# FAPI 2.0, by the names of the conformance suite's cases


async def test_attempt_reuse_authorization_code_after_one_second(bank: Bank) -> None:
    code, tokens = await bank.granted()
    assert tokens.status == 200
    assert error_of(await bank.partner.exchange(code)) == "invalid_grant"
    ask = bank.partner.ask("GET", "/open_bank/accounts", tokens.json["access_token"])
    assert error_of(await ask) == "invalid_token"
    assert error_of(await bank.partner.refresh(tokens.json["refresh_token"])) == "invalid_grant"


async def test_of_two_uses_of_a_code_at_once_nothing_stays(bank: Bank) -> None:
    code = await bank.code()
    replies = await asyncio.gather(*(bank.partner.exchange(code) for _ in range(2)))
    [good] = [each for each in replies if each.status == 200]
    ask = bank.partner.ask("GET", "/open_bank/accounts", good.json["access_token"])
    assert error_of(await ask) == "invalid_token"


async def test_attempt_to_use_expired_auth_code(bank: Bank) -> None:
    code = await bank.code()
    [row] = await bank.stage.db.fetch(
        "select max(code_expires_at) - now() as left from authorisation", ()
    )
    assert timedelta(0) < row["left"] <= timedelta(seconds=60), "FAPI 2.0: 60 seconds at most"
    await bank.stage.db.fetch(
        "update authorisation set code_expires_at = now() - interval '1 s'"
        " where code_used_at is null and code_expires_at is not null",
        (),
    )
    assert error_of(await bank.partner.exchange(code)) == "invalid_grant"


async def test_ensure_authorization_code_is_bound_to_client(bank: Bank) -> None:
    code = await bank.code()
    bank.rival.verifier = bank.partner.verifier
    assert error_of(await bank.rival.exchange(code)) == "invalid_grant"
    assert (await bank.partner.exchange(code)).status == 200  # and nothing was lost by it


async def test_a_code_needs_its_verifier_and_its_redirect(bank: Bank) -> None:
    code = await bank.code()
    wrong = {"code_verifier": "v" * 43}, {"redirect_uri": BACK + "/"}, {"code_verifier": "short"}
    for each in wrong:
        assert error_of(await bank.partner.exchange(code, **each)) == "invalid_grant"
    missing = await bank.partner.exchange(code, code_verifier=None)
    assert error_of(missing) == "invalid_request"
    assert (await bank.partner.exchange(code)).status == 200


async def test_ensure_holder_of_key_required(bank: Bank) -> None:
    code = await bank.code()
    assert error_of(await bank.partner.exchange(code, proof="")) == "invalid_dpop_proof"
    token = (await bank.partner.exchange(code)).json["access_token"]
    at = "/open_bank/accounts"
    bearer = await call(bank.stage.app, "GET", at, {"authorization": f"Bearer {token}"}, [b""])
    assert error_of(bearer) == "invalid_token"
    assert 'algs="PS256 ES256 EdDSA"' in bearer.headers["www-authenticate"]
    none = await call(bank.stage.app, "GET", at, {"authorization": f"DPoP {token}"}, [b""])
    assert error_of(none) == "invalid_dpop_proof"
    other = bank.partner.proof("GET", at, token=token, key=Es256())
    assert error_of(await bank.partner.ask("GET", at, token, proof=other)) == "invalid_token"


async def test_ensure_mismatched_dpop_jkt_fails(bank: Bank) -> None:
    shown = bank.partner.proof("POST", "/oauth/par")
    differs = await bank.partner.push(proof=shown, dpop_jkt=Es256().jkt)
    assert error_of(differs) == "invalid_dpop_proof"
    pushed = await bank.partner.push(dpop_jkt=Es256().jkt)
    told = await bank.browser().consent(bank.partner.client_id, pushed.json["request_uri"])
    assert error_of(await bank.partner.exchange(told["code"])) == "invalid_dpop_proof"


async def test_dpop_negative_tests(bank: Bank) -> None:
    token, at = await bank.token(), "/open_bank/accounts"
    proof, ask = bank.partner.proof, bank.partner.ask
    rs256 = Rsa("RS256")
    private = {**bank.partner.dpop.jwk, "d": "AA"}
    wrong = {
        "another method": proof("POST", at, token=token),
        "another address": proof("GET", "/open_bank/consent", token=token),
        "another token": proof("GET", at, token="x"),
        "no ath": proof("GET", at),
        "no jti": proof("GET", at, token=token, without=("jti",)),
        "no iat": proof("GET", at, token=token, without=("iat",)),
        "no htu": proof("GET", at, token=token, without=("htu",)),
        "too old": proof("GET", at, token=token, iat=now() - 120),
        "ahead": proof("GET", at, token=token, iat=now() + 120),
        "another typ": proof("GET", at, token=token, header={"typ": "JWT"}),
        "a private key": proof("GET", at, token=token, header={"jwk": private}),
        "another key": proof("GET", at, token=token, header={"jwk": Es256().jwk}),
        "alg none": proof("GET", at, token=token, header={"alg": "none"}),
        "RS256": proof("GET", at, token=token, key=rs256),
        "an unknown header": proof("GET", at, token=token, header={"crit": ["b64"]}),
        "no token": "x",
    }
    for what, text_ in wrong.items():
        refused = await ask("GET", at, token, proof=text_)
        assert error_of(refused) == "invalid_dpop_proof", what
    good = proof("GET", at, token=token)
    padded = good + "="
    assert error_of(await ask("GET", at, token, proof=padded)) == "invalid_dpop_proof"
    assert (await ask("GET", at, token, proof=good)).status == 200
    assert error_of(await ask("GET", at, token, proof=good)) == "invalid_dpop_proof"


async def test_check_dpop_proof_nbf_exp(bank: Bank) -> None:
    token, at = await bank.token(), "/open_bank/accounts"
    for claims, status in (
        ({"exp": now() - 60}, 400),
        ({"nbf": now() + 60}, 400),
        ({"exp": "soon"}, 400),
        ({"exp": now() + 60, "nbf": now() + 5}, 200),  # ten seconds ahead must be taken
    ):
        proof = bank.partner.proof("GET", at, token=token, **claims)
        assert (await bank.partner.ask("GET", at, token, proof=proof)).status == status, claims


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": -300}, id="EnsureClientAssertionExpIs5MinutesInPastFails"),
        pytest.param({"without": ("sub",)}, id="EnsureClientAssertionNoSubFails"),
        pytest.param({"aud": "https://else.example"}, id="EnsureClientAssertionWrongAudFails"),
        pytest.param({"aud": []}, id="aud is a list"),
        pytest.param({"iss": "somebody"}, id="iss is another"),
        pytest.param({"without": ("jti",)}, id="no jti"),
        pytest.param({"without": ("exp",)}, id="no exp"),
        pytest.param({"nbf": 90}, id="nbf is more than 60 s ahead"),
        pytest.param({"exp": 7200}, id="exp is two hours ahead"),
    ],
)
async def test_a_client_assertion_that_is_wrong_proves_nobody(
    bank: Bank, claims: dict[str, Any]
) -> None:
    said: dict[str, Any] = {
        name: now() + value if isinstance(value, int) else value for name, value in claims.items()
    }
    if claims.get("aud") == []:
        said["aud"] = [bank.partner.issuer]
    reply = await bank.partner.push(client_assertion=bank.partner.assertion(**said))
    assert (reply.status, error_of(reply)) == (401, "invalid_client")


async def test_a_client_assertion_is_good_once_and_by_the_clients_own_key(bank: Bank) -> None:
    used = bank.partner.assertion()
    assert (await bank.partner.push(client_assertion=used)).status == 201
    assert error_of(await bank.partner.push(client_assertion=used)) == "invalid_client"
    forger = Partner(bank.stage, bank.partner.client_id, Es256())
    assert error_of(await forger.push()) == "invalid_client"
    near = bank.partner.assertion(nbf=now() + 8, iat=now() + 8)
    assert (await bank.partner.push(client_assertion=near)).status == 201
    assert error_of(await bank.partner.push(client_secret="s")) == "invalid_client"
    assert error_of(await bank.partner.push(client_id="ptn_else")) == "invalid_client"


@pytest.mark.parametrize("names", ["jwk", "jku", "x5u", "x5c", "kid"])
async def test_a_key_that_an_assertion_brings_along_proves_nobody(bank: Bank, names: str) -> None:
    """Only the key on record does (RFC 8725 §3.10): what a header points to is not even fetched."""
    forger = Partner(bank.stage, bank.partner.client_id, Es256())
    url = "https://evil.example/jwks"
    brought = {"jwk": forger.key.jwk, "jku": url, "x5u": url, "x5c": ["AA=="], "kid": url}
    claims = {
        "iss": forger.client_id,
        "sub": forger.client_id,
        "aud": forger.issuer,
        "jti": names * 8,
        "iat": now(),
        "exp": now() + 60,
    }
    header = {"kid": forger.kid, "typ": "JWT", names: brought[names]}
    forged = forger.key.token(header, claims)
    assert error_of(await forger.push(client_assertion=forged)) == "invalid_client"


@pytest.mark.parametrize("grant", ["password", "implicit", "client_credentials", ""])
async def test_no_other_grant_is_taken(bank: Bank, grant: str) -> None:
    """Neither a person's password nor anything without the person's consent gets a token."""
    fields = {"grant_type": grant, "username": "13800138000", "password": "Violet-otter-42"}
    proof = bank.partner.proof("POST", "/oauth/token")
    refused = await bank.partner.form("/oauth/token", fields, proof=proof)
    assert error_of(refused) in {"unsupported_grant_type", "invalid_request"}
    assert "access_token" not in refused.json


async def test_no_client_signs_with_rs256(bank: Bank) -> None:
    rs256 = Partner(bank.stage, bank.rival.client_id, bank.rival.key)
    rs256.key.alg = "RS256"
    try:
        assert error_of(await rs256.push()) == "invalid_client"
    finally:
        rs256.key.alg = "PS256"


async def test_par_reject_request_uri_in_par_authorization_request(bank: Bank) -> None:
    assert error_of(await bank.partner.push(request_uri="urn:x")) == "invalid_request"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"redirect_uri": BACK + "?x"}, "invalid_request"),
        ({"redirect_uri": "https://evil.example/cb"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"scope": "payment_initiation"}, "invalid_scope"),
        ({"dpop_jkt": "short"}, "invalid_request"),
        ({"state": "s" * 600}, "invalid_request"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"authorization_details": "{"}, "invalid_authorization_details"),
    ],
)
async def test_a_pushed_request_that_is_wrong_is_refused(
    bank: Bank, change: dict[str, Any], error: str
) -> None:
    assert error_of(await bank.partner.push(**change)) == error


@pytest.mark.parametrize(
    "details",
    [
        {"type": "account_information", "permissions": []},
        {"type": "account_information", "permissions": ["accounts", "accounts"]},
        {"type": "account_information", "permissions": ["accounts"], "expires_at": "2020-01-01"},
        {**ACCOUNTS, "expires_at": "2099-01-01T00:00:00Z"},
        {**ACCOUNTS, "more": 1},
        {"type": "unknown"},
        {
            "type": "payment_initiation",
            "amount": {"amount": 0, "currency": "CNY"},
            "creditor": {"account": "wal_x", "name": "n"},
        },
        {
            "type": "payment_initiation",
            "amount": {"amount": 1, "currency": "CNY"},
            "creditor": {"account": "wal_01kd1nwa8we8rv1jvsa4z9f2kx", "name": "nobody"},
        },
    ],
)
async def test_details_that_nobody_could_consent_to_are_refused(bank: Bank, details: Any) -> None:
    assert error_of(await bank.partner.push(details)) == "invalid_authorization_details"


# Who partners are


async def test_a_suspended_partner_can_do_nothing_and_comes_back_by_two(bank: Bank) -> None:
    partner = await bank.taken_on("Sleepy", Es256(), ["account_information"])
    assert error_of(await partner.push(bank.payment())) == "invalid_authorization_details"
    code = await bank.code(partner)
    token = (await partner.exchange(code)).json["access_token"]
    found = parse("ptn", partner.client_id)
    async with bank.stage.db.begin("operator") as tx:
        await suspend_partner(tx, found, reason="asks too much")
    assert error_of(await partner.push()) == "invalid_client"
    assert error_of(await partner.ask("GET", "/open_bank/accounts", token)) == "invalid_token"

    row = await partner_with_id(bank.stage.db, found)
    fresh = Es256()
    wanted = Changing(
        *(row.name, row.redirect_uris, [{**fresh.jwk, "kid": "k2"}], row.kinds),
        state=PartnerState.ACTIVE,
        changed_at=row.changed_at,
    )
    async with bank.stage.db.begin("maker") as tx:
        asked = await propose_change(tx, found, wanted, reason="new keys", may=MAY)
    assert await active_partner(bank.stage.db, partner.client_id) is None
    await bank.agree(asked)
    assert error_of(await partner.push()) == "invalid_client"  # by the old key
    renewed = Partner(bank.stage, partner.client_id, fresh, "k2")
    assert (await renewed.push()).status == 201


async def test_a_consent_ends_with_its_time(bank: Bank) -> None:
    end = (bank.stage.db.clock.now() + timedelta(hours=1)).isoformat()
    token = await bank.token({**ACCOUNTS, "expires_at": end})
    assert (await bank.partner.ask("GET", "/open_bank/consent", token)).status == 200
    await bank.stage.advance(hours=2)
    refused = await bank.partner.ask("GET", "/open_bank/consent", token)
    assert error_of(refused) == "invalid_token"


async def test_nothing_secret_is_in_the_database(bank: Bank) -> None:
    code, tokens = await bank.granted()
    secrets = [code, tokens.json["access_token"], tokens.json["refresh_token"]]
    for table in ("authorisation", "partner_token", "open_consent", "seen_token"):
        rows = await bank.stage.db.fetch(f"select {table}::text as row from {table}", ())
        kept = json.dumps([each["row"] for each in rows])
        assert not [each for each in secrets if each in kept or digest(each) in kept]


async def test_electronic_accounts_are_seen_beside_wallets(bank: Bank) -> None:
    owner = Phone(bank.stage.app, bank.phone.post_office)
    owner.mode = bank.phone.mode
    await owner.register("13700137005")
    await owner.post("/v1/me/identity", name="张三", resident_id="110101199003078670")
    for source in ("residents", "phones"):
        checked = await owner.post("/v1/me/identity/checks", source=source)
        assert checked.status == 201, checked.body
    made = await owner.post("/v1/me/e_accounts", account_class=1)
    assert made.status == 201, made.body
    pushed = await bank.partner.push()
    browser = Browser(bank.stage, owner, "13700137005")
    told = await browser.consent(
        bank.partner.client_id, pushed.json["request_uri"], made.json["id"]
    )
    token = (await bank.partner.exchange(told["code"])).json["access_token"]
    [seen] = (await bank.partner.ask("GET", "/open_bank/accounts", token)).json["items"]
    at = f"/open_bank/accounts/{seen['id']}"
    assert (seen["kind"], seen["holder_name"]) == ("e_account", "*三")
    assert (await bank.partner.ask("GET", f"{at}/balance", token)).json["booked"] == 0
    assert (await bank.partner.ask("GET", f"{at}/transactions", token)).json["items"] == []


async def test_a_page_says_what_its_address_takes(bank: Bank) -> None:
    page = await bank.browser().send("GET", "/oauth/authorize/confirm")
    assert (page.status, page.headers["allow"]) == (405, "POST")
    assert "text/html" in page.headers["content-type"]


# Death, and two at once


async def test_a_payment_outlives_death_on_either_side_of_its_commit(bank: Bank) -> None:
    before = await bank.balance(bank.wallet)
    for place in ("consents.before_payment", "consents.after_payment"):
        token = await bank.token(bank.payment(300))
        with dying(place):
            await bank.partner.ask("POST", "/open_bank/payments", token)
        again = await bank.partner.ask("POST", "/open_bank/payments", token)
        assert again.status == (201 if "before" in place else 200)
        once_more = await bank.partner.ask("POST", "/open_bank/payments", token)
        assert once_more.json == again.json
    assert await bank.balance(bank.wallet) == before - 600


async def test_a_code_that_died_before_its_commit_was_never_given(bank: Bank) -> None:
    pushed = await bank.partner.push()
    browser = bank.browser()
    await browser.open(bank.partner.client_id, pushed.json["request_uri"])
    await browser.log_in()
    await bank.phone.post_office.wait()
    await browser.post("choose", **{f"account.{bank.wallet}": "on"})
    with dying("consents.before_grant_commit"):
        await browser.post("confirm", code=await browser.code())
    await bank.phone.post_office.wait()
    await browser.post("choose", **{f"account.{bank.wallet}": "on"})
    told = answered(await browser.post("confirm", code=await browser.code()))
    with dying("consents.before_tokens_commit"):
        await bank.partner.exchange(told["code"])
    assert (await bank.partner.exchange(told["code"])).status == 200


async def test_a_refresh_that_waits_for_a_revocation_sees_it(bank: Bank) -> None:
    _, tokens = await bank.granted()
    consent = tokens.json["authorization_details"][0]["consent_id"]
    async with bank.stage.db.begin("test") as tx:
        await revoke_consent(tx, parse("cns", consent), by="person")
        waits = asyncio.create_task(bank.partner.refresh(tokens.json["refresh_token"]))
        for _ in range(1000):  # until it waits for the row
            if await bank.stage.db.fetch(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()",
                (),
            ):
                break
            await asyncio.sleep(0.005)
        else:
            pytest.fail("the refresh did not wait")
    assert error_of(await waits) == "invalid_grant"


async def test_what_is_over_is_forgotten_and_consents_stay(bank: Bank) -> None:
    _, tokens = await bank.granted()
    db = bank.stage.db
    kept = await db.fetch("select count(*) as n from open_consent", ())
    await db.fetch("update partner_token set expires_at = now() - interval '1 hour'", ())
    await db.fetch("update authorisation set expires_at = now() - interval '1 hour'", ())
    await db.fetch("update seen_token set expires_at = now() - interval '1 hour'", ())
    await prune_tokens(db)
    await prune_grants(db)
    left = [
        (await db.fetch(f"select count(*) as n from {table}", ()))[0]["n"]
        for table in ("partner_token", "authorisation", "seen_token")
    ]
    assert left == [0, 0, 0]
    assert await db.fetch("select count(*) as n from open_consent", ()) == kept
    assert error_of(await bank.partner.refresh(tokens.json["refresh_token"])) == "invalid_grant"


async def test_a_persons_export_names_their_consents_and_erasure_ends_them(bank: Bank) -> None:
    _, tokens = await bank.granted()
    async with bank.stage.db.begin("test") as tx:
        await tx.execute("update step_up_rule set level = 0 where kind = 'personal'", ())
    exported = await bank.phone.post("/v1/me/export")
    rows = exported.json["domains"]["open_bank"]
    assert {"wallet": bank.wallet} in rows
    assert rows[0]["kind"] == "account_information"
    gone = Phone(bank.stage.app, bank.phone.post_office)
    gone.mode = bank.phone.mode
    made = await gone.register("13700137009")
    shown = await bank.stage.call(bank.stage.client.wallets.payment_code, bank.wallet)
    taken = await gone.post("/v1/me/wallets", payment_code=shown["code"])
    assert taken.code == "wallet.claimed"
    used = await gone.post("/v1/me/wallets", payment_code="88" + "0" * 16)
    assert used.code == "wallet.code_used_or_expired"
    assert (await gone.get("/v1/me/wallets")).json == []
    person = parse("per", made.json["person_id"])
    async with bank.stage.db.begin("test") as tx:
        consent = parse("cns", tokens.json["authorization_details"][0]["consent_id"])
        await tx.execute("update open_consent set person_id = $2 where id = $1", (consent, person))
    assert (await gone.post("/v1/me/erasure")).json["erased"] is True
    asked = await bank.partner.ask("GET", "/open_bank/consent", tokens.json["access_token"])
    assert error_of(asked) == "invalid_token"
