"""Requests that partners sign and answers that we sign: FAPI 2.0 Message Signing, by its names."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec.structs import replace

from tests.infra.signed_client import call
from tests.surfaces.partnering import ACCOUNTS, BACK, Es256, Partner, Rsa, answered, b64, now
from tests.surfaces.test_open_bank import Bank, error_of
from tests.surfaces.test_open_bank import bank as _bank
from tests.surfaces.test_open_bank import the_bank as _the_bank
from tongbao.infra.certificates import NameKind
from tongbao.infra.jose import KeySetUnusable
from tongbao.parties.partners.certificates import check_proving
from tongbao.parties.partners.model import AuthMethod, Proving

the_bank, bank = _the_bank, _bank


@pytest.fixture(scope="module")
async def signer(the_bank: Bank) -> Partner:
    """A partner whose requests have to be signed."""
    return await the_bank.taken_on("Signer", Es256(), proving=Proving(signs_requests=True))


def unsigned(token: str) -> str:
    """The same claims under ``alg: none``."""
    return ".".join([b64(b'{"alg":"none"}'), token.split(".")[1], ""])


def altered(token: str) -> str:
    """Other claims under the signature of the first."""
    first, claims, last = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return ".".join([first, b64(json.dumps({**said, "state": "other"}).encode()), last])


def opened(key: dict[str, str], token: str) -> dict[str, Any]:
    """Return the claims of an answer that this published key has signed, by hand."""
    first, claims, last = token.split(".")
    n, e = (int.from_bytes(base64.urlsafe_b64decode(key[name] + "==")) for name in ("n", "e"))
    signature = base64.urlsafe_b64decode(last + "=" * (-len(last) % 4))
    RSAPublicNumbers(e, n).public_key().verify(
        signature, f"{first}.{claims}".encode(), PSS(MGF1(SHA256()), 32), SHA256()
    )
    header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    assert (header["alg"], header["kid"]) == ("PS256", key["kid"])
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return found


async def published(bank: Bank) -> dict[str, str]:
    keys = (await call(bank.stage.app, "GET", "/oauth/jwks", {}, [b""])).json["keys"]
    found: dict[str, str] = keys[0]
    return found


async def test_a_signed_request_is_answered_by_a_signed_answer(bank: Bank, signer: Partner) -> None:
    pushed = await signer.push_signed(response_mode="jwt")
    assert pushed.status == 201, pushed.body
    browser = bank.browser()
    told = await browser.consent(signer.client_id, pushed.json["request_uri"], bank.wallet)

    assert set(told) == {"response"}
    claims = opened(await published(bank), told["response"])
    assert claims.pop("exp") - now() in range(590, 601)
    code = claims.pop("code")
    assert claims == {"iss": bank.stage.url, "aud": signer.client_id, "state": "xyz"}
    tokens = await signer.exchange(code)
    assert tokens.status == 200, tokens.body
    seen = await signer.ask("GET", "/open_bank/accounts", tokens.json["access_token"])
    assert [each["id"] for each in seen.json["items"]] == [bank.wallet]
    with pytest.raises(InvalidSignature):
        opened(await published(bank), altered(told["response"]))


async def test_a_refusal_is_signed_too(bank: Bank, signer: Partner) -> None:
    pushed = await signer.push_signed(response_mode="jwt")
    browser = bank.browser()
    await browser.open(signer.client_id, pushed.json["request_uri"])
    told = answered(await browser.post("reject"))
    claims = opened(await published(bank), told["response"])
    assert (claims["error"], claims["aud"]) == ("access_denied", signer.client_id)


async def test_who_need_not_sign_may_and_is_answered_as_asked(bank: Bank) -> None:
    named = [bank.partner.issuer, "https://else.example"]  # FAPI takes an array with us in it
    pushed = await bank.partner.push_signed(aud=named, nbf=now() + 8, exp=now() + 3600)
    assert pushed.status == 201, pushed.body
    told = await bank.browser().consent(bank.partner.client_id, pushed.json["request_uri"])
    assert set(told) == {"code", "state", "iss"}
    older = await bank.partner.push_signed(nbf=now() - 3500, exp=now() + 60, header={"typ": "JWT"})
    assert older.status == 201, older.body


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": 3700}, id="EnsureRequestObjectWithExpOver60Fails"),
        pytest.param({"nbf": -3700, "exp": -60}, id="exp is over"),
        pytest.param({"nbf": -3700, "exp": 60}, id="EnsureRequestObjectWithNbfOver60Fails"),
        pytest.param({"nbf": -3000, "exp": 900}, id="exp is over an hour after nbf"),
        pytest.param({"nbf": 90}, id="nbf is more than 60 s ahead"),
        pytest.param({"aud": "https://else.example"}, id="EnsureRequestObjectWithBadAudFails"),
        pytest.param({"aud": ["https://else.example"]}, id="aud lists others only"),
        pytest.param({"without": ("aud",)}, id="no aud"),
        pytest.param({"without": ("exp",)}, id="EnsureRequestObjectWithoutExpFails"),
        pytest.param({"without": ("nbf",)}, id="EnsureRequestObjectWithoutNbfFails"),
        pytest.param({"without": ("client_id",)}, id="no client_id"),
        pytest.param({"client_id": "ptn_else"}, id="client_id is another"),
        pytest.param({"iss": "ptn_else"}, id="iss is another"),
        pytest.param({"sub": "ptn_else"}, id="sub could make it an assertion"),
        pytest.param({"request_uri": "urn:x"}, id="a request_uri in it"),
        pytest.param({"state": 5}, id="state is a number"),
        pytest.param({"redirect_uri": [BACK]}, id="redirect_uri is a list"),
        pytest.param({"header": {"typ": "dpop+jwt"}}, id="typ is another"),
    ],
)
async def test_a_request_object_that_is_wrong_asks_for_nothing(
    bank: Bank, claims: dict[str, Any]
) -> None:
    said = {name: now() + it if name in {"exp", "nbf"} else it for name, it in claims.items()}
    assert error_of(await bank.partner.push_signed(**said)) == "invalid_request_object"


async def test_ensure_request_object_with_invalid_signature_fails(bank: Bank) -> None:
    for wrong in (
        altered(bank.partner.request()),
        bank.partner.request(key=Es256()),
        bank.partner.request(header={"kid": "k9"}),
        bank.partner.request() + "=",
        "x",
    ):
        form = {"client_id": bank.partner.client_id, "request": wrong}
        assert error_of(await bank.partner.form("/oauth/par", form)) == "invalid_request_object"


async def test_ensure_signed_request_object_with_rs256_fails(bank: Bank) -> None:
    """By the very key that the client has registered, only with the weaker algorithm."""
    weak = Rsa("RS256")
    weak.rsa = bank.rival.key.rsa  # type: ignore[attr-defined]
    form = {"client_id": bank.rival.client_id, "request": bank.rival.request(key=weak)}
    assert error_of(await bank.rival.form("/oauth/par", form)) == "invalid_request_object"
    form["request"] = bank.rival.request()
    assert (await bank.rival.form("/oauth/par", form)).status == 201


async def test_ensure_unsigned_request_at_par_endpoint_fails(bank: Bank, signer: Partner) -> None:
    form = {"client_id": signer.client_id, "request": unsigned(signer.request())}
    assert error_of(await signer.form("/oauth/par", form)) == "invalid_request_object"
    assert error_of(await signer.push()) == "invalid_request"
    form = {"client_id": bank.partner.client_id, "request": unsigned(bank.partner.request())}
    assert error_of(await bank.partner.form("/oauth/par", form)) == "invalid_request_object"


async def test_nothing_unsigned_stands_beside_a_request_object(bank: Bank) -> None:
    details = json.dumps([{**ACCOUNTS, "permissions": ["accounts"]}])
    for name, value in {"authorization_details": details, "redirect_uri": BACK, "x": "y"}.items():
        form = {"client_id": bank.partner.client_id, "request": bank.partner.request(), name: value}
        assert error_of(await bank.partner.form("/oauth/par", form)) == "invalid_request"


async def test_a_request_object_proves_no_client(bank: Bank) -> None:
    """Nor an assertion a request: each is told from the other (RFC 9101 §10.8)."""
    both = {"jti": "one", "sub": bank.partner.client_id}
    reply = await bank.partner.push(client_assertion=bank.partner.request())
    assert (reply.status, error_of(reply)) == (401, "invalid_client")
    assert error_of(await bank.partner.push_signed(**both)) == "invalid_request_object"
    form = {"client_id": bank.partner.client_id, "request": bank.partner.assertion()}
    assert error_of(await bank.partner.form("/oauth/par", form)) == "invalid_request_object"


def test_who_has_no_key_cannot_be_held_to_sign() -> None:
    named = Proving(AuthMethod.TLS_CLIENT_AUTH, NameKind.SAN_DNS, "api.lens.example")
    check_proving(named, [])
    with pytest.raises(KeySetUnusable):
        check_proving(replace(named, signs_requests=True), [])
