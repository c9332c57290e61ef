"""An opened merchant at its channel: sent once, asked about, rejected and corrected, connected."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.infra.signed_client import SignedClient
from tests.onboarding.applicants import Applicant
from tests.stage import Stage, new_number
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.settings import Secret
from tongbao.kernel.ids import parse, show
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.payments.registrations import _store as store
from tongbao.payments.registrations.model import Registration, RegistrationState
from tongbao.payments.registrations.registrations import look
from tongbao.surfaces.demo.stage import Shop

PERSONS = (
    "张三丰",
    "11010519491231002X",
    "13800001234",
    "zhang@tea.example",
    "6222020200112233445",
)


async def first_answer(applicant: Applicant, fault: str = "", **more: Any) -> Registration:
    """Open a merchant and let the channel take it, or do what a fault makes it do."""
    if fault:
        applicant.stage.fault("wechat_pay", "applyment", fault, **more)
    return await applicant.registration(await applicant.opened())


async def submissions(stage: Stage, found: Registration) -> int:
    """How many applications of this number the channel was sent."""
    seen = await asyncio.to_thread(stage.sandbox.get, "requests", last=500)
    return sum(
        found.number in str(each) and each["method"] == "POST" and "applyment4sub" in each["target"]
        for each in seen
    )


async def test_a_finished_merchant_takes_its_first_payment(
    applicant: Applicant, stage: Stage
) -> None:
    """Audit, signature, number: and the number is of an account that orders go over."""
    made = await applicant.opened(firm={"short_name": "新店"})
    assert (await applicant.registration(made)).state is RegistrationState.AUDITING

    for _ in range(8):
        await stage.advance(minutes=5)
    found = await applicant.registration(made)
    assert found.state is RegistrationState.FINISHED
    assert found.sub_merchant is not None
    assert found.connected_id is not None
    path = f"/v1/applications/{made['id']}/first_key"
    _, key = await applicant.ask("POST", path)
    merchant = await merchant_with_id(stage.db, parse("mch", made["merchant_id"]))
    stage.platform.accounts.forget()
    shop = stage.client_of(Shop(merchant, key["key_id"], Secret(key["secret"])))
    payment = await stage.paid("wechat_pay", 1999, client=shop)
    assert payment["status"] == "succeeded"


async def test_no_evidence_names_a_person(applicant: Applicant, stage: Stage) -> None:
    found = await first_answer(applicant)

    exchanges = await store.EXCHANGES.all(stage.db, found.id)

    assert exchanges
    for each in exchanges:
        shown = f"{each.url} {each.request} {each.reply}"
        assert not [secret for secret in PERSONS if secret in shown]


async def test_what_was_rejected_is_corrected_and_sent_again_under_its_number(
    applicant: Applicant, stage: Stage
) -> None:
    stage.fault("wechat_pay", "applyment", "rejected:id_card_copy")
    made = await applicant.opened()
    await stage.advance(minutes=2)
    path = f"/v1/applications/{made['id']}/registrations"
    _, said = await applicant.ask("GET", path)
    [rejected] = said["items"]
    assert rejected["status"] == "rejected"
    assert rejected["reasons"][0]["field"] == "id_card_copy"

    resend = f"/v1/registrations/{rejected['id']}/send_again"
    status, again = await applicant.ask("POST", resend)
    twice, refused = await applicant.ask("POST", resend)
    for _ in range(8):
        await stage.advance(minutes=5)

    assert (status, again["status"]) == (200, "waiting")
    assert (twice, refused["code"]) == (409, "registration.not_rejected")
    found = await applicant.registration(made)
    assert (found.state, found.sends) == (RegistrationState.FINISHED, 2)


async def test_a_channel_that_stays_in_review_is_asked_and_nothing_is_sent_twice(
    applicant: Applicant, stage: Stage
) -> None:
    found = await first_answer(applicant, "stays")

    for _ in range(4):
        await stage.advance(hours=5)

    found = await store.GET_REGISTRATION.one(stage.db, found.id)
    assert found.state is RegistrationState.AUDITING
    assert found.queries >= 3
    assert found.sends == 1
    assert await submissions(stage, found) == 1


async def test_the_merchant_is_sent_to_verify_its_account(
    applicant: Applicant, stage: Stage
) -> None:
    found = await first_answer(applicant, "verify")
    await stage.advance(minutes=3)
    verifying = await store.GET_REGISTRATION.one(stage.db, found.id)
    assert verifying.state is RegistrationState.VERIFYING
    assert verifying.action_url
    assert verifying.action_url.startswith("https://pay.weixin.qq.com/")

    await stage.control("wechat/applyment", number=found.number, action="finish")
    await stage.advance(hours=1)

    finished = await store.GET_REGISTRATION.one(stage.db, found.id)
    assert (finished.state, finished.action_url) == (RegistrationState.FINISHED, None)


@pytest.mark.parametrize(
    ("fault", "sent"),
    [
        ("http_500_done", 1),
        ("http_500_not_done", 2),
        ("bad_signature_done", 1),
        ("reset", 2),
    ],
)
async def test_an_answer_that_never_came_is_asked_about(
    applicant: Applicant, stage: Stage, fault: str, sent: int
) -> None:
    """Only what the channel says it has not is sent again."""
    found = await first_answer(applicant, fault)
    assert found.state is RegistrationState.ASKED

    for _ in range(10):
        await stage.advance(minutes=10)

    found = await store.GET_REGISTRATION.one(stage.db, found.id)
    assert (found.state, found.sends) == (RegistrationState.FINISHED, sent)


FAILPOINTS = (
    "registrations.before_intention",
    "registrations.after_intention",
    "registrations.after_call",
    "registrations.before_answer",
    "registrations.after_answer",
)


@pytest.mark.parametrize("place", FAILPOINTS)
async def test_whoever_dies_in_a_registration_is_followed_by_one_that_finishes_it(
    applicant: Applicant, stage: Stage, place: str
) -> None:
    found = await applicant.begun(await applicant.submitted())
    failpoints.arm(f"{place}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            await look(stage.platform.registrar, found)
    finally:
        failpoints.arm(None)

    await stage.platform.worker.run_until_idle(raise_failures=True)
    for _ in range(8):
        await stage.advance(minutes=10)

    found = await store.GET_REGISTRATION.one(stage.db, found.id)
    assert found.state is RegistrationState.FINISHED
    assert await submissions(stage, found) == 1
    rows = await stage.db.fetch(
        "select count(*) as n from channel_account where merchant_number = $1",
        (found.sub_merchant,),
    )
    assert rows[0]["n"] == 1


async def test_a_channel_without_such_calls_waits_for_a_person(
    applicant: Applicant, stage: Stage
) -> None:
    made = await applicant.opened(channels=[{"channel": "unionpay"}])

    found = await applicant.registration(made, "unionpay")

    assert found.state is RegistrationState.MANUAL
    own = SignedClient(stage.app, stage.shop.key_id, stage.shop.secret.reveal())
    reply = await own.send(
        "POST",
        f"/v1/registrations/{show('reg', found.id)}/send_again",
        headers={"idempotency-key": new_number()},
    )
    assert reply.status == 409
