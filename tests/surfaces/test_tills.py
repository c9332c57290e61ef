"""People at tills: who signs in where, what each role may do there, and who is out at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from tests.dying import dying
from tests.infra.signed_client import Reply, SignedClient
from tests.stage import Stage, new_number
from tongbao.infra.web.caller import access_of
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.staff.model import (
    DOES,
    PIN_LOCKED,
    PIN_TRIES,
    PIN_TRIES_MAX,
    SESSION_LIFE,
    PinTooSimple,
    StaffMayNot,
    StaffRole,
    TillAct,
    acts_of,
    check_may,
    check_pin,
)
from tongbao.parties.terminals import inventory
from tongbao.parties.terminals.devices import activate, give_code
from tongbao.parties.terminals.inventory import Place
from tongbao.parties.terminals.model import TerminalState
from tongbao.payments.terminal_notices.notices import MerchantsPlaces
from tongbao.surfaces.demo.stage import Shop
from tongbao.surfaces.till.app import OFFERED, TILLS_PREFIX, TillApp
from tongbao_sdk import Refused
from tongbao_sdk.terminals import Terminal

PIN = "204811"
MAY = {
    StaffRole.OWNER: set(TillAct),
    StaffRole.MANAGER: set(TillAct),
    StaffRole.CASHIER: {
        *(TillAct.LOOK, TillAct.TAKE, TillAct.CALL_OFF, TillAct.CAPTURE),
        TillAct.LOOK_AT_REFUNDS,
    },
    StaffRole.ACCOUNTANT: {TillAct.LOOK, TillAct.LOOK_AT_REFUNDS},
}


class Till(Struct):
    """A shop's terminal with its key, and the shop's own program."""

    stage: Stage
    shop: SignedClient
    terminal_id: str
    machine: SignedClient

    async def person(self, role: str = "cashier", pin: str | None = PIN, **more: Any) -> str:
        """Return the id of a new person of the shop, who has chosen a PIN here."""
        phone = f"139{int(new_number()[:7], 16):09d}"
        said = {"role": role, "name": "李四光", "phone": phone, "every_store": True, **more}
        made = await self.shop.post("/v1/staff", said, key=new_number())
        staff_id = str(made.json["id"])
        if pin is not None:
            assert (await self.choose(staff_id, pin)).status == 200
        return staff_id

    async def choose(self, staff_id: str, pin: str) -> Reply:
        given = (await self.shop.post(f"/v1/staff/{staff_id}/pin_codes")).json["code"]
        said = {"staff_id": staff_id, "code": given.lower(), "pin": pin}
        return await self.machine.post(f"{TILLS_PREFIX}/pins", said)

    async def try_to_sign_in(self, staff_id: str, pin: str = PIN) -> Reply:
        said = {"staff_id": staff_id, "pin": pin}
        return await self.machine.post(f"{TILLS_PREFIX}/sessions", said)

    async def sign_in(self, staff_id: str, pin: str = PIN) -> str:
        """Return where a person's requests go, who has signed in."""
        reply = await self.try_to_sign_in(staff_id, pin)
        assert reply.status == 200, reply.body
        return f"{TILLS_PREFIX}/sessions/{reply.json['id']}"

    async def take(self, session: str, amount: int = 600, **more: Any) -> Reply:
        code = await self.stage.wallet_code()
        method = {"mode": "payment_code", "auth_code": code}
        said = {"merchant_order_no": new_number(), "amount": amount, "subject": "tea", **more}
        said["method"] = method
        return await self.machine.post(f"{session}/v1/payments", said, key=new_number())

    async def refund(self, session: str, payment_id: str, amount: int) -> Reply:
        said = {"merchant_refund_no": new_number(), "amount": amount}
        path = f"{session}/v1/payments/{payment_id}/refunds"
        return await self.machine.post(path, said, key=new_number())


async def till_of(stage: Stage, shop: Shop, store_id: str | None = None) -> Till:
    serial, whose = f"SN{new_number()[:20].upper()}", (shop.merchant.id, Mode.SANDBOX)
    place = Place("bar", parse("sto", store_id) if store_id else None, None)
    async with stage.db.begin("test") as tx:
        await inventory.import_serials(tx, f"serial\n{serial}".encode(), name="b", model="S1")
        found = await inventory.terminal_with_serial(tx, serial)
        await inventory.assign_terminal(tx, found.id, shop.merchant, Mode.SANDBOX)
        await inventory.place_terminal(tx, found.id, whose, place, MerchantsPlaces())
        code = await give_code(tx, found.id, whose)
    made = await activate(stage.db, stage.platform.keyring, serial, code.reveal())
    secret = made.secret.reveal()
    machine = SignedClient(stage.app, show("key", made.terminal.id), secret)
    client = SignedClient(stage.app, shop.key_id, shop.secret.reveal())
    return Till(stage, client, show("trm", made.terminal.id), machine)


