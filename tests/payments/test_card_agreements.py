"""Somebody signs with a bank card, a merchant deducts over the card host, until it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from tests.dying import dying
from tests.parties.card_people import pan
from tests.parties.phones import PHONE, Phone
from tests.parties.test_e_accounts import crash_at
from tests.parties.test_person_locks import until_one_waits
from tests.payments.test_cards import BALANCE, comes_to, on_card, script
from tests.payments.test_cards import card_host as plain_host
from tests.payments.test_own_wallet import code_of, wallet_with
from tests.payments.test_people_cards import SandboxPost
from tests.payments.test_wallet_agreements import deduct, refusal_of, used
from tests.stage import Stage, new_number
from tongbao.duties import reach_of
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.bound_cards import queries as bound_cards
from tongbao.parties.bound_cards.binding import unbind
from tongbao.parties.bound_cards.model import BindingOver
from tongbao.parties.bound_cards.queries import card_with_id
from tongbao.payments.agreements.queries import agreement_with_id
from tongbao.payments.card_agreements import signing
from tongbao.payments.card_agreements.charging import detokenising
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao_sdk import Refused

__all__ = ["plain_host"]

AT, AGREEMENTS = "/v1/me/bank_cards", "/v1/me/agreements"
AMOUNT = 1999
CARDS = [pan(8_101 + number, "625188") for number in range(9)]


@pytest.fixture(scope="module", autouse=True)
async def tokens(module_stage: Stage, plain_host: None) -> AsyncIterator[None]:
    """A channel of cards that knows whom to ask for the card behind an agreement."""
    channels: Any = module_stage.flow.channels
    known = detokenising(module_stage.db, module_stage.platform.keys.sealing_keys)
    kept, channels["cards"] = channels["cards"], Cards(LineLimits(answer_s=1.5), known)
    yield
    await channels["cards"].shut()
    channels["cards"] = kept


@pytest.fixture(scope="module")
async def alice(module_stage: Stage) -> Phone:
    """Somebody whose real name is known, who binds cards with their phone."""
    stage = module_stage
    phone = Phone(stage.app, SandboxPost(stage))
    phone.mode = {"mode": "sandbox"}
    assert (await phone.register(PHONE)).status == 201
    await stage.db.fetch("update person_device set bound_at = bound_at - interval '7 days'", ())
    await stage.db.fetch("update opening_rule set figure = 100 where name like '%_max'", ())
    await phone.post("/v1/me/identity", name="张三", resident_id="110101199003078670")
    for source in ("residents", "phones", "tax", "cards", "social_security"):
        assert (await phone.post("/v1/me/identity/checks", source=source)).status < 300
    return phone


async def bind(stage: Stage, phone: Phone, number: str) -> str:
    given = {"number": number, "expiry": "4912", "phone": "13900139000"}
    await phone.post_office.wait()  # for codes, which are few in a minute
    asked = await phone.confirmed(AT, **given)
    assert asked.status == 201, asked.body
    text = (await phone.letters("+8613900139000"))[-1].text
    sent = {"code_id": asked.json["code_id"], "code": text.split("验证码")[1][:6]}
    card = str(asked.json["card"]["id"])
    assert (await phone.post(f"{AT}/{card}/confirm", **sent)).status == 200
    return card


async def offer(stage: Stage, **limits: Any) -> Any:
    return await stage.call(
        stage.client.agreements.create, merchant_agreement_no=new_number(), channel="cards",
        plan="membership", display_name="tea every week", **limits,
    )  # fmt: skip


async def signed(stage: Stage, card: str, **limits: Any) -> Any:
    agreement = await offer(stage, **limits)
    row = await card_with_id(stage.db, parse("bcd", card))
    await signing.sign(reach_of(stage.flow), row, code_of(agreement), Confirmed(None))
    return agreement


async def test_an_agreement_is_signed_by_phone_collected_under_and_ended(
    stage: Stage, alice: Phone
) -> None:
    card = await bind(stage, alice, CARDS[0])
    agreement = await offer(stage, limit_each=2000, period="month", limit_per_period=5000)
    assert agreement["status"] == "pending"
    code = code_of(agreement)

    seen = (await alice.post("/v1/me/agreement_scans", code=code)).json
    assert (seen["payee"], seen["limit_each"], seen["period"], seen["card"]) == (
        stage.shop.merchant.name, 2000, "month", None,
    )  # fmt: skip
    asked = await alice.post(AGREEMENTS, code=code, card=card)
    assert asked.code == "authentication.step_up_required"
    done = await alice.confirmed(AGREEMENTS, code=code, card=card)
    again = await alice.post(AGREEMENTS, code=code, card=card)
    assert (done.status, done.json["status"], again.json) == (201, "active", done.json), done.body
    payment = await deduct(stage, agreement)

    assert (payment["status"], payment["amount_captured"]) == ("succeeded", AMOUNT), payment
    assert payment["method"] == {
        "channel": "cards", "mode": "card", "agreement_id": agreement["id"],
    }  # fmt: skip
    assert await on_card(stage, CARDS[0]) == (BALANCE - AMOUNT, 0)
    assert await used(stage, agreement) == AMOUNT
    assert [code for code, _ in await stage.postings(payment)] == [
        "payment.captured/gross", "payment.captured/fee",
    ]  # fmt: skip
    refund = await stage.refund(payment, 999)
    assert refund["status"] == "succeeded"
    assert await comes_to(stage, CARDS[0], (BALANCE - 1000, 0))
    assert await refusal_of(deduct(stage, agreement, 2001)) == "agreement.limit_each"
    assert await refusal_of(deduct(stage, agreement, capture="manual")) == (
        "payment.capture_not_offered"
    )
    listed = (await alice.get(AGREEMENTS)).json
    assert (agreement["id"], card, AMOUNT) in [
        (each["id"], each["card"], each["used_total"]) for each in listed
    ]
    person_id = parse("per", (await alice.get("/v1/me")).json["id"])
    kept = signing.contributor()
    assert kept.objects is not None
    assert await kept.objects(stage.db, person_id)
    assert len(await kept.show(stage.db, person_id)) == len(listed)
    ended = await alice.post(f"{AGREEMENTS}/{agreement['id']}/end")
    assert ended.json["status"] == "ended"
    assert await refusal_of(deduct(stage, agreement)) == "agreement.not_active"
    rows = await stage.db.fetch("select row_to_json(a)::text as row from attempt a", ())
    assert not [row for row in rows if CARDS[0] in row["row"]]
    await stage.idle()
    assert await stage.events(agreement) == ["agreement.signed", "agreement.ended"]


async def test_nobody_else_sees_signs_or_ends_it(stage: Stage, alice: Phone) -> None:
    card = await bind(stage, alice, CARDS[1])
    agreement = await offer(stage)
    wallet = await wallet_with(stage)
    signing_by_wallet = stage.call(stage.client.wallets.sign, wallet["id"], code_of(agreement))
    assert await refusal_of(signing_by_wallet) == "wallet.agreement_unknown"
    bob = Phone(stage.app, SandboxPost(stage))
    bob.mode = {"mode": "sandbox"}
    assert (await bob.register("13800138003")).status == 201
    stolen = await bob.post(AGREEMENTS, code=code_of(agreement), card=card)
    assert stolen.code == "bound_card.not_found"
    other = (await alice.post("/v1/me/agreement_scans", code="tongbao:sign/1")).code
    assert other == "wallet.agreement_unknown"
    await alice.confirmed(AGREEMENTS, code=code_of(agreement), card=card)
    assert (await bob.get(AGREEMENTS)).json == []
    assert (await bob.post(f"{AGREEMENTS}/{agreement['id']}/end")).code == "agreement.not_found"
    second = await bind(stage, alice, CARDS[2])
    taken = await alice.confirmed(AGREEMENTS, code=code_of(agreement), card=second)
    assert taken.code == "wallet.agreement_not_open"
    closed = await stage.call(stage.client.agreements.end, agreement["id"])
    assert closed["status"] == "ended"


async def test_silence_is_reversed_and_a_card_that_is_gone_declined_and_both_count_nothing(
    stage: Stage, alice: Phone
) -> None:
    card = await bind(stage, alice, CARDS[3])
    agreement = await signed(stage, card, period="day", limit_per_period=5000)
    await script(stage, "time_out_done")

    silent = await deduct(stage, agreement)
    for _ in range(4):
        await stage.idle()
        await stage.advance(seconds=60)

    assert (await stage.read(silent))["status"] in {"failed", "closed"}
    assert await comes_to(stage, CARDS[3], (BALANCE, 0))
    assert await used(stage, agreement) == 0
    async with stage.db.begin("test") as tx:  # as a deduction finds it that was on its way
        await unbind(tx, await card_with_id(tx, parse("bcd", card)))
    gone = await deduct(stage, agreement)
    assert (gone["status"], gone["failure"]["code"]) == ("failed", "token_card_gone")
    await stage.idle()
    assert await used(stage, agreement) == 0


async def test_what_was_signed_with_a_card_ends_with_it_in_one_commit(
    stage: Stage, alice: Phone
) -> None:
    card = await bind(stage, alice, CARDS[7])
    row = await card_with_id(stage.db, parse("bcd", card))
    agreements = [await signed(stage, card) for _ in "12"]
    late = await offer(stage)
    with dying("card_agreements.before_unbind_commit"):
        async with stage.db.begin("test") as tx:
            await signing.unbind(tx, row)
    payment = await deduct(stage, agreements[0])
    assert payment["status"] == "succeeded", "neither has happened"
    await stage.idle()

    assert (await alice.confirmed(f"{AT}/{card}/unbind")).json["status"] == "unbound"
    with pytest.raises(BindingOver):  # who signs has looked at the card while it was bound
        await signing.sign(reach_of(stage.flow), row, code_of(late), Confirmed(None))

    for agreement in agreements:
        assert await refusal_of(deduct(stage, agreement)) == "agreement.not_active"
    await stage.idle()
    for agreement in agreements:
        assert await stage.events(agreement) == ["agreement.signed", "agreement.ended"]
    assert (await stage.call(stage.client.agreements.get, late["id"]))["status"] == "pending"


async def test_twelve_deductions_at_once_never_pass_the_limit(stage: Stage, alice: Phone) -> None:
    card = await bind(stage, alice, CARDS[4])
    agreement = await signed(stage, card, period="month", limit_per_period=5_000)

    async def try_one() -> int:
        try:
            payment = await deduct(stage, agreement, 900)
        except Refused as refusal:
            return 0 if refusal.code == "agreement.limit_per_period" else -1
        return 900 if payment["status"] == "succeeded" else -1

    taken = sum(await asyncio.gather(*(try_one() for _ in range(12))))

    assert taken == 4_500 == await used(stage, agreement)
    assert await on_card(stage, CARDS[4]) == (BALANCE - 4_500, 0)


@pytest.mark.parametrize("name", ["agreements.before_own_change", "agreements.after_own_change"])
async def test_a_crash_while_signing_is_repeated_without_harm(
    stage: Stage, alice: Phone, name: str
) -> None:
    [card] = [
        each["id"] for each in (await alice.get(AT)).json if each["last4"] == CARDS[5][-4:]
    ] or [await bind(stage, alice, CARDS[5])]
    agreement = await offer(stage)
    row = await card_with_id(stage.db, parse("bcd", card))
    with crash_at(name):
        await signing.sign(reach_of(stage.flow), row, code_of(agreement), Confirmed(None))

    for _ in "12":
        found = await signing.sign(reach_of(stage.flow), row, code_of(agreement), Confirmed(None))

    assert (found.state, found.payer, found.mode) == ("active", card, Mode.SANDBOX)
    assert isinstance(found.id, UUID)
    await stage.idle()
    assert await stage.events(agreement) == ["agreement.signed"]


async def test_nothing_is_signed_with_a_card_that_is_let_go_meanwhile(
    stage: Stage, alice: Phone
) -> None:
    bound = await bind(stage, alice, CARDS[6])
    agreement = await offer(stage)
    card = await card_with_id(stage.db, parse("bcd", bound))
    reach = reach_of(stage.flow)
    async with stage.db.begin("test") as tx:
        await unbind(tx, card)
        signing_it = asyncio.create_task(
            signing.sign(reach, card, code_of(agreement), Confirmed(None))
        )
        await until_one_waits(stage.db)
    with pytest.raises(BindingOver):
        await signing_it
    assert (await stage.call(stage.client.agreements.get, agreement["id"]))["status"] == "pending"


class Undone(Exception):
    """Leave nothing of a transaction."""


async def test_nobody_is_erased_whose_agreement_stands_and_one_signed_meanwhile_ends(
    stage: Stage, alice: Phone
) -> None:
    card = await bind(stage, alice, CARDS[8])
    agreement = await signed(stage, card)
    row = await card_with_id(stage.db, parse("bcd", card))
    ours = signing.contributor()
    assert ours.objects is not None
    reason = await ours.objects(stage.db, row.person_id)
    assert reason is not None
    assert "has not ended" in reason

    async def erase_what_is_kept() -> None:
        """As an erasure does that had looked before the agreement was signed."""
        async with stage.db.begin("test") as tx:
            for each in (bound_cards.contributor(), ours):
                await each.erase(tx, row.person_id)
            found = await agreement_with_id(tx, parse("agr", agreement["id"]))
            assert found.state == "ended"
            raise Undone

    with pytest.raises(Undone):
        await erase_what_is_kept()
    found = await agreement_with_id(stage.db, parse("agr", agreement["id"]))
    assert (await signing.end(reach_of(stage.flow), found)).state == "ended"
