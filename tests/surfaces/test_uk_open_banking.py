"""The façade in the shapes of UK Open Banking 4.0: consents lodged, authorised, and used."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.dying import dying
from tests.infra.signed_client import Reply, call
from tests.stage import Stage, staged
from tests.surfaces import test_open_bank
from tests.surfaces.partnering import Partner
from tests.surfaces.test_open_bank import Bank
from tongbao.infra.db import Db
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Licence
from tongbao.surfaces.open_bank.app import INTERFACES
from tongbao.surfaces.open_bank.interfaces import Level
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


@pytest.fixture
async def bank(the_bank: Bank, shared_stage: Stage) -> AsyncIterator[Bank]:
    yield the_bank
    await shared_stage.db.fetch("delete from code_allowance", ())


async def own_token(partner: Partner, scope: str = "accounts") -> str:
    fields = {"grant_type": "client_credentials", "scope": scope}
    reply = await partner.form("/oauth/token", fields, proof=partner.proof("POST", "/oauth/token"))
    assert reply.status == 200, reply.body
    assert "refresh_token" not in reply.json
    return str(reply.json["access_token"])


async def ask(
    partner: Partner, method: str, path: str, token: str, body: Any = None, **headers: str
) -> Reply:
    said = {
        "authorization": f"DPoP {token}",
        "dpop": partner.proof(method, path.partition("?")[0], token=token),
        **({"content-type": "application/json"} if body is not None else {}),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    sent = b"" if body is None else json.dumps(body).encode()
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
        ({"x_jws_signature": "a..b"}, "UK.OBIE.Signature.Unexpected"),
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
