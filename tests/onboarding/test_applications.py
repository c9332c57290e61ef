"""From an application to an open merchant: checked, documented, reviewed by two, opened once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.infra.signed_client import SignedClient
from tests.kernel.test_document_types import HOSTILE, png
from tests.onboarding.applicants import CHECKER, MAKER, PICTURES, Applicant, body
from tests.stage import Stage, new_number
from tongbao.controls.approvals.model import ApprovalWaiting, OwnProposal
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.onboarding.applications import return_application
from tongbao.parties.onboarding.documents import read_document
from tongbao.parties.onboarding.model import DOCUMENT_BYTES_MAX, ApplicationState
from tongbao.parties.onboarding.queries import documents_of
from tongbao.parties.onboarding.terms import publish_terms

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "credit code": ("application.credit_code_invalid", {"firm": {"credit_code": "9" * 18}}),
    "credit code of another check sign": (
        "application.credit_code_invalid",
        {"firm": {"credit_code": "91350100M000100Y44"}},
    ),
    "resident id": (
        "application.resident_id_invalid",
        {"legal_person": {"id_number": "110105194912310021"}},
    ),
    "bank number": (
        "application.bank_number_invalid",
        {"account": {"bank_number": "102100099995"}},
    ),
    "card number": (
        "application.account_number_invalid",
        {"account": {"kind": "personal", "number": "4111111111111112"}},
    ),
    "two prices for one": (
        "price.lines_invalid",
        {"prices": [{"channel": "wechat_pay", "pay_mode": "qr", "rate_ppm": 1}] * 2},
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_each_wrong_number_has_its_own_refusal(applicant: Applicant, name: str) -> None:
    code, change = WRONG[name]
    said = body(**change) | {"application_no": new_number()}

    status, refused = await applicant.ask("POST", "/v1/applications", said)

    assert (status, refused["code"]) == (400, code)
    assert not any(secret in str(refused) for secret in ("4111111111111112", "110105194912310021"))


async def test_persons_are_masked_for_everybody_and_sealed_in_the_row(applicant: Applicant) -> None:
    made = await applicant.apply()

    assert made["personal"] == {
        "legal_name": "**丰",
        "id_number": "1****************X",
        "contact_name": "**丰",
        "phone": "138****1234",
        "email": "z***@tea.example",
        "holder": "杭州西溪茶叶有限公司",
        "number": "•••• 3445",
    }
    rows = await applicant.db.fetch(
        "select application::text as row from application where id = $1",
        (parse("app", made["id"]),),
    )
    for secret in ("张三", "11010519491231002X", "13800001234", "zhang@", "6222020200112233445"):
        assert secret not in rows[0]["row"]


async def test_the_same_number_again_is_the_same_application(applicant: Applicant) -> None:
    said = body() | {"application_no": new_number()}

    first, again = [await applicant.ask("POST", "/v1/applications", said) for _ in range(2)]
    other = await applicant.ask(
        "POST", "/v1/applications", body() | {"application_no": said["application_no"]}
    )

    assert first[1]["id"] == again[1]["id"]
    assert (other[0], other[1]["code"]) == (409, "application.number_used")


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_document_is_refused_and_kept_nowhere(
    applicant: Applicant, name: str
) -> None:
    made = await applicant.apply()

    status, refused = await applicant.add(made, "business_license", HOSTILE[name]())

    assert status == 422
    assert refused["code"] in {"document.type_refused", "document.too_large"}
    assert (await applicant.read(made))["documents"] == []


async def test_a_document_larger_than_is_taken_is_refused(applicant: Applicant) -> None:
    made = await applicant.apply()

    status, refused = await applicant.add(made, "store_front", bytes(DOCUMENT_BYTES_MAX + 1))

    assert (status, refused["code"]) == (422, "document.too_large")


async def test_a_document_is_stored_encrypted_and_one_of_a_kind(
    applicant: Applicant, stage: Stage
) -> None:
    made = await applicant.apply()
    await applicant.add(made, "store_front", png(5, 5))
    same = await asyncio.gather(*(applicant.add(made, "store_front", png(6, 6)) for _ in range(3)))

    [kept] = await documents_of(stage.db, parse("app", made["id"]))
    content = await read_document(stage.platform.blobs, kept)

    assert {said["id"] for _, said in same} == {show("doc", kept.id)}
    assert content == png(6, 6)
    files = list(stage.platform.settings.data_dir.rglob("*.blob"))
    assert files
    assert not any(b"IHDR" in path.read_bytes() for path in files)


async def test_nothing_is_handed_in_without_its_documents(applicant: Applicant) -> None:
    made = await applicant.apply()
    await applicant.add(made, "business_license", PICTURES["business_license"])

    status, refused = await applicant.submit(made)

    assert (status, refused["code"]) == (422, "application.documents_missing")
    assert "legal_id_front" in str(refused)
    assert "business_license" not in str(refused)


@pytest.mark.parametrize(
    ("part", "field", "code"),
    [
        ("firm", "license_ends", "application.license_expired"),
        ("legal_person", "id_ends", "application.identity_expired"),
    ],
)
async def test_what_ran_out_on_the_business_clock_is_refused(
    applicant: Applicant, part: str, field: str, code: str
) -> None:
    """Its last day counts; the day after does not, whatever the machine's clock says."""
    today = business_date(applicant.db.clock.now())
    ended = await applicant.apply(**{part: {field: (today - timedelta(days=1)).isoformat()}})
    last_day = await applicant.apply(**{part: {field: today.isoformat()}})

    refused = await applicant.submit(ended)
    missing = await applicant.submit(last_day)

    assert (refused[0], refused[1]["code"]) == (422, code)
    assert missing[1]["code"] == "application.documents_missing"


