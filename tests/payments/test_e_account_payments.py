"""A merchant's code paid out of an electronic account: one commit, every meter, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.parties.phones import PHONE, Phone
from tests.parties.test_e_accounts import agrees, crash_at, left, now_is, somebody
from tests.payments.test_own_wallet import code_of, pay, wallet_with
from tests.payments.test_people_cards import SandboxPost
from tests.stage import Stage
from tests.surfaces.cashing import Till, page_of
from tests.surfaces.visitors import reader
from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.db import write_all
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.e_accounts import opening, orders
from tongbao.parties.e_accounts.model import (
    EAccount,
    EAccountBalanceShort,
    EAccountFrozen,
    EAccountStateWrong,
)
from tongbao.parties.e_accounts.orders import Teller, Wanted
from tongbao.parties.people import dossier
from tongbao.parties.people.model import Person
from tongbao.payments.collecting.model import Verdict
from tongbao.payments.e_account_payments import paying, queries, returning
from tongbao.payments.e_account_payments.model import (
    EAccountRefund,
    PayeeElsewhere,
    ReturnNotFound,
    ReturnTaken,
    Whereabouts,
)
from tongbao.payments.own_wallet.model import WalletQrEnded, WalletQrPaid, WalletQrUnknown
from tongbao.surfaces.own_payments import routes as own_payments
from tongbao.surfaces.wallet import e_accounts as wallet_e_accounts
from tongbao_sdk.replies import Payment

AMOUNT = 1999
NOTHING = Confirmed(None)


async def account_of(
    stage: Stage,
    account_class: int = 3,
    *,
    fill: int = 10_000,
    licence: Licence = Licence.PAYMENT_INSTITUTION,
    person: Person | None = None,
) -> EAccount:
    person = person or await somebody(stage.db)
    async with stage.db.begin("test") as tx:
        made = await opening.open_account(
            tx, licence, person, account_class, public_key=new_id().bytes
        )
        made = await opening.activate(tx, made)
    if fill:
        wanted = Wanted("top_up", Money(fill, "CNY"), "fill")
        await orders.order(teller_of(stage), made, wanted, level=0, confirmed=NOTHING)
    return await now_is(stage.db, made)


def teller_of(stage: Stage) -> Teller:
    return Teller(stage.db, stage.platform.ledger)


async def pay_from(stage: Stage, account: EAccount, payment: Payment, level: int = 3) -> Any:
    text = code_of(payment)
    return await paying.pay(stage.flow, account, text, level=level, confirmed=NOTHING)


async def whereabouts(stage: Stage, account: EAccount, refund: Any) -> EAccountRefund:
    payment_id = parse("pay", refund["payment_id"])
    made = await queries.payment_of_account(stage.db, account, payment_id)
    found = (await queries.refunds_of(stage.db, [made]))[payment_id]
    return next(each for each in found if each.refund_id == parse("ref", refund["id"]))


async def test_a_code_is_paid_with_every_meter_in_one_commit_and_once(stage: Stage) -> None:
    account = await account_of(stage, 3)
    payment = await stage.show_qr("wallet", AMOUNT)

    made, again = [await pay_from(stage, account, payment, level=1) for _ in "12"]

    assert made == again
    assert (made.payee, made.amount, made.level) == (stage.shop.merchant.name, AMOUNT, 1)
    read = await stage.read(payment)
    assert (read["status"], read["amount_captured"]) == ("succeeded", AMOUNT)
    assert await stage.postings(payment) == [
        ("payment.captured_by_e_account/gross", AMOUNT),
        ("payment.captured_by_e_account/fee", 6),
    ]
    await stage.idle()
    assert await stage.events(payment) == ["payment.succeeded"]
    assert (await now_is(stage.db, account)).balance == 10_000 - AMOUNT
    limits = await left(stage.db, account)
    assert limits["out_others/year"] == 20_000_000 - AMOUNT
    assert limits["weak_one/day"] == 100_000 - AMOUNT
    await agrees(stage.db, account)
    other = await account_of(stage, 3)
    with pytest.raises(WalletQrPaid):
        await pay_from(stage, other, payment)


async def test_a_refusal_says_which_rule_and_leaves_the_code_payable(stage: Stage) -> None:
    poor = await account_of(stage, 3, fill=100)
    first = await account_of(stage, 1, fill=300_000)
    payment = await stage.show_qr("wallet", 100_001)

    with pytest.raises(EAccountBalanceShort):
        await pay_from(stage, poor, payment)
    with pytest.raises(LimitExceeded) as refusal:
        await pay_from(stage, first, payment)
    assert (refusal.value.facts["period"], refusal.value.facts["left"]) == ("lifetime", 100_000)
    payment = await stage.show_qr("wallet", AMOUNT)
    await stage.db.fetch("update e_account set out_stops = 1 where id = $1", (first.id,))
    with pytest.raises(EAccountFrozen):
        await pay_from(stage, first, payment)
    await stage.db.fetch("update e_account set out_stops = 0 where id = $1", (first.id,))
    await stage.db.fetch("update e_account set state = 'dormant' where id = $1", (first.id,))
    with pytest.raises(EAccountStateWrong):
        await pay_from(stage, first, payment)
    await stage.db.fetch("update e_account set state = 'active' where id = $1", (first.id,))
    assert await stage.postings(payment) == []
    await pay_from(stage, first, payment)
    closed = await stage.show_qr("wallet", AMOUNT)
    await stage.close(closed)
    with pytest.raises(WalletQrEnded):
        await pay_from(stage, first, closed)
    with pytest.raises(WalletQrUnknown):
        await paying.pay(stage.flow, first, "tongbao:pay/1", level=3, confirmed=NOTHING)
    live = await account_of_mode(stage, Mode.LIVE)
    with pytest.raises(WalletQrUnknown):
        await pay_from(stage, live, await stage.show_qr("wallet", AMOUNT))


async def account_of_mode(stage: Stage, mode: Mode) -> EAccount:
    return await account_of(stage, 3, fill=0, person=await somebody(stage.db, mode=mode))


async def test_codes_of_a_bank_account_have_a_line_of_their_own(stage: Stage) -> None:
    account = await account_of(stage, 1, fill=0, licence=Licence.BANK, person=await seen(stage))
    wanted = Wanted("top_up", Money(900_000, "CNY"), "fill")
    await orders.order(teller_of(stage), account, wanted, level=0, confirmed=NOTHING)

    with pytest.raises(LimitExceeded) as refusal:
        await pay_from(stage, account, await stage.show_qr("wallet", 500_001), level=2)
    await pay_from(stage, account, await stage.show_qr("wallet", 500_001), level=3)

    assert "296号" in refusal.value.facts["instrument"]
    assert (refusal.value.facts["meter"], refusal.value.facts["left"]) == ("code_two", 500_000)


@pytest.mark.parametrize("licence", [Licence.PAYMENT_INSTITUTION, Licence.BANK])
async def test_five_hundred_yuan_a_day_are_paid_at_plates_however_they_are_confirmed(
    stage: Stage, licence: Licence
) -> None:
    """By one customer, over accounts of whatever class."""
    person = await somebody(stage.db)
    account = await account_of(stage, 2, fill=200_000, licence=licence, person=person)
    other = await account_of(stage, 3, fill=90_000, licence=licence, person=person)
    plate = await Till(stage).plate()

    await pay_from(stage, account, await at_plate(stage, plate, "300.00"), level=3)
    over = await at_plate(stage, plate, "200.01")
    with pytest.raises(LimitExceeded) as refusal:
        await pay_from(stage, other, over, level=3)
    rivals = [await at_plate(stage, plate, "120.00") for _ in range(4)]
    paid = await asyncio.gather(
        *(
            pay_from(stage, payer, each)
            for payer, each in zip([account, other] * 2, rivals, strict=True)
        ),
        return_exceptions=True,
    )
    await pay_from(stage, account, await stage.show_qr("wallet", 50_001), level=3)

    assert (refusal.value.facts["meter"], refusal.value.facts["left"]) == ("code_static", 20_000)
    assert "296号" in refusal.value.facts["instrument"]
    assert [type(each) for each in paid].count(LimitExceeded) == 3
    for each in (account, other):
        assert (await left(stage.db, each))["code_static/day"] == 20_000 - 12_000
    stage.db.clock.offset += timedelta(days=1)
    await pay_from(stage, account, await at_plate(stage, plate, "200.01"), level=3)


async def test_what_a_merchant_writes_makes_no_code_static(stage: Stage) -> None:
    account = await account_of(stage, 2, fill=200_000)
    plate = await Till(stage).plate()
    static = await at_plate(stage, plate, "300.00")
    wrote = {"plate_id": plate["id"], "checkout_id": static["metadata"]["checkout_id"]}
    for n, metadata in enumerate([wrote, {"checkout_id": "cko_none"}]):
        own = await stage.show_qr("wallet", 60_000 + n, metadata=metadata)
        await pay_from(stage, account, own)

    assert (await left(stage.db, account))["code_static/day"] == 50_000
    await pay_from(stage, account, static)
    assert (await left(stage.db, account))["code_static/day"] == 20_000


async def at_plate(stage: Stage, plate: dict[str, Any], amount: str) -> Any:
    """Enter an amount at a plate, choose the own wallet, and return the payment behind its code."""
    async with reader(stage) as one:
        page = await one.follow(await one.post(page_of(plate), {"amount": amount}))
        await one.follow(await one.post(f"{page.url.path}/method", {"method": "wallet.qr"}))
    listed = await Till(stage).said(
        "GET", f"/v1/payments?metadata=%7B%22plate_id%22%3A%22{plate['id']}%22%7D"
    )
    return listed["items"][0]


async def seen(stage: Stage) -> Person:
    """Somebody who was seen in an office."""
    person = await somebody(stage.db)
    await stage.db.fetch("delete from opening_rule where name = 'face_to_face'", ())
    return await dossier.person_with_id(stage.db, person.id)


async def test_a_merchant_in_another_book_is_paid_in_another_way(stage: Stage) -> None:
    account = await account_of(stage)
    payment = await stage.show_qr("wallet", AMOUNT)
    elsewhere = replace(account, book=9)

    with pytest.raises(PayeeElsewhere):
        await pay_from(stage, elsewhere, payment)


async def test_refunds_land_in_the_account_and_give_nothing_back_to_limits(stage: Stage) -> None:
    account = await account_of(stage)
    payment = await stage.show_qr("wallet", AMOUNT)
    await pay_from(stage, account, payment)
    before = await left(stage.db, account)
    await stage.db.fetch("update e_account set in_stops = 1 where id = $1", (account.id,))

    first, second = await stage.refund(payment, 999), await stage.refund(payment, 1000)

    assert (first["status"], second["status"]) == ("succeeded", "succeeded")
    assert (await now_is(stage.db, account)).balance == 10_000
    assert await left(stage.db, account) == before
    assert (await whereabouts(stage, account, first)).state is Whereabouts.LANDED
    await agrees(stage.db, account)


async def test_a_refund_to_a_closed_account_waits_until_its_person_takes_it(stage: Stage) -> None:
    person = await somebody(stage.db)
    account = await account_of(stage, 2, fill=AMOUNT, person=person)
    payment = await stage.show_qr("wallet", AMOUNT)
    await pay_from(stage, account, payment)
    async with stage.db.begin("test") as tx:
        await opening.close_account(tx, account)

    refund = await stage.refund(payment, AMOUNT)

    assert refund["status"] == "succeeded"
    row = await whereabouts(stage, account, refund)
    assert (row.state, row.code) == (Whereabouts.WAITING, "e_account.state_wrong")
    assert await queries.waiting_of_person(stage.db, Mode.SANDBOX, person.id) == [row]
    kept = queries.contributor()
    assert kept.objects is not None
    assert await kept.objects(stage.db, person.id)
    assert len(await kept.show(stage.db, person.id)) == 2
    assert await stage.postings(refund) == [
        ("refund.by_e_account_waiting/fee_back", 6),
        ("refund.by_e_account_waiting/gross", AMOUNT),
    ]
    stranger, open_one = await account_of(stage), await account_of(stage, 3, fill=0, person=person)
    teller = teller_of(stage)
    with pytest.raises(ReturnNotFound):
        await returning.take(teller, stranger, row.refund_id)
    places = ("e_accounts.before_return_taken", "e_accounts.after_return_taken")
    for name in places:
        with crash_at(name):
            await returning.take(teller, open_one, row.refund_id)
    taken = [await returning.take(teller, open_one, row.refund_id) for _ in "12"]
    assert [each.state for each in taken] == [Whereabouts.TAKEN] * 2
    assert (await now_is(stage.db, open_one)).balance == AMOUNT
    third = await account_of(stage, 1, fill=0, person=person)
    with pytest.raises(ReturnTaken):
        await returning.take(teller, third, row.refund_id)
    await agrees(stage.db, open_one, third)
    assert await queries.waiting_of_person(stage.db, Mode.SANDBOX, person.id) == []


async def test_a_refund_without_room_under_the_limit_of_balance_waits(stage: Stage) -> None:
    account = await account_of(stage, 3, fill=200_000, licence=Licence.BANK)
    payment = await stage.show_qr("wallet", 50_000)
    await pay_from(stage, account, payment)
    wanted = Wanted("top_up", Money(49_999, "CNY"), "more")
    await orders.order(teller_of(stage), account, wanted, level=0, confirmed=NOTHING)

    refunds = [await stage.refund(payment, each) for each in (1, 1)]

    states = [(await whereabouts(stage, account, each)).state for each in refunds]
    assert states == [Whereabouts.LANDED, Whereabouts.WAITING]
    row = await whereabouts(stage, account, refunds[1])
    with pytest.raises(LimitExceeded):
        await returning.take(teller_of(stage), account, row.refund_id)
    assert (await now_is(stage.db, account)).balance == 200_000
    await agrees(stage.db, account)


@pytest.mark.parametrize("name", ["payments.before_wallet", "payments.after_wallet"])
async def test_a_crash_leaves_all_of_it_or_nothing_and_the_repeat_ends_it(
    stage: Stage, name: str
) -> None:
    account, payment = await account_of(stage), await stage.show_qr("wallet", AMOUNT)
    with crash_at(name):
        await pay_from(stage, account, payment)

    made = await pay_from(stage, account, payment)

    assert made.amount == AMOUNT
    assert (await now_is(stage.db, account)).balance == 10_000 - AMOUNT
    assert (await left(stage.db, account))["out_others/year"] == 20_000_000 - AMOUNT
    await agrees(stage.db, account)


async def test_whoever_is_overtaken_by_the_same_payment_is_told_that_it_is_made(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task and a page carry one agreement out at once; the account holds just enough."""
    account = await account_of(stage, fill=AMOUNT)
    payment = await stage.show_qr("wallet", AMOUNT)
    really = paying.payment_by
    first: list[Any] = []

    async def overtaken(*args: Any) -> Any:
        found = await really(*args)
        monkeypatch.setattr(paying, "payment_by", really)
        first.append(await pay_from(stage, account, payment))
        return found

    monkeypatch.setattr(paying, "payment_by", overtaken)

    assert await pay_from(stage, account, payment) == first[0]
    assert (await now_is(stage.db, account)).balance == 0
    await agrees(stage.db, account)