@pytest.fixture
async def till(shared_stage: Stage) -> Till:
    return await till_of(shared_stage, shared_stage.shop)


# --- what a role may ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", StaffRole)
def test_each_role_may_do_what_the_table_says(role: StaffRole) -> None:
    assert set(acts_of(role)) == MAY[role]
    for act in set(TillAct) - MAY[role]:
        with pytest.raises(StaffMayNot):
            check_may(role, act)


def test_what_a_till_offers_is_the_apis_own(shared_stage: Stage) -> None:
    """Each request is a route's, asks for that route's scope, and is on record by its name."""
    served = {}
    for each in shared_stage.app.operations:
        access = access_of(each.handler.opt)
        for offered in OFFERED:
            path = each.path.replace("{payment_id}", "pay_1").replace("{refund_id}", "ref_1")
            if offered.method == each.method and offered.path.fullmatch(path):
                served[offered] = f"{each.method} {each.path}"
                assert access is not None
                assert access.scope == offered.scope
    assert set(served) == set(OFFERED)
    changing = {offered.act: name for offered, name in served.items() if offered.method == "POST"}
    assert changing == {act: done.operation for act, done in DOES.items()}


@given(st.text("0123456789", min_size=0, max_size=14))
def test_a_pin_is_long_mixed_and_no_part_of_the_phone(pin: str) -> None:
    phone = "+86 139-0000-5678"
    try:
        check_pin(pin, phone)
    except PinTooSimple:
        return
    assert 6 <= len(pin) <= 12
    assert len(set(pin)) >= 3
    assert pin not in "8613900005678"


@pytest.mark.parametrize("pin", ["", "12345", "123456", "987654", "777777", "112112", "005678"])
def test_what_is_tried_first_is_no_pin(pin: str) -> None:
    with pytest.raises(PinTooSimple):
        check_pin(pin, "13900005678")


# --- a day at the till ----------------------------------------------------------------------------


async def test_who_took_and_gave_back_is_on_record(till: Till, shared_stage: Stage) -> None:
    cashier, manager = await till.person(), await till.person("manager")
    session = await till.sign_in(cashier)
    forged = {"staff_id": manager, "table": "4"}

    taken = (await till.take(session, metadata=forged)).json
    refused = await till.refund(session, taken["id"], 200)
    above = await till.sign_in(manager)
    back = (await till.refund(above, taken["id"], 200)).json
    gone = await till.take(session)

    assert taken["status"] == "succeeded"
    who = {"staff_id": cashier, "terminal_id": till.terminal_id, "table": "4"}
    assert taken["metadata"] == who
    assert (refused.status, refused.code) == (403, "staff.may_not")
    assert refused.json["facts"] == {"role": "cashier", "act": "refunds.make"}
    assert (back["status"], back["staff_id"]) == ("succeeded", manager)
    assert (gone.status, gone.code) == (401, "staff.session_over")
    shown = (await till.shop.get(f"/v1/refunds/{back['id']}")).json
    assert shown["staff_id"] == manager
    acts = {
        each: [
            (act["act"], act["object_id"])
            for act in (await till.shop.get(f"/v1/staff/{each}/acts")).json["items"]
        ]
        for each in (cashier, manager)
    }
    assert acts == {
        cashier: [("payments.take", taken["id"])],
        manager: [("refunds.make", back["id"])],
    }
    rows = await shared_stage.db.fetch(
        "select action, actor from audit_entry where subject = $1 order by id", (cashier,)
    )
    assert [(each["action"], each["actor"]) for each in rows][-1] == ("staff.signed_in", cashier)


async def test_the_table_holds_over_http(till: Till) -> None:
    """Every act of every role, at a payment that does not exist: refused by role or not found."""
    unknown = {"pay": f"pay_{'0' * 26}", "ref": f"ref_{'0' * 26}"}
    bodies: dict[TillAct, Any] = {
        TillAct.TAKE: {
            "merchant_order_no": "T-1",
            "amount": 1,
            "subject": "t",
            "method": {"mode": "payment_code", "auth_code": "0" * 18},
        },
        TillAct.CAPTURE: {},
        TillAct.REFUND: {"merchant_refund_no": "R-1", "amount": 1},
    }
    for role in StaffRole:
        session = await till.sign_in(await till.person(role))
        for each in OFFERED:
            path = each.path.pattern.replace("refunds/[^/]{1,64}", f"refunds/{unknown['ref']}")
            path = session + path.replace("[^/]{1,64}", unknown["pay"])
            if each.method == "GET":
                reply = await till.machine.get(path)
            else:
                reply = await till.machine.post(path, bodies.get(each.act), key=new_number())
            refused = (reply.status, reply.code) == (403, "staff.may_not")
            assert refused is (each.act not in MAY[role]), (role, each, reply.body)
            assert reply.status in {200, 403, 404, 422}, reply.body


