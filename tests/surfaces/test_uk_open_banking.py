"""The façade in the shapes of UK Open Banking 4.0: consents lodged, authorised, and used."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec.structs import replace

from tests.dying import dying
from tests.infra.signed_client import Reply, call
from tests.stage import Stage, staged
from tests.surfaces import obie, test_open_bank
from tests.surfaces.partnering import Partner, Rsa, b64, now
from tests.surfaces.test_open_bank import MAY, Bank
from tongbao.infra.db import Db
from tongbao.infra.web.interface_numbers import Level
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence
from tongbao.parties.partners.message_keys import renew_key
from tongbao.parties.partners.model import Changing, PartnerState
from tongbao.parties.partners.partners import partner_with_id, propose_change
from tongbao.surfaces.open_bank.app import INTERFACES
from tongbao.surfaces.uk_open_banking.app import UK_INTERFACES, open_banks
from tongbao.surfaces.wallet.assembly import desk_of
from tongbao_sandbox.launch import RunningSandbox

AISP, PISP = "/open-banking/v4.0/aisp", "/open-banking/v4.0/pisp"
EVERYTHING = [
    *("ReadAccountsDetail", "ReadBalances", "ReadTransactionsDetail"),
    *("ReadTransactionsCredits", "ReadTransactionsDebits"),
]
INTERACTION = "93bac548-d2de-4546-b106-880a5018460d"
the_bank = test_open_bank.the_bank


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("platform")
    async with staged(module_db, folder, sandbox, uk_open_banking=True) as ready:
        yield ready


MESSAGES = Rsa()
"""What the partner signs payments by, beside the key of its assertions."""


@pytest.fixture(scope="module")
async def signing_bank(the_bank: Bank) -> Bank:
    row = await partner_with_id(the_bank.stage.db, parse("ptn", the_bank.partner.client_id))
    wanted = Changing(
        *(row.name, row.redirect_uris, [*row.jwks, {**MESSAGES.jwk, "kid": "m1"}], row.kinds),
        state=PartnerState.ACTIVE,
        changed_at=row.changed_at,
    )
    async with the_bank.stage.db.begin("maker") as tx:
        asked = await propose_change(tx, row.id, wanted, reason="it pays", may=MAY)
    await the_bank.agree(asked)
    return the_bank


@pytest.fixture
async def bank(signing_bank: Bank, shared_stage: Stage) -> AsyncIterator[Bank]:
    yield signing_bank
    await shared_stage.db.fetch("delete from code_allowance", ())


async def own_token(partner: Partner, scope: str = "accounts") -> str:
    fields = {"grant_type": "client_credentials", "scope": scope}
    reply = await partner.form("/oauth/token", fields, proof=partner.proof("POST", "/oauth/token"))
    assert reply.status == 200, reply.body
    assert "refresh_token" not in reply.json
    return str(reply.json["access_token"])


AT = "http://openbanking.org.uk/"
CRITICAL = [f"{AT}iat", f"{AT}iss", f"{AT}tan"]


def signed(partner: Partner, body: bytes, key: Rsa = MESSAGES, **changes: Any) -> str:
    """``x-jws-signature`` over a body, made by hand from the specification."""
    header = {
        "alg": "PS256",
        "kid": "m1",
        f"{AT}iat": now(),
        f"{AT}iss": partner.client_id,
        f"{AT}tan": "127.0.0.1",
        "crit": CRITICAL,
        **{name.replace("at_", AT): value for name, value in changes.items()},
    }
    header = {name: value for name, value in header.items() if value is not None}
    first = b64(json.dumps(header).encode())
    return f"{first}..{b64(key.sign(f'{first}.{b64(body)}'.encode()))}"


async def ask(
    partner: Partner, method: str, path: str, token: str, body: Any = None, **headers: str
) -> Reply:
    sent = b"" if body is None else json.dumps(body).encode()
    if method == "POST" and path.startswith(PISP):
        headers = {"x_jws_signature": signed(partner, sent), **headers}
    reply = await asked_raw(partner, method, path, token, sent, **headers)
    plain = path.partition("?")[0]
    route = obie.route_of(method, plain)
    if reply.status < 300:
        shape = obie.ANSWERS[route]
        wrongly = [] if shape is None else obie.faults(reply.json, shape)
        assert not wrongly, wrongly
        assert (shape is None) == (reply.body == b"")
    else:
        assert not obie.faults(reply.json, obie.ERROR), reply.body
    is_signed = reply.status < 300 and plain.startswith(PISP)
    assert ("x-jws-signature" in reply.headers) == is_signed
    return reply


async def asked_raw(
    partner: Partner, method: str, path: str, token: str, sent: bytes, **headers: str
) -> Reply:
    said = {
        "authorization": f"DPoP {token}",
        "dpop": partner.proof(method, path.partition("?")[0], token=token),
        **({"content-type": "application/json"} if sent else {}),
        **{name.replace("_", "-"): value for name, value in headers.items() if value},
    }
    return await call(partner.stage.app, method, path, said, [sent])


async def lodge(partner: Partner, permissions: list[str] = EVERYTHING) -> str:
    body = {"Data": {"Permissions": permissions}, "Risk": {}}
    token = await own_token(partner)
    reply = await ask(partner, "POST", f"{AISP}/account-access-consents", token, body)
    assert reply.status == 201, reply.body
    assert reply.json["Data"]["Status"] == "AWAU"
    return str(reply.json["Data"]["ConsentId"])


async def authorised(bank: Bank, kind: str, consent: str) -> str:
    """A token on a lodged consent that a person has authorised."""
    pushed = await bank.partner.push({"type": kind, "consent_id": consent})
    assert pushed.status == 201, pushed.body
    told = await bank.browser().consent(
        bank.partner.client_id, pushed.json["request_uri"], bank.wallet
    )
    tokens = (await bank.partner.exchange(told["code"])).json
    assert tokens["authorization_details"][0]["consent_id"] == consent
    return str(tokens["access_token"])


def initiation(bank: Bank, amount: str = "7.00") -> dict[str, Any]:
    return {
        "InstructionIdentification": "ACME412",
        "EndToEndIdentification": "FRESCO.21302.GFX.20",
        "InstructedAmount": {"Amount": amount, "Currency": "CNY"},
        "CreditorAccount": {
            "SchemeName": "UK.OBIE.Wallet",
            "Identification": bank.payee,
            "Name": "Lucky Noodles",
        },
        "RemittanceInformation": {"Unstructured": ["lunch"]},
    }


async def lodge_payment(bank: Bank, key: str, amount: str = "7.00", **more: Any) -> Reply:
    body = {"Data": {"Initiation": initiation(bank, amount)}, "Risk": {}, **more}
    token = await own_token(bank.partner, "payments")
    path = f"{PISP}/domestic-payment-consents"
    return await ask(bank.partner, "POST", path, token, body, x_idempotency_key=key)


def wrong(reply: Reply) -> str:
    """The error code of a refusal, which has the form of the specification."""
    assert set(reply.json) == {"Code", "Id", "Message", "Errors"}, reply.json
    assert reply.json["Code"] == str(reply.status)
    [error] = reply.json["Errors"]
    assert {"ErrorCode", "Message"} <= set(error) <= {"ErrorCode", "Message", "Path"}
    return str(error["ErrorCode"])


async def test_accounts_are_seen_on_a_consent_that_was_lodged_first(bank: Bank) -> None:
    consent = await lodge(bank.partner)
    token = await authorised(bank, "account_information", consent)
    held = await bank.balance(bank.wallet)

    async def data(path: str) -> Any:
        reply = await ask(
            bank.partner, "GET", f"{AISP}{path}", token, x_fapi_interaction_id=INTERACTION
        )
        assert reply.status == 200, reply.body
        assert reply.headers["x-fapi-interaction-id"] == INTERACTION
        assert re.fullmatch(r"OP000000020100\d{10}", reply.headers["x-u-api-id"])
        assert reply.json["Links"]["Self"].endswith(path.partition("?")[0])
        return reply.json["Data"]

    [account] = (await data("/accounts"))["Account"]
    at = f"/accounts/{bank.wallet}"
    assert (await data(at))["Account"] == [account]
    assert account["AccountId"] == bank.wallet
    assert account["Account"][0]["Name"] == "*三"
    assert (account["Status"], account["AccountTypeCode"]) == ("Enabled", "OTHR")
    balances = (await data(f"{at}/balances"))["Balance"]
    assert [each["Type"] for each in balances] == ["ITBD", "ITAV"]
    assert balances[0]["Amount"] == {"Amount": f"{held / 100:.2f}", "Currency": "CNY"}
    assert len((await data("/balances"))["Balance"]) == 2
    newest, *_ = (await data(f"{at}/transactions"))["Transaction"]
    assert newest["Status"] == "BOOK"
    assert newest["Balance"]["Amount"]["Amount"] == f"{held / 100:.2f}"

    at = f"{AISP}/account-access-consents/{consent}"
    own = await own_token(bank.partner)
    assert (await ask(bank.partner, "GET", at, own)).json["Data"]["Status"] == "AUTH"
    for _ in range(2):
        assert (await ask(bank.partner, "DELETE", at, own)).status == 204
    assert (await ask(bank.partner, "GET", at, own)).json["Data"]["Status"] == "CANC"
    gone = await ask(bank.partner, "GET", f"{AISP}/accounts", token)
    assert (gone.status, wrong(gone)) == (401, "invalid_token")
    again = await bank.partner.push({"type": "account_information", "consent_id": consent})
    assert again.json["error"] == "invalid_authorization_details"


async def test_a_consent_shows_what_its_permissions_say_and_no_more(bank: Bank) -> None:
    consent = await lodge(
        bank.partner, ["ReadAccountsBasic", "ReadTransactionsBasic", "ReadTransactionsDebits"]
    )
    token = await authorised(bank, "account_information", consent)
    [account] = (await ask(bank.partner, "GET", f"{AISP}/accounts", token)).json["Data"]["Account"]
    at = f"{AISP}/accounts/{bank.wallet}"
    seen = await ask(bank.partner, "GET", f"{at}/transactions", token)
    balance = await ask(bank.partner, "GET", f"{at}/balances", token)
    assert "Account" not in account
    sides = {each["CreditDebitIndicator"] for each in seen.json["Data"]["Transaction"]}
    assert sides <= {"Debit"}
    assert (balance.status, wrong(balance)) == (403, "insufficient_scope")
    filtered = await ask(bank.partner, "GET", f"{at}/transactions?fromBookingDateTime=x", token)
    assert wrong(filtered) == "UK.OBIE.Field.Unexpected"
    stranger = await ask(bank.partner, "GET", f"{AISP}/accounts/{bank.payee}", token)
    unknown = await ask(bank.partner, "GET", f"{AISP}/accounts/{show('wal', new_id())}", token)
    assert wrong(stranger) == wrong(unknown) == "UK.OBIE.Resource.NotFound"


async def test_a_payment_is_lodged_authorised_and_made_once(bank: Bank) -> None:
    before = await bank.balance(bank.wallet)
    replies = await asyncio.gather(*(lodge_payment(bank, "same") for _ in range(3)))
    [consent] = {each.json["Data"]["ConsentId"] for each in replies}
    assert {each.status for each in replies} == {201}
    other = await lodge_payment(bank, "same", "8.00")
    assert (other.status, wrong(other)) == (400, "UK.OBIE.Header.Invalid")
    token = await authorised(bank, "payment_initiation", consent)
    at = f"{PISP}/domestic-payment-consents/{consent}"
    funds = await ask(bank.partner, "GET", f"{at}/funds-confirmation", token)
    assert funds.json["Data"]["FundsAvailableResult"]["FundsAvailable"] is True

    async def pay(said: dict[str, Any]) -> Reply:
        body = {"Data": {"ConsentId": consent, "Initiation": said}, "Risk": {}}
        path = f"{PISP}/domestic-payments"
        return await ask(bank.partner, "POST", path, token, body, x_idempotency_key="pay")

    differs = await pay(initiation(bank, "7.01"))
    assert wrong(differs) == "UK.OBIE.Resource.ConsentMismatch"
    with dying("consents.before_payment"):
        await pay(initiation(bank))
    paid = await asyncio.gather(*(pay(initiation(bank)) for _ in range(3)))
    assert {each.status for each in paid} == {201}
    [payment] = {each.json["Data"]["DomesticPaymentId"] for each in paid}
    own = await own_token(bank.partner, "payments")
    shown = await ask(bank.partner, "GET", f"{PISP}/domestic-payments/{payment}", own)
    assert shown.json["Data"]["Status"] == "ACCC"
    assert shown.json["Data"] == paid[0].json["Data"]
    told = (await ask(bank.partner, "GET", at, own)).json["Data"]
    assert (told["Status"], told["StatusReason"][0]["StatusReasonCode"]) == ("COND", "U038")
    used = await ask(bank.partner, "GET", f"{at}/funds-confirmation", token)
    assert wrong(used) == "UK.OBIE.Resource.InvalidConsentStatus"
    assert await bank.balance(bank.wallet) == before - 700

    rivals = await own_token(bank.rival, "payments")
    for path in (at, f"{PISP}/domestic-payments/{payment}"):
        stolen = await ask(bank.rival, "GET", path, rivals)
        made_up = await ask(bank.rival, "GET", path.rpartition("_")[0] + "_" + "0" * 26, rivals)
        assert wrong(stolen) == wrong(made_up) == "UK.OBIE.Resource.NotFound"
    named = {"type": "payment_initiation", "consent_id": consent}
    assert (await bank.rival.push(named)).json["error"] == "invalid_authorization_details"


async def test_a_consent_that_died_before_its_commit_was_never_lodged(bank: Bank) -> None:
    with dying("consents.before_lodged_commit"):
        await lodge_payment(bank, "dies")
    assert (await lodge_payment(bank, "dies", "9.00")).status == 201


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Permissions": []}, "UK.OBIE.Field.Invalid"),
        ({"Permissions": ["ReadBalances"]}, "UK.OBIE.Field.Invalid"),
        ({"Permissions": ["ReadAccountsBasic", "ReadOffers"]}, "UK.OBIE.Field.Invalid"),
        (
            {"Permissions": ["ReadAccountsBasic", "ReadTransactionsBasic"]},
            "UK.OBIE.Field.Invalid",
        ),
        ({"ExpirationDateTime": "2099-01-01T00:00:00Z"}, "UK.OBIE.Field.InvalidDate"),
        ({"TransactionFromDateTime": "2026-01-01T00:00:00Z"}, "UK.OBIE.Field.Unexpected"),
        ({"More": 1}, "UK.OBIE.Field.Unexpected"),
        ({"Permissions": None}, "UK.OBIE.Field.Invalid"),
    ],
)
async def test_a_consent_that_cannot_be_is_refused_in_their_words(
    bank: Bank, change: dict[str, Any], code: str
) -> None:
    body = {"Data": {"Permissions": EVERYTHING, **change}, "Risk": {}}
    token = await own_token(bank.partner)
    reply = await ask(bank.partner, "POST", f"{AISP}/account-access-consents", token, body)
    assert (reply.status, wrong(reply)) == (400, code)


async def test_a_payment_that_cannot_be_is_refused_in_their_words(bank: Bank) -> None:
    nobody = initiation(bank)
    nobody["CreditorAccount"]["Identification"] = show("wal", new_id())
    iban = initiation(bank)
    iban["CreditorAccount"]["SchemeName"] = "UK.OBIE.IBAN"
    for said, code in (
        (nobody, "UK.OBIE.Field.Invalid"),
        (iban, "UK.OBIE.Unsupported.AccountIdentifier"),
        (initiation(bank, "0.00"), "UK.OBIE.Field.Invalid"),
        (initiation(bank, "0.001"), "UK.OBIE.Field.Invalid"),
        ({**initiation(bank), "DebtorAccount": {}}, "UK.OBIE.Field.Unexpected"),
    ):
        assert wrong(await lodge_payment(bank, "wrong", Data={"Initiation": said})) == code
    assert wrong(await lodge_payment(bank, "k" * 41)) == "UK.OBIE.Header.Invalid"
    token = await own_token(bank.partner, "payments")
    path = f"{PISP}/domestic-payment-consents"
    body = {"Data": {"Initiation": initiation(bank)}, "Risk": {}}
    for headers, code in (
        ({}, "UK.OBIE.Header.Missing"),
        ({"x_jws_signature": "a..b", "x_idempotency_key": "x"}, "UK.OBIE.Signature.Malformed"),
        ({"x_fapi_interaction_id": "1"}, "UK.OBIE.Header.Invalid"),
        ({"content_type": "text/plain"}, "UK.OBIE.Header.Invalid"),
    ):
        assert wrong(await ask(bank.partner, "POST", path, token, body, **headers)) == code


@pytest.mark.parametrize(
    "risk",
    ['{"a": "\\u0000"}', '{"a": ' + "[" * 9000 + "]" * 9000 + "}", '{"a": "' + "x" * 33_000 + '"}'],
    ids=["U+0000", "deep", "long"],
)
async def test_what_no_database_keeps_is_refused(bank: Bank, risk: str) -> None:
    path, token = f"{AISP}/account-access-consents", await own_token(bank.partner)
    body = f'{{"Data": {{"Permissions": ["ReadAccountsBasic"]}}, "Risk": {risk}}}'.encode()
    headers = {
        "authorization": f"DPoP {token}",
        "dpop": bank.partner.proof("POST", path, token=token),
        "content-type": "application/json",
    }
    reply = await call(bank.stage.app, "POST", path, headers, [body])
    assert (reply.status, wrong(reply)) == (400, "UK.OBIE.Resource.InvalidFormat")


async def test_a_partners_own_token_is_bound_and_of_one_scope(bank: Bank) -> None:
    token = await own_token(bank.partner, "payments")
    path = f"{AISP}/account-access-consents"
    body = {"Data": {"Permissions": EVERYTHING}, "Risk": {}}
    assert wrong(await ask(bank.partner, "POST", path, token, body)) == "insufficient_scope"
    thief = await ask(bank.rival, "POST", path, token, body)
    assert (thief.status, wrong(thief)) == (401, "invalid_token")
    seen = await ask(bank.partner, "GET", f"{AISP}/accounts", token)
    assert wrong(seen) == "invalid_token"  # it is on no consent
    fields = {"grant_type": "client_credentials", "scope": "everything"}
    proof = bank.partner.proof("POST", "/oauth/token")
    refused = await bank.partner.form("/oauth/token", fields, proof=proof)
    assert refused.json["error"] == "invalid_scope"


@pytest.mark.parametrize("each", UK_INTERFACES, ids=lambda each: f"{each.method} {each.path}")
async def test_a_level_binds_who_is_answered(bank: Bank, each: Any) -> None:
    path = re.sub(r"\{\w+\}", show("cns", new_id()), each.path)
    bare = await call(bank.stage.app, each.method, path, {}, [b""])
    assert each.level is Level.A2
    assert (bare.status, wrong(bare)) == (401, "invalid_token")
    numbers = [other.api_id("0" * 6) for other in (*INTERFACES, *UK_INTERFACES)]
    assert numbers.count(each.api_id("0" * 6)) == 1


async def test_it_is_not_there_unless_it_is_switched_on(bank: Bank) -> None:
    platform = bank.stage.platform
    settings = platform.settings
    people = desk_of(platform)

    def mounted(**changes: Any) -> set[str]:
        return set(open_banks(replace(settings, **changes), people, platform.ledger))

    assert mounted() - mounted(uk_open_banking=False) == {"/open-banking"}
    assert mounted(licence=Licence.AGGREGATOR) == set()


# The shapes of the specification


def test_what_is_served_and_what_is_described_are_the_same_routes() -> None:
    assert {(each.method, each.path) for each in UK_INTERFACES} == set(obie.ANSWERS)


async def test_every_route_answers_in_the_shape_of_the_specification(bank: Bank) -> None:
    """`ask` compares each answer; here each route answers at least once, in each of its states."""
    seen = set()

    async def walk(method: str, path: str, token: str, body: Any = None, **more: str) -> Any:
        reply = await ask(bank.partner, method, path, token, body, **more)
        assert reply.status < 300, (method, path, reply.body)
        seen.add(obie.route_of(method, path.partition("?")[0]))
        return reply.json["Data"] if reply.body else None

    own = await own_token(bank.partner)
    body = {"Data": {"Permissions": EVERYTHING}, "Risk": {}}
    consent = (await walk("POST", f"{AISP}/account-access-consents", own, body))["ConsentId"]
    at = f"{AISP}/account-access-consents/{consent}"
    await walk("GET", at, own)
    token = await authorised(bank, "account_information", consent)
    account = f"{AISP}/accounts/{bank.wallet}"
    for path in (f"{AISP}/accounts", f"{AISP}/balances", account, f"{account}/balances"):
        await walk("GET", path, token)
    await walk("GET", f"{account}/transactions", token)
    for method in ("GET", "DELETE", "GET"):
        await walk(method, at, own)

    own = await own_token(bank.partner, "payments")
    body = {"Data": {"Initiation": initiation(bank, "0.07")}, "Risk": {}}
    consents = f"{PISP}/domestic-payment-consents"
    made = await walk("POST", consents, own, body, x_idempotency_key=secrets.token_hex(8))
    consent = made["ConsentId"]
    await walk("GET", f"{consents}/{consent}", own)
    token = await authorised(bank, "payment_initiation", consent)
    await walk("GET", f"{consents}/{consent}/funds-confirmation", token)
    order = {"Data": {"ConsentId": consent, "Initiation": initiation(bank, "0.07")}, "Risk": {}}
    key = secrets.token_hex(8)
    paid = await walk("POST", f"{PISP}/domestic-payments", token, order, x_idempotency_key=key)
    await walk("GET", f"{PISP}/domestic-payments/{paid['DomesticPaymentId']}", own)
    await walk("GET", f"{consents}/{consent}", own)
    assert seen == set(obie.ANSWERS)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"Status": "Authorised"}, "$.Data.Status is"),
        ({"Permissions": []}, "$.Data.Permissions is no list"),
        ({"Permissions": ["ReadEverything"]}, "$.Data.Permissions[0] is"),
        ({"CreationDateTime": "2026-01-01T00:00:00"}, "$.Data.CreationDateTime is no"),
        ({"Extra": 1}, "$.Data.Extra is not in"),
        ({"ConsentId": None}, "$.Data.ConsentId is"),
    ],
)
def test_a_shape_that_is_not_the_specifications_is_seen(change: dict[str, Any], fault: str) -> None:
    """The description bites: a suite that takes anything would say nothing."""
    moment = "2026-01-01T00:00:00+00:00"
    good = {
        "ConsentId": "c",
        "CreationDateTime": moment,
        "Status": "AUTH",
        "StatusUpdateDateTime": moment,
        "Permissions": ["ReadBalances"],
    }
    links = {"Self": "https://bank.example/x"}
    said = {"Data": good, "Risk": {}, "Links": links, "Meta": {}}
    assert obie.faults(said, obie.ACCESS_CONSENT) == []
    [found] = obie.faults({**said, "Data": {**good, **change}}, obie.ACCESS_CONSENT)
    assert found.startswith(fault)


# Signed messages


def a_payment(bank: Bank, amount: str = "7.00") -> bytes:
    return json.dumps({"Data": {"Initiation": initiation(bank, amount)}, "Risk": {}}).encode()


async def lodge_raw(bank: Bank, body: bytes, signature: str, key: str | None = None) -> Reply:
    token = await own_token(bank.partner, "payments")
    path = f"{PISP}/domestic-payment-consents"
    headers = {"x_idempotency_key": key or secrets.token_hex(8), "x_jws_signature": signature}
    return await asked_raw(bank.partner, "POST", path, token, body, **headers)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"alg": "RS256"}, "Malformed", id="RS256"),
        pytest.param({"alg": "none"}, "Malformed", id="alg none"),
        pytest.param({"b64": False}, "Malformed", id="b64 is not of the profile since 3.1.4"),
        pytest.param({"jwk": MESSAGES.jwk}, "Malformed", id="it brings its own key"),
        pytest.param({"kid": None}, "Malformed", id="no kid"),
        pytest.param({"kid": "k1"}, "Invalid", id="the kid of a key that is no RSA"),
        pytest.param({"kid": "m2"}, "Invalid", id="an unknown kid"),
        pytest.param({"typ": "JWT"}, "InvalidClaim", id="another typ"),
        pytest.param({"cty": "text/plain"}, "InvalidClaim", id="another cty"),
        pytest.param({"crit": CRITICAL[:2]}, "InvalidClaim", id="crit is short"),
        pytest.param({"crit": [*CRITICAL, "b64"]}, "InvalidClaim", id="crit says more"),
        pytest.param({"crit": None}, "InvalidClaim", id="no crit"),
        pytest.param({"at_iat": None}, "MissingClaim", id="no iat"),
        pytest.param({"at_iss": None}, "MissingClaim", id="no iss"),
        pytest.param({"at_tan": None}, "MissingClaim", id="no tan"),
        pytest.param({"at_iat": 2**33}, "InvalidClaim", id="iat is ahead"),
        pytest.param({"at_iat": 1}, "InvalidClaim", id="iat is old"),
        pytest.param({"at_iat": "now"}, "InvalidClaim", id="iat is no number"),
        pytest.param({"at_iss": "ptn_else"}, "InvalidClaim", id="iss is another"),
        pytest.param({"at_tan": "else.example"}, "InvalidClaim", id="tan is another"),
    ],
)
async def test_a_signature_that_is_not_of_the_profile_pays_nothing(
    bank: Bank, change: dict[str, Any], code: str
) -> None:
    body = a_payment(bank)
    reply = await lodge_raw(bank, body, signed(bank.partner, body, **change))
    assert (reply.status, wrong(reply)) == (400, f"UK.OBIE.Signature.{code}")


async def test_a_message_is_signed_as_it_was_sent_byte_by_byte(bank: Bank) -> None:
    body = a_payment(bank)
    good = signed(bank.partner, body)
    first, _, last = good.split(".")
    for tampered, signature, code in (
        (body.replace(b"7.00", b"9.00"), good, "Invalid"),
        (body + b" ", good, "Invalid"),  # what is signed is not what JSON means
        (body, signed(bank.partner, body, Rsa()), "Invalid"),
        (body, f"{first}.{b64(body)}.{last}", "Malformed"),  # its payload is not left out
        (body, f"{first}..{last}=", "Malformed"),
        (body, f"{first}..", "Malformed"),
        (body, first, "Malformed"),
        (body, "", "Missing"),
    ):
        reply = await lodge_raw(bank, tampered, signature)
        assert (reply.status, wrong(reply)) == (400, f"UK.OBIE.Signature.{code}"), signature[-20:]
    assert (await lodge_raw(bank, body, good)).status == 201


async def test_a_signed_message_repeats_under_its_own_key_alone(bank: Bank) -> None:
    body, key = a_payment(bank), secrets.token_hex(8)
    signature = signed(bank.partner, body)
    first = await lodge_raw(bank, body, signature, key)
    again = await lodge_raw(bank, body, signature, key)
    renewed = await lodge_raw(bank, body, signed(bank.partner, body), key)
    stolen = await lodge_raw(bank, body, signature)
    ids = {each.json["Data"]["ConsentId"] for each in (first, again, renewed)}
    assert len(ids) == 1
    assert wrong(stolen) == "UK.OBIE.Signature.Invalid"


async def test_answers_are_signed_by_a_key_that_is_published(bank: Bank) -> None:
    """Verified by hand, over the bytes that came."""

    async def check(reply: Reply, keys: list[dict[str, Any]]) -> str:
        first, empty, last = reply.headers["x-jws-signature"].split(".")
        header = json.loads(unb64(first))
        assert empty == ""
        assert header["alg"] == "PS256"
        assert (header[f"{AT}iss"], header[f"{AT}tan"]) == (bank.stage.url, "127.0.0.1")
        assert sorted(header["crit"]) == sorted(CRITICAL)
        [key] = [each for each in keys if each["kid"] == header["kid"]]
        assert not {"d", "p", "q"} & set(key)
        e, n = (int.from_bytes(unb64(key[name]), "big") for name in ("e", "n"))
        message = f"{first}.{b64(reply.body)}".encode()
        public = RSAPublicNumbers(e, n).public_key()
        public.verify(unb64(last), message, PSS(MGF1(SHA256()), 32), SHA256())
        return str(header["kid"])

    async def published() -> list[dict[str, Any]]:
        return list((await call(bank.stage.app, "GET", "/oauth/jwks", {}, [b""])).json["keys"])

    made = await lodge_payment(bank, secrets.token_hex(8))
    before = await check(made, await published())
    platform = bank.stage.platform
    await renew_key(platform.db, platform.keyring, "operator")
    later = await lodge_payment(bank, secrets.token_hex(8))
    keys = await published()
    assert await check(later, keys) != before == await check(made, keys)  # both while they overlap
    await bank.stage.advance(days=8)
    assert before not in {each["kid"] for each in await published()}
    kept = await bank.stage.db.fetch("select sealed from message_key", ())
    assert all(b"RSA" not in bytes(each["sealed"]) for each in kept)


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_only_payments_are_signed(bank: Bank) -> None:
    token, body = await own_token(bank.partner), {"Data": {"Permissions": EVERYTHING}, "Risk": {}}
    path, sent = f"{AISP}/account-access-consents", json.dumps(body).encode()
    signature = signed(bank.partner, sent)
    reply = await ask(bank.partner, "POST", path, token, body, x_jws_signature=signature)
    assert wrong(reply) == "UK.OBIE.Signature.Unexpected"