async def test_of_a_wallet_two_accounts_and_a_closing_at_once_one_wins(stage: Stage) -> None:
    payment, wallet = await stage.show_qr("wallet", AMOUNT), await wallet_with(stage)
    accounts = [await account_of(stage) for _ in "12"]

    ends = await asyncio.gather(
        *(pay_from(stage, each, payment) for each in accounts),
        pay(stage, wallet, payment),
        stage.close(payment),
        return_exceptions=True,
    )

    read = await stage.read(payment)
    spent = [10_000 - (await now_is(stage.db, each)).balance for each in accounts]
    done = [each for each in ends[:3] if not isinstance(each, BaseException)]
    assert len(done) == (1 if read["status"] == "succeeded" else 0)
    assert sum(spent) in {0, AMOUNT}
    await agrees(stage.db, *accounts)


@pytest.mark.parametrize(
    ("licence", "classes", "level", "line"),
    [
        (Licence.BANK, (2, 2), 3, "out_others/day"),
        (Licence.PAYMENT_INSTITUTION, (2, 3), 2, "weak_two/day"),
    ],
)
async def test_sixty_four_payments_never_pass_a_meter_by_one_fen(
    stage: Stage, licence: Licence, classes: tuple[int, int], level: int, line: str
) -> None:
    """Two accounts share the person's meters, of one class or of all, and pay from both at once."""
    person = await somebody(stage.db)
    payers = [
        await account_of(stage, each, fill=2_000_000, licence=licence, person=person)
        for each in classes
    ]
    most = (await left(stage.db, payers[0]))[line]
    amounts = [most * 3 // 100 - 11 + 17 * n for n in range(64)]
    codes = [await stage.show_qr("wallet", amount) for amount in amounts]

    async def try_one(place: int) -> int:
        while True:
            try:
                await pay_from(stage, payers[place % 2], codes[place], level)
            except LimitExceeded:
                return 0
            except Refusal as refusal:
                if refusal.code != "payment.contended":
                    raise
            else:
                return amounts[place]

    went = await asyncio.gather(*(try_one(place) for place in range(64)))
    paid = sum(went)

    limits = await left(stage.db, payers[0])
    assert limits[line] == most - paid
    assert 0 <= limits[line] < min(set(amounts).difference(went))  # the refused
    await agrees(stage.db, *payers)
    await pay_from(stage, payers[1], await stage.show_qr("wallet", limits[line]), level)
    assert (await left(stage.db, payers[0]))[line] == 0


async def test_somebody_pays_what_their_phone_has_scanned(stage: Stage) -> None:
    alice, bob = [await enter(stage, contact) for contact in (PHONE, "13800138003")]
    at = "/v1/me/e_accounts"
    mine = (await alice.confirmed(at, account_class=3)).json["id"]
    await alice.confirmed(f"{at}/{mine}/activate")
    empty = (await alice.confirmed(at, account_class=2)).json["id"]
    filled = await alice.post(f"{at}/{mine}/top_ups", amount=200_000, request_id="fill")
    assert filled.status == 201, filled.body
    small, large = [await stage.show_qr("wallet", amount) for amount in (AMOUNT, 98_002)]

    scan = (await alice.post("/v1/me/code_scans", code=code_of(small))).json
    assert (scan["payee"], scan["amount"], scan["status"]) == (
        stage.shop.merchant.name, AMOUNT, "payable",
    )  # fmt: skip
    ways = {each["account_id"]: each for each in scan["ways"]}
    assert (ways[mine]["code"], ways[mine]["level"]) == (None, 0)
    assert ways[empty]["code"] == "e_account.state_wrong"
    paid, again = [await alice.post(f"{at}/{mine}/payments", code=code_of(small)) for _ in "12"]
    asked = await alice.post(f"{at}/{mine}/payments", code=code_of(large))
    done = await alice.confirmed(f"{at}/{mine}/payments", code=code_of(large))
    refund = await stage.refund(small, 999)

    assert (paid.status, paid.json["amount"], paid.json["level"]) == (201, AMOUNT, 0), paid.body
    assert again.json == paid.json
    assert asked.code == "authentication.step_up_required"
    assert asked.json["facts"]["level"] == 2, "the day comes to more than 1000 yuan with it"
    assert (done.status, done.json["level"]) == (201, 2), done.body
    page = (await alice.get(f"{at}/{mine}/payments?limit=1")).json
    assert [each["id"] for each in page["items"]] == [large["id"]]
    older = (await alice.get(f"{at}/{mine}/payments?cursor={page['next_cursor']}")).json["items"]
    assert [each["refunds"][0]["id"] for each in older] == [refund["id"]]
    one = (await alice.get(f"{at}/{mine}/payments/{small['id']}")).json
    assert (one["refunds"][0]["status"], one["payee"]) == ("landed", stage.shop.merchant.name)
    assert (await alice.get("/v1/me/returned_money")).json == []
    taken = await alice.post(f"{at}/{mine}/returned_money/{refund['id']}/take")
    assert taken.code == "e_account.return_taken"
    for path in ("payments", f"payments/{small['id']}"):
        assert (await bob.get(f"{at}/{mine}/{path}")).code == "e_account.not_found"
    bob_id = parse("per", (await bob.get("/v1/me")).json["id"])
    theirs = (
        await account_of(stage, fill=0, person=await dossier.person_with_id(stage.db, bob_id))
    ).shown_id
    assert (await bob.get(f"{at}/{theirs}/payments/{small['id']}")).code == (
        "e_account.payment_not_found"
    )
    assert (await bob.post(f"{at}/{theirs}/returned_money/{refund['id']}/take")).code == (
        "e_account.return_not_found"
    )


@pytest.mark.parametrize("what", ["payments", "transfers"])
async def test_a_second_tap_hears_what_the_first_one_did(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Forced: the first tap's commit comes while the second is asked how strongly to confirm.

    It leaves too little in the account, and has used up the confirmation.
    """
    alice = await enter(stage, "13800138015" if what == "payments" else "13800138016")
    at = "/v1/me/e_accounts"
    person_id = parse("per", (await alice.get("/v1/me")).json["id"])
    person = await dossier.person_with_id(stage.db, person_id)
    amount = 99_000 if what == "payments" else 9_000
    mine = (await account_of(stage, 3, fill=amount, person=person)).shown_id
    other = (await account_of(stage, 2, fill=0, person=person)).shown_id
    if what == "payments":
        wanted = {"code": code_of(await stage.show_qr("wallet", amount))}
        module: Any = own_payments
    else:
        wanted = {"amount": amount, "payee": other, "request_id": "r1"}
        module = wallet_e_accounts
    if what == "transfers":
        asked = await alice.post(f"{at}/{mine}/{what}", **wanted)
        assert (await alice.prove(asked.json["facts"]["confirmation"], "password")).status == 200
    really = module.require_step_up
    first: list[Any] = []

    async def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(module, "require_step_up", really)
        first.append(await alice.post(f"{at}/{mine}/{what}", **wanted))
        return await really(*args)

    monkeypatch.setattr(module, "require_step_up", overtaken)
    second = await alice.post(f"{at}/{mine}/{what}", **wanted)

    assert (first[0].status, second.status) == (201, 201), second.body
    assert second.json == first[0].json
    assert (await alice.get(f"{at}/{mine}")).json["balance"] == 0


async def enter(stage: Stage, contact: str) -> Phone:
    """Register, as somebody with a real name, on a phone of last week."""
    phone = Phone(stage.app, SandboxPost(stage))
    phone.mode = {"mode": "sandbox"}
    assert (await phone.register(contact)).status == 201
    await stage.db.fetch("update person set real_name_level = 3", ())
    await stage.db.fetch("update person_device set bound_at = bound_at - interval '7 days'", ())
    return phone


async def test_a_freeze_between_the_look_and_the_commit_is_seen(stage: Stage) -> None:
    """Forced: risk is asked after the account was looked at, and meanwhile somebody freezes it."""
    account, payment = await account_of(stage), await stage.show_qr("wallet", AMOUNT)

    async def freeze(_asked: object, _payer: object) -> Verdict:
        await stage.db.fetch("update e_account set out_stops = 1 where id = $1", (account.id,))
        return Verdict()

    slow = replace(stage.flow, risk=freeze)
    with pytest.raises(EAccountFrozen):
        await paying.pay(slow, account, code_of(payment), level=3, confirmed=NOTHING)

    assert (await now_is(stage.db, account)).balance == 10_000
    assert (await left(stage.db, account))["out_others/year"] == 20_000_000
    assert (await stage.read(payment))["status"] == "pending"


async def test_a_refund_that_meets_a_closing_is_placed_once_more(stage: Stage) -> None:
    """Forced: the account is closed after it was seen to have room, and before the commit."""
    account = await account_of(stage, fill=AMOUNT)
    payment = await stage.show_qr("wallet", AMOUNT)
    made = await pay_from(stage, account, payment)
    given = returning.GivenBack(
        made.book, new_id(), made.payment_id, Money(1, "CNY"), stage.db.clock.now()
    )
    seen = await returning.place(stage.db, account.id, given)
    async with stage.db.begin("test") as tx:
        await opening.close_account(tx, account)
    async with stage.db.begin("test") as tx:
        refused = await write_all(tx, seen.writes)
    again = await returning.place(stage.db, account.id, given)

    assert seen.rule == "refund.by_e_account"
    assert refused in returning.CHANGED
    assert again.rule == "refund.by_e_account_waiting"