async def test_nothing_else_of_the_api_is_at_a_till(till: Till) -> None:
    session = await till.sign_in(await till.person("owner"))

    other = [
        await till.machine.get(f"{session}{path}") for path in ("/v1/staff", "/v1/settlements")
    ]
    wrong = await till.machine.post(f"{session}/v1/refunds", {}, key="k" * 16)
    plain = await till.machine.get("/v1/payments")
    foreign = await till.shop.get(f"{session}/v1/payments")
    charged = {"mode": "agreement", "agreement_id": f"agr_{'0' * 26}"}
    said = {"merchant_order_no": new_number(), "amount": 1, "subject": "t", "method": charged}
    absent = await till.machine.post(f"{session}/v1/payments", said, key=new_number())
    elsewhere = await till.take(session, terminal_id=f"trm_{'0' * 26}")

    assert {each.code for each in other} == {"request.not_found"}
    assert wrong.code == "request.method_not_allowed"
    assert (plain.status, foreign.status) == (401, 401)
    assert elsewhere.code == absent.code == "request.invalid_value"


async def test_a_repeat_at_the_till_happens_once(till: Till) -> None:
    cashier = await till.person()
    session = await till.sign_in(cashier)
    method = {"mode": "payment_code", "auth_code": await till.stage.wallet_code()}
    said = {"merchant_order_no": new_number(), "amount": 100, "subject": "t", "method": method}

    first = await till.machine.post(f"{session}/v1/payments", said, key="till-" + new_number())
    key = "again-" + new_number()
    again = [await till.machine.post(f"{session}/v1/payments", said, key=key) for _ in range(2)]

    assert {first.json["id"]} == {each.json["id"] for each in again}


async def test_the_program_on_a_terminal_does_it_all(till: Till) -> None:
    stage, cashier = till.stage, await till.person(pin=None)
    plain = httpx.Client(trust_env=False, verify=False)
    machine = till.machine
    program = Terminal(stage.url, key_id=machine.key_id, secret=machine.secret, client=plain)
    code = (await stage.call(stage.client.staff.pin_code, cashier))["code"]
    await stage.call(program.choose_pin, cashier, code=code, pin=PIN)

    people = await stage.call(program.people)
    here = await stage.call(program.sign_in, cashier, PIN)
    order = {"merchant_order_no": new_number(), "amount": 1250, "subject": "tea"}
    order["method"] = {"mode": "payment_code", "auth_code": await stage.wallet_code()}
    paid = await stage.call(here.post, "/v1/payments", order, idempotency_key=new_number())
    read = await stage.call(here.get, f"/v1/payments/{paid['id']}")
    await stage.call(here.sign_out)
    with pytest.raises(Refused) as refused:
        await stage.call(here.get, "/v1/payments")

    assert cashier in [each["staff_id"] for each in people]
    assert (read, here.may) == (paid, sorted(MAY[StaffRole.CASHIER], key=list(TillAct).index))
    assert refused.value.code == "staff.session_over"
    [act] = await stage.call(lambda: list(stage.client.staff.acts(cashier)))
    assert (act["act"], act["object_id"]) == ("payments.take", paid["id"])


# --- signing in -----------------------------------------------------------------------------------


async def test_five_wrong_pins_lock_and_fifteen_need_a_new_one(till: Till) -> None:
    cashier = await till.person()

    async def miss(times: int) -> list[Any]:
        return [(await till.try_to_sign_in(cashier, "555123")).json for _ in range(times)]

    wrong = await miss(PIN_TRIES)
    locked = await till.try_to_sign_in(cashier)
    clock = till.stage.db.clock
    clock.offset += PIN_LOCKED
    right = await till.try_to_sign_in(cashier)
    async with till.stage.db.begin("test") as tx:  # as after fourteen more
        await tx.execute(
            "update staff_pin set tries = $2 where staff_id = $1",
            (parse("stf", cashier), PIN_TRIES_MAX - 1),
        )
    last = await miss(1)
    clock.offset += PIN_LOCKED
    dead = await till.try_to_sign_in(cashier)
    await till.choose(cashier, "730291")
    old, new = [await till.try_to_sign_in(cashier, each) for each in (PIN, "730291")]

    assert {each["code"] for each in wrong} == {"staff.pin_wrong"}
    assert [each["facts"]["tries_left"] for each in wrong] == [4, 3, 2, 1, 0]
    assert (locked.status, locked.code) == (401, "staff.pin_locked")
    assert locked.json["facts"]["until"] is not None
    assert right.status == 200
    assert last[0]["code"] == "staff.pin_wrong"
    assert (dead.code, dead.json["facts"]["until"]) == ("staff.pin_locked", None)
    assert (old.code, new.status) == ("staff.pin_wrong", 200)


