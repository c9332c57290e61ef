"""A merchant below us at Alipay (直付通): applied for, rejected and corrected, finished, paid."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.onboarding.applicants import Applicant
from tests.onboarding.test_registrations import PERSONS
from tests.stage import Stage
from tongbao.infra.settings import Secret
from tongbao.kernel.ids import parse
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.payments.registrations import _store as store
from tongbao.payments.registrations.model import Registration, RegistrationState
from tongbao.surfaces.demo.stage import Shop

ALIPAY: dict[str, Any] = {
    "channels": [{"channel": "alipay", "terms": {"service": "当面付,app支付"}}],
    "prices": [{"channel": "alipay", "pay_mode": "qr", "rate_ppm": 6000}],
}


async def applied(applicant: Applicant, fault: str = "") -> tuple[dict[str, Any], Registration]:
    if fault:
        applicant.stage.fault("alipay", "applyment", fault)
    made = await applicant.opened(**ALIPAY)
    return made, await applicant.registration(made, "alipay")


async def sent(stage: Stage, method: str) -> int:
    """How many calls of a method the channel has heard."""
    seen = await asyncio.to_thread(stage.sandbox.get, "requests", last=500)
    return sum(f"method={method}" in str(each["target"]) for each in seen)


async def test_a_sub_merchant_is_taken_on_signs_and_is_paid_in_its_own_name(
    applicant: Applicant, stage: Stage
) -> None:
    made, found = await applied(applicant)
    assert found.state is RegistrationState.AUDITING
    await stage.advance(minutes=2)
    signing = await applicant.registration(made, "alipay")
    for _ in range(6):
        await stage.advance(minutes=5)
    finished = await applicant.registration(made, "alipay")

    assert (signing.state, finished.state) == (
        RegistrationState.SIGNING,
        RegistrationState.FINISHED,
    )
    assert signing.action_url is not None
    assert signing.action_url.startswith("https://render.alipay.com/")
    assert finished.sub_merchant is not None
    assert finished.sub_merchant.startswith("2088")
    assert finished.connected_id is not None

    _, key = await applicant.ask("POST", f"/v1/applications/{made['id']}/first_key")
    merchant = await merchant_with_id(stage.db, parse("mch", made["merchant_id"]))
    stage.platform.accounts.forget()
    shop = stage.client_of(Shop(merchant, key["key_id"], Secret(key["secret"])))
    payment = await stage.paid("alipay", 1999, client=shop)
    refund = await stage.refund(payment, 500, client=shop)
    await stage.idle()
    assert payment["status"] == "succeeded"
    assert (await stage.read(refund, client=shop))["status"] == "succeeded"
    account = await stage.platform.accounts.get(finished.connected_id)
    assert account.merchant_number == finished.sub_merchant


async def test_no_evidence_at_alipay_names_a_person(applicant: Applicant, stage: Stage) -> None:
    _, found = await applied(applicant)

    exchanges = await store.EXCHANGES.all(stage.db, found.id)

    assert exchanges
    for each in exchanges:
        shown = f"{each.url} {each.request} {each.reply}"
        assert not [secret for secret in PERSONS if secret in shown]


async def test_what_failed_is_sent_again_under_its_number(
    applicant: Applicant, stage: Stage
) -> None:
    made, found = await applied(applicant, "rejected")
    await stage.advance(minutes=2)
    rejected = await applicant.registration(made, "alipay")
    path = f"/v1/applications/{made['id']}/registrations"
    _, said = await applicant.ask("GET", path)
    [shown] = said["items"]

    status, _ = await applicant.ask("POST", f"/v1/registrations/{shown['id']}/send_again")
    for _ in range(8):
        await stage.advance(minutes=5)

    finished = await applicant.registration(made, "alipay")
    assert (rejected.state, status) == (RegistrationState.REJECTED, 200)
    assert [(each.field, each.reason) for each in rejected.reasons] == [
        ("kz_audit", "营业执照照片不清晰")
    ]
    assert (finished.state, finished.sends, finished.number) == (
        RegistrationState.FINISHED,
        2,
        found.number,
    )


@pytest.mark.parametrize(
    ("fault", "times"),
    [("http_500_done", 1), ("http_500_not_done", 2), ("bad_signature_done", 1), ("reset", 2)],
)
async def test_an_answer_of_alipay_that_never_came_is_asked_about(
    applicant: Applicant, stage: Stage, fault: str, times: int
) -> None:
    before = await sent(stage, "ant.merchant.expand.indirect.zft.create")
    made, _ = await applied(applicant, fault)

    for _ in range(8):
        await stage.advance(minutes=5)

    finished = await applicant.registration(made, "alipay")
    after = await sent(stage, "ant.merchant.expand.indirect.zft.create")
    assert finished.state is RegistrationState.FINISHED
    assert after - before == times