async def test_two_operators_open_a_merchant_with_key_book_and_prices(
    applicant: Applicant, stage: Stage
) -> None:
    made = await applicant.opened(firm={"short_name": "两人茶馆"})

    assert made["status"] == "opened"
    merchant = await merchant_with_id(stage.db, parse("mch", made["merchant_id"]))
    row = await applicant.row(made)
    assert merchant.name == "两人茶馆"
    assert merchant.id == derived_id(row.id, "merchant")
    assert merchant.bank_account_masked == "•••• 3445"
    path = f"/v1/applications/{made['id']}/first_key"
    (_, key), (again, refused) = [await applicant.ask("POST", path) for _ in range(2)]
    assert (again, refused["code"]) == (409, "application.key_shown")
    own = SignedClient(stage.app, key["key_id"], key["secret"])
    profile = await own.send("GET", "/v1/merchant")
    assert profile.status == 200
    assert b"test_helpers:write" not in profile.body
    assert "applications:write" not in key["scopes"]
    assert (await own.send("GET", f"/v1/applications/{made['id']}")).status in {403, 404}


async def test_nobody_approves_what_they_proposed(applicant: Applicant) -> None:
    made = await applicant.submitted()
    proposed = await applicant.propose(made)

    with pytest.raises(OwnProposal):
        await applicant.approve(proposed, actor=MAKER)
    with pytest.raises(ApprovalWaiting):
        await applicant.propose(made, actor=CHECKER)

    assert (await applicant.row(made)).state is ApplicationState.SUBMITTED


async def test_what_changed_after_it_was_looked_at_is_not_opened(
    applicant: Applicant, stage: Stage
) -> None:
    made = await applicant.submitted()
    proposed = await applicant.propose(made)
    row = await applicant.row(made)
    async with stage.db.begin(MAKER) as tx:
        await return_application(tx, row.id, version=row.version, note="the picture is dark")
    await applicant.approve(proposed)

    await stage.platform.worker.run_until_idle(raise_failures=True)

    assert (await approval_with_id(stage.db, proposed.id)).code == "application.changed"
    returned = await applicant.read(made)
    assert (returned["status"], returned["note"]) == ("draft", "the picture is dark")
    assert "merchant_id" not in returned