async def test_many_guesses_at_once_are_as_few_as_one_by_one(till: Till) -> None:
    cashier = await till.person()

    replies = await asyncio.gather(*(till.try_to_sign_in(cashier, "555123") for _ in range(9)))

    codes = sorted(str(each.code) for each in replies)
    assert codes == ["staff.pin_locked"] * 4 + ["staff.pin_wrong"] * 5


async def test_a_try_counts_though_the_process_dies_over_it(till: Till) -> None:
    cashier = await till.person()
    for _ in range(PIN_TRIES - 1):
        await till.try_to_sign_in(cashier, "555123")
    with dying("tills.after_try"):
        await till.try_to_sign_in(cashier)

    assert (await till.try_to_sign_in(cashier)).code == "staff.pin_locked"


async def test_a_code_outlives_a_death_before_its_pin(till: Till) -> None:
    cashier = await till.person(pin=None)
    given = (await till.shop.post(f"/v1/staff/{cashier}/pin_codes")).json["code"]
    said = {"staff_id": cashier, "code": given, "pin": PIN}
    with dying("tills.before_pin"):
        await till.machine.post(f"{TILLS_PREFIX}/pins", said)
    unset = await till.try_to_sign_in(cashier)

    both = [till.machine.post(f"{TILLS_PREFIX}/pins", said) for _ in range(2)]
    ends = sorted(each.status for each in await asyncio.gather(*both))

    assert unset.code == "staff.pin_not_set"
    assert ends == [200, 401]


async def test_a_code_is_good_once_for_a_day_and_five_misses(till: Till) -> None:
    without = await till.person(pin=None)
    unset = await till.try_to_sign_in(without)
    given = (await till.shop.post(f"/v1/staff/{without}/pin_codes")).json

    async def choose(code: str, pin: str = PIN) -> Reply:
        said = {"staff_id": without, "code": code, "pin": pin}
        return await till.machine.post(f"{TILLS_PREFIX}/pins", said)

    simple = await choose(given["code"], "123456")
    used = [await choose(given["code"]) for _ in range(2)]
    guessed = (await till.shop.post(f"/v1/staff/{without}/pin_codes")).json["code"]
    misses = [await choose("WRONGWRONGWR") for _ in range(5)]
    late = await choose(guessed)
    aged = (await till.shop.post(f"/v1/staff/{without}/pin_codes")).json["code"]
    till.stage.db.clock.offset += timedelta(days=1)
    over = await choose(aged)

    assert unset.code == "staff.pin_not_set"
    assert simple.code == "staff.pin_too_simple"
    assert [each.status for each in used] == [200, 401]
    refused = [each.code for each in (*used[1:], *misses, late, over)]
    assert set(refused) == {"staff.pin_code_refused"}
    assert (await till.try_to_sign_in(without)).status == 200


async def test_who_is_suspended_is_out_at_once(till: Till) -> None:
    cashier = await till.person()
    session, path = await till.sign_in(cashier), f"/v1/staff/{cashier}"
    before = await till.machine.get(f"{session}/v1/payments")

    suspended = [(await till.shop.post(f"{path}/suspend")).json["status"] for _ in range(2)]
    out, refused = (
        await till.machine.get(f"{session}/v1/payments"),
        await till.try_to_sign_in(cashier),
    )
    resumed = (await till.shop.post(f"{path}/resume")).json["status"]
    still = await till.machine.get(f"{session}/v1/payments")
    again = await till.sign_in(cashier)
    await till.shop.post(path, {"role": "accountant", "every_store": True})
    bound = await till.take(again)
    await till.shop.post(f"{path}/leave")
    left = await till.machine.get(f"{again}/v1/payments")
    codes = [
        (await till.shop.post(f"{path}/{act}")).code for act in ("resume", "suspend", "pin_codes")
    ]

    assert (before.status, suspended, resumed) == (200, ["suspended"] * 2, "active")
    assert [out.code, still.code, left.code] == ["staff.session_over"] * 3
    assert (refused.status, refused.code) == (403, "staff.suspended")
    assert bound.code == "staff.may_not"
    assert codes == ["staff.left"] * 3
    assert (await till.try_to_sign_in(cashier)).code == "staff.left"


