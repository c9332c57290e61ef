"""People: register, log in, confirm what they do, and what a stranger learns: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pyotp
import pytest

from tests.parties.phones import PASSWORD, PHONE, SM2, Carrier, Key, Phone, address, deliver
from tongbao.infra import audit, failpoints
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.serving.app import App
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.settings import Settings
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.authentication import authenticators
from tongbao.parties.authentication.passkeys import site_of
from tongbao.parties.authentication.step_up import Checks, NoRisk
from tongbao.parties.people import consents, entering, sessions
from tongbao.parties.people.consents import Draft
from tongbao.parties.people.dossier import (
    Contributor,
    erase_person,
    keep_people,
    own_contributors,
)
from tongbao.parties.people.model import ErasureBlocked, PersonNotFound
from tongbao.rails.registers.client import Said
from tongbao.surfaces.wallet.assembly import wallet_api
from tongbao.surfaces.wallet.desk import Desk

NAME, RESIDENT_ID = "张三", "110101199003078670"


class Office:
    """Where messages are delivered from."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self.db, self.keyring, self.carrier = db, keyring, Carrier()

    async def deliver(self) -> None:
        await deliver(self.db, self.keyring, self.carrier)

    async def wait(self) -> None:
        """Wait until another code may be asked for."""
        await self.db.fetch("delete from code_allowance", ())


class Register:
    """An outside register that says what it is told to."""

    def __init__(self) -> None:
        self.verdict = "same"
        self.asked: list[tuple[str, str, str, str]] = []

    async def ask(self, number: str, *, name: str, resident_id: str, phone: str) -> Said:
        self.asked.append((number, name, resident_id, phone))
        return Said(self.verdict, "R1")


class NoKeys:
    async def find(self, key_id: Any) -> None:
        return None

    async def note_use(self, key: Any) -> None:
        return None


@pytest.fixture
def office(db: Db, keyring: Keyring) -> Office:
    return Office(db, keyring)


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
def desk(db: Db, keyring: Keyring, register: Register) -> Desk:
    checks = Checks(db, keyring, site_of("https://pay.example"), "mlps3", NoRisk())
    sources = dict.fromkeys(("residents", "phones", "cards", "tax", "more"), register)
    return Desk(checks, dict.fromkeys(Mode, sources), own_contributors(keyring))


@pytest.fixture
def wallet(db: Db, desk: Desk, tmp_path: Any) -> App:
    facts = ApiFacts(
        title="", version="", description="", public_url="", docs_url="https://d", scopes={}
    )
    settings = Settings(
        data_dir=tmp_path,
        kek_file=tmp_path / "kek",
        socket_dir=tmp_path,
        public_url="https://pay.example",
        licence=Licence.PAYMENT_INSTITUTION,
    )
    return App([], db=db, keys=NoKeys(), facts=facts, mounts=wallet_api(settings, desk))


@pytest.fixture
def phone(wallet: App, office: Office) -> Phone:
    return Phone(wallet, office)


@pytest.fixture
async def alice(phone: Phone) -> Phone:
    made = await phone.register()
    assert made.status == 201, made.body
    return phone


def other(phone: Phone, **more: Any) -> Phone:
    return Phone(phone.app, phone.post_office, **more)


@pytest.fixture
async def actions(db: Db) -> AsyncIterator[Any]:
    async def read(*wanted: str) -> list[str]:
        return [each.action for each in await audit.entries_of_actions(db, list(wanted))]

    return read


# Register and log in


async def test_an_account_begins_with_a_proved_phone_and_ends_no_sooner(alice: Phone) -> None:
    me = (await alice.get("/v1/me")).json

    assert me["status"] == "active"
    assert me["contacts"] == [{"kind": "phone", "masked": "+86138****8000"}]
    assert me["real_name_level"] == 0
    assert PHONE not in str(me)


@pytest.mark.parametrize("kind", ["ed25519", "p256", "sm2"])
async def test_a_known_phone_logs_in_by_password_alone(
    wallet: App, office: Office, kind: str
) -> None:
    if kind == "sm2" and SM2 is None:
        pytest.skip("this machine's OpenSSL knows no SM2")
    phone = Phone(wallet, office, kind=kind)
    await phone.register()
    first = phone.token

    again = await phone.log_in()

    assert again.status == 201
    assert phone.token != first
    assert (await phone.get("/v1/me")).status == 200
    phone.token = first
    assert (await phone.get("/v1/me")).code == "auth.session_over"