async def test_a_licence_that_ran_out_during_the_review_opens_nobody(
    applicant: Applicant, stage: Stage
) -> None:
    today = business_date(stage.db.clock.now())
    made = await applicant.submitted(firm={"license_ends": today.isoformat()})
    proposed = await applicant.propose(made)
    await applicant.approve(proposed)
    stage.db.clock.offset += timedelta(days=1)

    await stage.platform.worker.run_until_idle(raise_failures=True)

    assert (await approval_with_id(stage.db, proposed.id)).code == "application.license_expired"
    assert (await applicant.row(made)).opened_merchant_id is None


async def test_one_firm_is_taken_on_once(applicant: Applicant) -> None:
    made = await applicant.opened()
    firm = {"credit_code": made["firm"]["credit_code"]}
    rival = await applicant.apply(firm=firm)
    for kind, content in PICTURES.items():
        await applicant.add(rival, kind, content)

    status, refused = await applicant.submit(rival)

    assert (status, refused["code"]) == (409, "application.firm_taken_on")


async def test_whoever_applies_for_the_same_person_is_found_again(applicant: Applicant) -> None:
    """Not refused: a person may have two firms. Whoever reviews should know."""
    person = {"id_number": "440524188001010014"}
    await applicant.submitted(legal_person=person)
    second = await applicant.row(await applicant.submitted(legal_person=person))

    found = {each.check: each for each in second.findings}

    assert (found["person_unique"].passed, found["person_unique"].count) == (False, 1)
    assert found["firm_unique"].passed
    assert found["numbers"].passed


async def test_another_tenant_sees_nothing(applicant: Applicant, stage: Stage) -> None:
    made = await applicant.submitted()
    other = await stage.open_shop()
    stranger = SignedClient(stage.app, other.key_id, other.secret.reveal())

    for method, path in (
        ("GET", f"/v1/applications/{made['id']}"),
        ("GET", f"/v1/applications/{made['id']}/registrations"),
        ("POST", f"/v1/applications/{made['id']}/submit"),
        ("POST", f"/v1/applications/{made['id']}/withdraw"),
        ("POST", f"/v1/applications/{made['id']}/first_key"),
    ):
        headers = {"idempotency-key": new_number()}
        reply = await stranger.send(method, path, headers=headers)
        assert reply.status == 404, (method, path, reply.body)
    listed = await stranger.send("GET", "/v1/applications")
    assert made["id"].encode() not in listed.body


async def test_terms_are_signed_by_hash_and_again_when_they_change(
    applicant: Applicant, stage: Stage
) -> None:
    made = await applicant.apply()
    for kind, content in PICTURES.items():
        await applicant.add(made, kind, content)
    async with stage.db.begin(MAKER) as tx:
        await publish_terms(tx, title="商户服务协议", content="第一条")
    path = f"/v1/applications/{made['id']}/signatures"
    try:
        unsigned = await applicant.submit(made)
        _, found = await applicant.ask("GET", "/v1/merchant_terms")
        [terms] = found["items"]
        sign = {
            "version": terms["version"],
            "sha256": terms["sha256"],
            "signer": "张三丰",
            "method": "sms_code",
        }
        wrong = await applicant.ask("POST", path, sign | {"sha256": "0" * 64})
        signed = await applicant.ask("POST", path, sign)
        async with stage.db.begin(MAKER) as tx:
            await publish_terms(tx, title="商户服务协议", content="第一条（修订）")
        outdated = await applicant.submit(made)
        stale = await applicant.ask("POST", path, sign)
    finally:
        await stage.db.execute("delete from term_signature", ())
        await stage.db.execute("delete from merchant_term", ())

    assert unsigned[1]["code"] == outdated[1]["code"] == "terms.unsigned"
    assert wrong[1]["code"] == stale[1]["code"] == "terms.not_these"
    assert (signed[0], signed[1]["signer"]) == (200, "**丰")