async def test_a_session_is_one_terminals_one_persons_and_a_shifts(till: Till) -> None:
    stage = till.stage
    other = await till_of(stage, stage.shop)
    cashier = await till.person()
    session = await till.sign_in(cashier)

    moved = await other.machine.get(f"{session}/v1/payments")
    good = await till.machine.get(f"{session}/v1/payments")
    stage.db.clock.offset += SESSION_LIFE
    over = await till.machine.get(f"{session}/v1/payments")
    later = await till.sign_in(cashier)
    out = [await till.machine.post(f"{later}/sign_out") for _ in range(2)]
    gone = await till.machine.get(f"{later}/v1/payments")
    nobody = await till.machine.get(f"{TILLS_PREFIX}/sessions/tls_1/v1/payments")

    assert good.status == 200
    assert [each.code for each in (moved, over, gone, nobody)] == ["staff.session_over"] * 4
    assert [each.status for each in out] == [200, 200]


async def test_a_terminal_with_a_new_key_or_in_no_use_serves_nobody(till: Till) -> None:
    cashier = await till.person()
    session = await till.sign_in(cashier)
    terminal_id, whose = parse("trm", till.terminal_id), (till.stage.shop.merchant.id, Mode.SANDBOX)
    async with till.stage.db.begin("test") as tx:
        code = await give_code(tx, terminal_id, whose)
        serial = (await inventory.terminal_with_id(tx, terminal_id)).serial_number
    made = await activate(till.stage.db, till.stage.platform.keyring, serial, code.reveal())
    again = SignedClient(till.stage.app, till.machine.key_id, made.secret.reveal())
    # What was known of the key a moment ago is believed for as long.
    anew = TillApp(till.stage.db, till.stage.platform.keyring, till.stage.app)
    till.stage.app.mount(TILLS_PREFIX, anew)
    anew_key = await again.get(f"{session}/v1/payments")
    till.machine = again
    session = await till.sign_in(cashier)
    async with till.stage.db.begin("test") as tx:
        await inventory.move_terminal(tx, terminal_id, TerminalState.SUSPENDED, because="t")

    assert anew_key.code == "staff.session_over"
    assert (await again.get(f"{session}/v1/payments")).code == "terminal.suspended"
    assert (await till.try_to_sign_in(cashier)).code == "terminal.suspended"


async def test_nobody_of_another_merchants_is_known_here(till: Till) -> None:
    stage = till.stage
    stranger = await till_of(stage, await stage.open_shop())
    theirs = await stranger.person("owner")
    paid = (await till.take(await till.sign_in(await till.person()))).json

    known = [each["staff_id"] for each in (await till.machine.get(TILLS_PREFIX)).json["items"]]
    replies = [
        await till.try_to_sign_in(theirs),
        await till.machine.post(
            f"{TILLS_PREFIX}/pins", {"staff_id": theirs, "code": "X", "pin": PIN}
        ),
        await till.shop.post(f"/v1/staff/{theirs}/pin_codes"),
        await till.shop.post(f"/v1/staff/{theirs}/suspend"),
        await till.shop.get(f"/v1/staff/{theirs}/acts"),
    ]
    session = await stranger.sign_in(theirs)
    refund = await stranger.refund(session, paid["id"], 1)

    assert theirs not in known
    assert {(each.status, each.code) for each in replies} == {(404, "staff.not_found")}
    assert (refund.status, refund.code) == (404, "payment.not_found")


async def test_who_works_elsewhere_signs_in_there(till: Till) -> None:
    place = {"area_code": "330106", "address": "文三路1号"}
    said = {"store_no": new_number(), "name": "西溪店", "place": place}
    store = (await till.shop.post("/v1/stores", said, key=new_number())).json["id"]
    there = await till_of(till.stage, till.stage.shop, store)
    cashier = await there.person(every_store=False, store_ids=[store])

    here = await till.try_to_sign_in(cashier)
    shown = [each["staff_id"] for each in (await there.machine.get(TILLS_PREFIX)).json["items"]]
    session = await there.sign_in(cashier)
    await till.shop.post(f"/v1/staff/{cashier}", {"role": "cashier", "every_store": True})

    assert (here.status, here.code) == (403, "staff.elsewhere")
    assert cashier in shown
    assert (await there.machine.get(f"{session}/v1/payments")).status == 200