async def test_a_new_phone_needs_a_second_factor(alice: Phone) -> None:
    new = other(alice)
    alone = await new.log_in()
    sent = await new.ask_code(PHONE, "log_in")
    code = {"code_id": sent.json["code_id"], "code": await new.code(address(PHONE))}

    both = await new.log_in(second={"type": "message_code", **code})

    assert alone.code == "person.login_refused"
    assert both.status == 201
    assert len((await new.get("/v1/me/devices")).json) == 2
    repeated = await other(alice).log_in(second={"type": "message_code", **code})
    assert repeated.code == "person.login_refused"


async def test_an_authenticator_is_a_second_factor_and_each_code_counts_once(
    alice: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = real_now()
    monkeypatch.setattr(authenticators, "real_now", lambda: at)
    made = await alice.confirmed("/v1/me/authenticators", kind="totp", name="app")
    assert made.status == 201, made.body
    generator = pyotp.TOTP(made.json["secret"])
    confirm = f"/v1/me/authenticators/{made.json['id']}/confirm"
    assert (await alice.post(confirm, code="000000")).code == "authentication.proof_refused"
    assert (await alice.post(confirm, code=generator.at(at))).status == 200
    used = {"type": "totp", "code": generator.at(at)}
    fresh = {"type": "totp", "code": generator.at(at + timedelta(seconds=30))}

    assert (await other(alice).log_in(second=used)).code == "person.login_refused"
    assert (await other(alice).log_in(second=fresh)).status == 201
    assert (await other(alice).log_in(second=fresh)).code == "person.login_refused"


async def test_a_passkey_logs_in_by_itself_and_a_copy_is_noticed(
    alice: Phone, db: Db, actions: Any
) -> None:
    key = Key()
    asked = (await alice.post("/v1/me/passkeys/challenges")).json
    added = await alice.confirmed(
        "/v1/me/passkeys",
        challenge_id=asked["challenge_id"],
        name="finger",
        response=key.create(asked["options"]),
    )
    assert added.status == 201, added.body

    async def log_in(phone: Phone, **client: Any) -> Any:
        phone.token = None
        question = (await phone.post("/v1/me/passkey_challenges", device=phone.device)).json
        claim = {
            "challenge_id": question["challenge_id"],
            "response": key.get(question["options"], **client),
        }
        return await phone.post(
            "/v1/me/passkey_sessions", claim={"type": "passkey", **claim}, device=phone.device
        )

    assert (await log_in(other(alice))).status == 201
    assert (await log_in(other(alice), crossOrigin=True)).code == "person.login_refused"
    assert (await log_in(other(alice), topOrigin="https://x")).code == "person.login_refused"
    assert (await log_in(other(alice), origin="https://evil")).code == "person.login_refused"
    key.flags &= ~0x04
    assert (await log_in(other(alice))).code == "person.login_refused"  # no finger
    key.flags |= 0x04
    key.count = 0
    assert (await log_in(other(alice))).code == "person.login_refused"
    assert await actions("passkey.suspected") == ["passkey.suspected"]
    key.count = 99
    assert (await log_in(other(alice))).code == "person.login_refused"


async def test_five_wrong_passwords_lock_and_the_right_one_is_refused_alike(alice: Phone) -> None:
    answers = [await alice.log_in(password="Wrong-word-1") for _ in range(5)]
    answers.append(await alice.log_in())

    assert {(each.status, each.json["title"], each.json["detail"]) for each in answers} == {
        (401, answers[0].json["title"], answers[0].json["detail"])
    }


async def test_a_strangers_tries_do_not_lock_the_person_out(alice: Phone) -> None:
    stranger = other(alice)
    for _ in range(6):
        assert (await stranger.log_in(password="Wrong-word-1")).status == 401
    sent = await stranger.ask_code(PHONE, "log_in")
    code = {"code_id": sent.json["code_id"], "code": await stranger.code(address(PHONE))}

    locked = await stranger.log_in(second={"type": "message_code", **code})

    assert locked.code == "person.login_refused"
    assert (await alice.log_in()).status == 201
    for _ in range(4):
        await alice.log_in(password="Wrong-word-1")
    assert (await alice.log_in()).status == 201  # a right one lets the count begin anew


# What a stranger learns


async def test_nobody_learns_whether_an_address_is_known(alice: Phone, phone: Phone) -> None:
    """The same answers, the same rows written, a password hashed each time."""
    stranger = other(phone)
    unknown = "13900139000"

    for purpose in ("log_in", "recover"):
        answers = [await stranger.ask_code(each, purpose) for each in (PHONE, unknown)]
        assert [each.status for each in answers] == [200, 200]
        assert answers[0].json.keys() == answers[1].json.keys()
    refusals = [await stranger.log_in(each) for each in (PHONE, unknown)]

    assert len({(each.status, each.code, each.json["detail"]) for each in refusals}) == 1
    told = await stranger.letters(address(unknown))
    assert "尚未注册" in told[-1].text
    assert len(await stranger.letters(address(PHONE))) == 3


async def test_a_wish_to_register_twice_is_told_to_the_owner_only(alice: Phone) -> None:
    stranger = other(alice)

    asked = await stranger.ask_code(PHONE, "register")
    told = (await stranger.letters(address(PHONE)))[-1].text
    tried = await stranger.post(
        "/v1/me/registrations",
        contact=PHONE,
        code_id=asked.json["code_id"],
        code="000000",
        password=PASSWORD,
        device=stranger.device,
    )

    assert asked.status == 200
    assert "已注册" in told
    assert tried.code == "authentication.code_wrong"


async def test_codes_are_few_and_guesses_fewer(phone: Phone) -> None:
    asked = await phone.ask_code(PHONE, "register")
    again = await phone.ask_code(PHONE, "register", is_patient=False)
    right = await phone.code(address(PHONE))
    fields = {
        "contact": PHONE,
        "code_id": asked.json["code_id"],
        "password": PASSWORD,
        "device": phone.device,
    }
    for guess in range(5):
        wrong = f"{(int(right) + guess + 1) % 10**6:06d}"
        reply = await phone.post("/v1/me/registrations", code=wrong, **fields)
        assert reply.code == "authentication.code_wrong"

    assert again.code == "authentication.codes_too_many"
    too_late = await phone.post("/v1/me/registrations", code=right, **fields)
    assert too_late.code == "authentication.code_wrong"


async def test_a_text_that_is_required_is_agreed_to_first(phone: Phone, db: Db) -> None:
    async with db.begin("operator") as tx:
        drafts = {"zh": Draft("用户协议", "……"), "en": Draft("Terms", "…")}
        await consents.publish_text(tx, "terms", drafts, is_required=True)
        await consents.publish_text(tx, "marketing", drafts, is_required=False)

    refused = await phone.register()
    agreed = [{"kind": "terms", "version": 1}, {"kind": "marketing", "version": 1}]
    made = await phone.register(consents=agreed)

    assert refused.code == "person.consent_missing"
    assert made.status == 201, made.body
    assert (await phone.post("/v1/me/consents/withdraw", kind="marketing")).status == 200
    required = await phone.post("/v1/me/consents/withdraw", kind="terms")
    assert required.code == "person.consent_required"
    rows = (await phone.get("/v1/me/consents")).json
    assert [(each["kind"], each["withdrawn_at"] is None) for each in rows] == [
        ("terms", True),
        ("marketing", False),
    ]


# Requests


async def test_a_token_without_the_phone_opens_nothing(alice: Phone) -> None:
    thief = other(alice)
    thief.token = alice.token

    assert (await thief.get("/v1/me")).code == "auth.signature_invalid"


async def test_a_request_is_good_once_and_for_a_while(alice: Phone) -> None:
    said = alice.authorization("GET", "/v1/me", b"", token=alice.token)
    late = alice.authorization("GET", "/v1/me", b"", token=alice.token, late=timedelta(minutes=6))

    assert (await alice.send("GET", "/v1/me", None, authorization=said)).status == 200
    again = await alice.send("GET", "/v1/me", None, authorization=said)
    assert again.code == "auth.nonce_replayed"
    assert (await alice.send("GET", "/v1/me", None, authorization=late)).code == (
        "auth.timestamp_stale"
    )
    changed = alice.authorization("POST", "/v1/me/consents", b"{}", token=alice.token)
    body = await alice.send("POST", "/v1/me/consents", {"kind": "x"}, authorization=changed)
    assert body.code == "auth.signature_invalid"


async def test_every_route_wants_a_session_or_says_that_it_does_not(wallet: App) -> None:
    api = wallet._mounts["/v1/me"]
    open_routes = {each.path for each in api.operations if each.access.scope == "person:open"}

    assert open_routes == {
        "/v1/me/codes",
        "/v1/me/registrations",
        "/v1/me/sessions",
        "/v1/me/passkey_challenges",
        "/v1/me/passkey_sessions",
        "/v1/me/recoveries",
        "/v1/me/consent_texts",
    }
    nobody = Phone(wallet, None)
    for each in api.operations:
        if each.path in open_routes:
            continue
        path = each.path.replace("{", "").replace("}", "")
        fields = {} if each.method == "POST" else None
        reply = await nobody.send(each.method, path, fields)
        assert (reply.status, reply.code) == (403, "auth.scope_missing"), each.path


async def test_a_session_ends_when_it_is_left_alone(
    alice: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "real_now", lambda: real_now() + timedelta(minutes=16))

    assert (await alice.get("/v1/me")).code == "auth.session_over"


# Confirming


async def test_changing_a_password_takes_two_factors_and_ends_other_sessions(
    alice: Phone,
) -> None:
    new = {"password": "Better-otter-43"}
    asked = await alice.post("/v1/me/password", **new)
    found = asked.json["facts"]["confirmation"]

    assert asked.code == "authentication.step_up_required"
    assert asked.json["facts"]["level"] == 2
    assert (await alice.prove(found, "password")).json["is_confirmed"] is False
    assert (await alice.post("/v1/me/password", **new)).code == asked.code
    assert (await alice.prove(found, "message_code")).json["is_confirmed"] is True
    assert (await alice.post("/v1/me/password", **new)).status == 200
    assert (await alice.post("/v1/me/password", **new)).code == asked.code
    assert (await alice.log_in()).code == "person.login_refused"
    assert (await alice.log_in(**new)).status == 201


async def test_a_password_that_is_replaced_while_it_is_checked_lets_nobody_in(
    alice: Phone, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = entering.matching_hash

    async def slowly(on: Db, owner_id: UUID, password: str) -> str | None:
        matched = await check(on, owner_id, password)
        await db.execute("update password set hash = 'another' where owner_id = $1", (owner_id,))
        return matched

    monkeypatch.setattr(entering, "matching_hash", slowly)
    assert (await alice.log_in()).code == "person.login_refused"


async def test_a_removed_phone_is_out(alice: Phone) -> None:
    second = other(alice)
    sent = await second.ask_code(PHONE, "log_in")
    code = {"code_id": sent.json["code_id"], "code": await second.code(address(PHONE))}
    await second.log_in(second={"type": "message_code", **code})
    mine = (await alice.get("/v1/me/devices")).json
    [there] = [each["id"] for each in mine if not each["is_this_one"]]

    removed = await alice.confirmed(f"/v1/me/devices/{there}/remove")

    assert removed.status == 200, removed.body
    assert (await second.get("/v1/me")).code == "auth.session_over"
    assert (await alice.post(f"/v1/me/devices/{there}/remove")).code == "person.device_not_found"


async def test_another_persons_ids_are_nobodys(alice: Phone, wallet: App, office: Office) -> None:
    bob = Phone(wallet, office)
    await bob.register("13700137000")
    theirs = (await alice.get("/v1/me/devices")).json[0]["id"]
    asked = await alice.post("/v1/me/password", password="Better-otter-43")
    confirmation = asked.json["facts"]["confirmation"]
    made = await alice.confirmed("/v1/me/authenticators", kind="hotp", name="x")

    assert (await bob.post(f"/v1/me/devices/{theirs}/remove")).status == 404
    assert (await bob.get(f"/v1/me/confirmations/{confirmation}")).status == 404
    assert (await bob.post(f"/v1/me/factors/{made.json['id']}/remove")).status == 404
    path = f"/v1/me/authenticators/{made.json['id']}/confirm"
    assert (await bob.post(path, code="123456")).status == 404


# Real names


async def test_registers_that_agree_raise_the_level(alice: Phone, register: Register) -> None:
    wrong = await alice.post("/v1/me/identity", name=NAME, resident_id="110101199003078676")
    given = await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    assert wrong.code == "person.identity_malformed"
    assert given.json == {"name": "*三", "resident_id": "1****************0"}
    levels = []
    for source in ("residents", "residents", "phones", "cards", "tax", "more"):
        checked = await alice.post("/v1/me/identity/checks", source=source)
        levels.append(checked.json["real_name_level"])

    assert levels == [1, 1, 1, 2, 2, 3]
    assert register.asked[0][1:] == (NAME, RESIDENT_ID, address(PHONE))
    other_id = await alice.post("/v1/me/identity", name="李四", resident_id=RESIDENT_ID)
    assert other_id.code == "person.identity_given"


async def test_what_nobody_knows_is_neither_yes_nor_no(alice: Phone, register: Register) -> None:
    await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    register.verdict = "unknown"
    unknown = await alice.post("/v1/me/identity/checks", source="residents")
    register.verdict = "different"
    different = await alice.post("/v1/me/identity/checks", source="residents")

    assert (unknown.json["verdict"], unknown.json["real_name_level"]) == ("unknown", 0)
    assert different.code == "person.real_name_not_confirmed"
    assert (await alice.get("/v1/me")).json["real_name_level"] == 0


async def test_one_resident_id_is_one_person(alice: Phone, wallet: App, office: Office) -> None:
    await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    bob = Phone(wallet, office)
    await bob.register("13700137000")

    taken = await bob.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)

    assert taken.code == "person.real_name_not_confirmed"


# Death at any line


@pytest.mark.parametrize("point", ["notify.before_send", "notify.after_send"])
async def test_a_message_that_was_cut_off_goes_again_under_its_number(
    phone: Phone, office: Office, point: str
) -> None:
    await phone.ask_code(PHONE, "register")
    failpoints.arm(f"{point}:raise")
    with pytest.raises(SimulatedCrash):
        await office.deliver()
    failpoints.arm(None)

    letters = await phone.letters(address(PHONE))
    await office.deliver()

    assert len(set(office.carrier.numbers)) == 1  # and a carrier carries a number once
    assert len({each.text for each in letters}) == 1
    assert len(office.carrier.numbers) == (2 if point == "notify.after_send" else 1)


@pytest.mark.parametrize("point", ["real_names.before_ask", "real_names.after_ask"])
async def test_a_register_whose_answer_was_lost_counts_for_nothing(
    alice: Phone, register: Register, point: str
) -> None:
    await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    failpoints.arm(f"{point}:raise")
    with pytest.raises(SimulatedCrash):
        await alice.post("/v1/me/identity/checks", source="residents")
    failpoints.arm(None)

    before = (await alice.get("/v1/me")).json["real_name_level"]
    again = await alice.post("/v1/me/identity/checks", source="residents")

    assert (before, again.json["real_name_level"]) == (0, 1)
    assert len({number for number, *_ in register.asked}) == len(register.asked)


async def test_a_message_too_late_to_be_of_use_is_given_up(
    phone: Phone, office: Office, db: Db
) -> None:
    await phone.ask_code(PHONE, "register")
    db.clock.offset += timedelta(minutes=11)

    assert await phone.letters(address(PHONE)) == []
    rows = await db.fetch("select state, sealed from notification", ())
    assert [(row["state"], row["sealed"]) for row in rows] == [("given_up", None)]


# Recovery, export, erasure


async def test_recovery_is_as_strong_as_a_login(alice: Phone) -> None:
    await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    await alice.post("/v1/me/identity/checks", source="residents")
    new = other(alice)
    asked = await new.ask_code(PHONE, "recover")
    fields = {
        "contact": PHONE,
        "code_id": asked.json["code_id"],
        "code": await new.code(address(PHONE)),
        "password": "Found-again-44",
        "device": new.device,
    }

    alone = await new.post("/v1/me/recoveries", name="李四", resident_id=RESIDENT_ID, **fields)
    found = await new.post("/v1/me/recoveries", name=NAME, resident_id=RESIDENT_ID, **fields)

    assert alone.code == "person.login_refused"
    assert found.status == 201, found.body
    new.token = found.json["token"]
    assert len((await new.get("/v1/me/devices")).json) == 1
    assert (await alice.get("/v1/me")).code == "auth.session_over"
    assert "已在新设备上找回" in (await new.letters(address(PHONE)))[-1].text


async def test_a_person_gets_all_and_is_erased_but_for_what_the_law_keeps(
    alice: Phone, db: Db, actions: Any
) -> None:
    await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    await alice.post("/v1/me/identity/checks", source="residents")
    exported = (await alice.confirmed("/v1/me/export")).json["domains"]
    erased = await alice.confirmed("/v1/me/erasure")

    assert address(PHONE) in str(exported["person"])
    assert RESIDENT_ID in str(exported["person"])
    assert "sealed" not in str(exported)
    assert erased.status == 200, erased.body
    [kept] = erased.json["kept"]
    assert kept["what"] == "identity, checks and consents"
    assert "反洗钱法" in kept["because"]
    assert (await alice.get("/v1/me")).code == "auth.session_over"
    assert (await alice.log_in()).code == "person.login_refused"
    assert await actions("person.erased") == ["person.erased"]
    for table in ("person_contact", "person_device", "password", "confirmation"):
        assert await db.fetch(f"select 1 from {table}", ()) == []
    # What is left of the very first message says nothing of anybody.
    assert await db.fetch("select 1 from notification where subject is not null", ()) == []
    assert await db.fetch("select 1 from notification where sealed is not null", ()) == []
    keys = await db.fetch("select kind from person_key", ())
    assert [row["kind"] for row in keys] == ["kept"]


async def test_nothing_of_a_person_lies_open_in_the_database(alice: Phone, db: Db) -> None:
    await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    await alice.post("/v1/me/identity/checks", source="residents")
    tables = await db.fetch(
        "select table_name::text as name from information_schema.tables"
        " where table_schema = 'public'",
        (),
    )
    for row in tables:
        text = str(await db.fetch(f'select x::text from "{row["name"]}" x', ()))
        for secret in (PHONE, RESIDENT_ID, NAME, PASSWORD, alice.token):
            assert secret not in text, row["name"]


def test_nobody_has_users_without_a_licence(desk: Desk, tmp_path: Any) -> None:
    settings = Settings(
        data_dir=tmp_path, kek_file=tmp_path, socket_dir=tmp_path, public_url="https://x.example"
    )

    assert wallet_api(settings, desk) == {}
    assert entering.LOG_IN


async def test_what_has_to_end_first_stops_an_erasure(alice: Phone, desk: Desk, db: Db) -> None:
    async def owes(_db: Db, _person_id: Any) -> str | None:
        return "a balance of CNY 1.00"

    async def nothing(*_args: Any) -> list[Any]:
        return []

    holder = Contributor("account", nothing, nothing, owes)
    person_id = parse("per", (await alice.get("/v1/me")).json["id"])

    with pytest.raises(ErasureBlocked):
        await erase_person(db, (*desk.contributors, holder), person_id, actor="x")
    assert (await alice.get("/v1/me")).status == 200


async def test_what_the_law_kept_is_forgotten_when_its_years_are_over(
    alice: Phone, db: Db, desk: Desk
) -> None:
    await alice.post("/v1/me/identity", name=NAME, resident_id=RESIDENT_ID)
    await alice.post("/v1/me/identity/checks", source="residents")
    person_id = parse("per", (await alice.get("/v1/me")).json["id"])
    await erase_person(db, desk.contributors, person_id, actor="x")
    with pytest.raises(PersonNotFound):
        await erase_person(db, desk.contributors, person_id, actor="x")

    db.clock.offset += timedelta(days=9 * 365)
    await keep_people(db)
    kept = await db.fetch("select 1 from person_identity", ())
    db.clock.offset += timedelta(days=2 * 365)
    await keep_people(db)

    assert len(kept) == 1
    for table in ("person_identity", "real_name_check", "person_key"):
        assert await db.fetch(f"select 1 from {table}", ()) == []


async def test_of_two_who_prove_one_address_at_once_one_gets_the_account(
    wallet: App, office: Office, db: Db
) -> None:
    """Forced interleaving: both codes are right before either account is made."""
    phones = [Phone(wallet, office) for _ in range(2)]
    asked = []
    for phone in phones:
        sent = await phone.ask_code(PHONE, "register")
        asked.append((sent.json["code_id"], await phone.code(address(PHONE))))

    replies = await asyncio.gather(
        *[
            phone.post(
                "/v1/me/registrations",
                contact=PHONE,
                code_id=code_id,
                code=code,
                password=PASSWORD,
                device=phone.device,
            )
            for phone, (code_id, code) in zip(phones, asked, strict=True)
        ]
    )

    assert sorted(each.status for each in replies) == [201, 422]
    assert len(await db.fetch("select 1 from person", ())) == 1
