"""Ways to prove who somebody is: passwords, codes, tokens, passkeys, and the levels of acts."""

from __future__ import annotations

import asyncio
import base64
import json
import unicodedata
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parties.phones import Key
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.notify.model import Kind
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.one_time_codes import hotp, ocra, read_suite
from tongbao.parties.authentication import authenticators, message_codes, passkeys, passwords
from tongbao.parties.authentication.authenticators import SUITES
from tongbao.parties.authentication.message_codes import Address
from tongbao.parties.authentication.model import (
    Act,
    CodeWrong,
    Confirmation,
    ConfirmationUsed,
    Level,
    Method,
    PasskeyRefused,
    PasswordRefused,
    ProofRefused,
    StepUpRequired,
    StepUpRule,
    level_by_rules,
    level_of,
)
from tongbao.parties.authentication.passkeys import Site, new_challenge, use_challenge
from tongbao.parties.authentication.step_up import (
    ByHotp,
    ByOcra,
    ByPassword,
    Checks,
    Holder,
    NoRisk,
    confirm,
    require_step_up,
)

VECTORS: dict[str, Any] = json.loads(
    (
        Path(__file__).parents[1] / "vectors" / "webauthn" / "w3c_webauthn_test_vectors.json"
    ).read_text("utf-8")
)
NOT_TAKEN = {
    "Packed Attestation with ES384 Credential": "an algorithm that we do not offer",
    "Packed Attestation with ES512 Credential": "an algorithm that we do not offer",
    "Packed Attestation with Ed448 Credential": "an algorithm that we do not offer",
    "TPM Attestation with ES256 Credential": "made by nobody: the library wants a real TPM's maker",
    "Android Key Attestation with ES256 Credential": "the library wants certificates with it",
}
"""Registrations that are whole and refused all the same."""
NOT_READ = {
    "Packed Attestation with ES384 Credential",
    "Packed Attestation with Ed448 Credential",
}
"""Answers by keys that the library does not know."""
CREDENTIALS = [each for each in VECTORS["vectors"] if "registration" in each]
W3C = Site("example.org", "W3C", ("https://example.org",))
REAL = passwords._HASHER
PAYEE = "6222 **** 6789"
TRANSFER = Act("transfer", "trf_1", 19900, "CNY", PAYEE)


@pytest.fixture
def owner() -> UUID:
    return new_id()


@pytest.fixture
def own() -> Keyring:
    return Keyring([b"o" * 32])


@pytest.fixture
def checks(db: Db, keyring: Keyring) -> Checks:
    return Checks(db, keyring, W3C, "mlps3", NoRisk())


@pytest.fixture
def holder(db: Db, owner: UUID, own: Keyring) -> Holder:
    bound = db.clock.now() - timedelta(days=30)
    return Holder(owner, b"s" * 32, new_id(), bound, frozenset({b"b" * 32}), "per_x", own)


async def with_password(db: Db, owner: UUID, password: str = "Violet-otter-42") -> None:
    hashed = await passwords.choose_password(db, owner, password, "mlps3")
    async with db.begin("test") as tx:
        await passwords.keep_password(tx, owner, hashed)


# Passwords


@pytest.mark.parametrize(
    ("password", "policy", "reason"),
    [
        ("Sh0rt!", "asvs", "length"),
        ("x" * 129, "asvs", "length"),
        ("Password123", "asvs", "common"),
        ("woaini1314", "asvs", "common"),
        ("aaaabbbb", "asvs", "common"),
        ("my13800138000!A", "asvs", "says_who_you_are"),
        ("only lower case", "mlps3", "kinds"),
        ("only lower case", "asvs", None),
        ("Violet-otter-42", "mlps3", None),
    ],
)
def test_the_policy_says_which_passwords_may_be_chosen(
    password: str, policy: Any, reason: str | None
) -> None:
    if reason is None:
        passwords.check_choice(password, policy, ["13800138000"])
        return
    with pytest.raises(PasswordRefused) as refused:
        passwords.check_choice(password, policy, ["13800138000"])
    assert refused.value.facts["reason"] == reason


@pytest.mark.parametrize("password", ["Violet-otter-42 ", "Ünïcode 茶 otter 42", "xY3-" * 32])
async def test_a_password_is_compared_exactly_as_it_came(db: Db, password: str) -> None:
    """At its 128 characters too: nothing is cut, trimmed, folded or composed anew."""
    owner = new_id()
    await with_password(db, owner, password)
    others = {
        password.strip(),
        password + " ",
        password[:-1],
        password[:72],
        password.swapcase(),
        unicodedata.normalize("NFKD", password),
    }

    assert await passwords.password_matches(db, owner, password)
    for other in others - {password}:
        assert not await passwords.password_matches(db, owner, other), other


async def test_the_last_five_are_not_taken_again_and_the_sixth_is(db: Db, owner: UUID) -> None:
    words = [f"Violet-otter-{number}" for number in range(40, 47)]
    for word in words:
        await with_password(db, owner, word)

    for word in words[-5:]:
        with pytest.raises(PasswordRefused):
            await passwords.choose_password(db, owner, word, "mlps3")
    assert await passwords.choose_password(db, owner, words[0], "mlps3")
    assert await passwords.choose_password(db, owner, words[-2], "asvs")


async def test_a_password_is_reminded_of_after_90_days_and_works_on(db: Db, owner: UUID) -> None:
    await with_password(db, owner)
    later = db.clock.now() + timedelta(days=91)

    assert await passwords.password_is_due(db, owner, "mlps3", later)
    assert not await passwords.password_is_due(db, owner, "asvs", later)
    assert not await passwords.password_is_due(db, owner, "mlps3", db.clock.now())
    assert await passwords.password_matches(db, owner, "Violet-otter-42")
    assert not await passwords.password_matches(db, new_id(), "Violet-otter-42")


def test_real_passwords_are_hashed_by_argon2id_as_rfc_9106_says() -> None:
    from argon2 import Type

    assert (REAL.type, REAL.memory_cost, REAL.time_cost) == (Type.ID, 65536, 3)


# Codes in messages


async def sent(db: Db, keyring: Keyring, act: Act | None, **more: Any) -> tuple[UUID, str]:
    address = Address(Kind.SMS, "+8613800138000", b"b" * 32, "zh")
    async with db.begin("test") as tx:
        made = await message_codes.send_code(
            tx, keyring, address, "confirm", mode=Mode.LIVE, owner_id=None, act=act, **more
        )
    [row] = await db.fetch("select id, sealed from notification order by id desc limit 1", ())
    place = message_codes.bind("notification", "sealed", row["id"])
    return made.code_id, keyring.open("notification.text", row["sealed"], place).decode()


def code_in(text: str) -> str:
    return text.split("验证码")[2 if "通宝验证码" in text else 1][:6]


async def test_a_code_says_what_it_does_and_is_good_for_that_alone(
    db: Db, keyring: Keyring
) -> None:
    code_id, text = await sent(db, keyring, TRANSFER)
    code = code_in(text)
    dearer = Act("transfer", "trf_1", 19901, "CNY", PAYEE)
    elsewhere = Act("transfer", "trf_1", 19900, "CNY", "6222 **** 6780")

    assert "199.00" in text
    assert PAYEE in text
    for act in (dearer, elsewhere, None):
        with pytest.raises(CodeWrong):
            await message_codes.try_code(db, keyring, code_id, code, purpose="confirm", act=act)
    with pytest.raises(CodeWrong):
        await message_codes.try_code(db, keyring, code_id, code, purpose="log_in", act=TRANSFER)
    row = await message_codes.try_code(db, keyring, code_id, code, purpose="confirm", act=TRANSFER)
    async with db.begin("test") as tx:
        await message_codes.use_code(tx, row)
    with pytest.raises(CodeWrong):
        await message_codes.try_code(db, keyring, code_id, code, purpose="confirm", act=TRANSFER)


async def test_of_two_uses_of_a_code_at_once_one_counts(db: Db, keyring: Keyring) -> None:
    """Forced interleaving: both found the code right before either used it."""
    code_id, text = await sent(db, keyring, TRANSFER)
    tries = [
        await message_codes.try_code(
            db, keyring, code_id, code_in(text), purpose="confirm", act=TRANSFER
        )
        for _ in range(2)
    ]

    async def second() -> None:
        async with db.begin("test") as tx:
            await message_codes.use_code(tx, tries[1])

    async with db.begin("test") as tx:
        await message_codes.use_code(tx, tries[0])
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()
    with pytest.raises(CodeWrong):
        await waiting


async def test_a_burst_of_guesses_gets_no_more_than_five(db: Db, keyring: Keyring) -> None:
    code_id, text = await sent(db, keyring, TRANSFER)
    right = code_in(text)
    wrong = [f"{(int(right) + n + 1) % 10**6:06d}" for n in range(5)]

    async def guess(code: str) -> bool:
        try:
            await message_codes.try_code(
                db, keyring, code_id, code, purpose="confirm", act=TRANSFER
            )
        except CodeWrong:
            return False
        return True

    assert not any(await asyncio.gather(*map(guess, wrong)))
    assert not await guess(right)


async def test_allowances_hold_however_many_ask_at_once(db: Db, keyring: Keyring) -> None:
    async def ask(address: int) -> bool:
        try:
            await message_codes.take_allowance(
                db, keyring, address.to_bytes(32, "big"), "192.0.2.1"
            )
        except message_codes.CodesTooMany:
            return False
        return True

    same = await asyncio.gather(*[ask(1) for _ in range(8)])
    others = await asyncio.gather(*[ask(n) for n in range(2, 112)])

    assert sum(same) == 1
    assert sum(others) == 100 - 8


# Tokens


async def enrolled(db: Db, own: Keyring, owner: UUID, kind: Any, suite: str | None = None) -> bytes:
    async with db.begin("test") as tx:
        made = await authenticators.enrol_authenticator(
            tx, own, owner, kind, name="token", account="138", suite=suite
        )
    text = made.secret.reveal()
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    if suite is None:
        first = hotp(raw, 0)
    else:
        zeros = "0" * (10 if suite == SUITES[0] else 64)
        first = ocra(read_suite(suite), raw, zeros, counter=0)
    await authenticators.confirm_authenticator(
        db, own, owner, made.authenticator.id, first, actor="per_x"
    )
    return raw


async def test_a_counters_code_counts_once_and_none_before_it(
    db: Db, own: Keyring, owner: UUID
) -> None:
    raw = await enrolled(db, own, owner, "hotp")

    async def proves(counter: int) -> bool:
        return await authenticators.code_proves(db, own, owner, "hotp", hotp(raw, counter))

    assert [await proves(n) for n in (0, 3, 3, 2, 4)] == [False, True, False, False, True]
    assert not await proves(15)  # too far ahead
    assert await proves(14)


async def test_of_two_logins_with_one_code_at_once_one_counts(
    db: Db, own: Keyring, owner: UUID
) -> None:
    raw = await enrolled(db, own, owner, "hotp")
    code = hotp(raw, 1)

    proved = await asyncio.gather(
        *[authenticators.code_proves(db, own, owner, "hotp", code) for _ in range(5)]
    )

    assert sum(proved) == 1


@pytest.mark.parametrize("suite", SUITES)
async def test_a_response_is_to_this_payee_and_this_amount(
    db: Db, checks: Checks, holder: Holder, suite: str
) -> None:
    raw = await enrolled(db, holder.own, holder.owner_id, "ocra", suite)
    asked = await confirmation(checks, holder)

    async def answer(counter: int, act: Act = TRANSFER) -> bool:
        async with db.begin("test") as tx:
            challenge = await new_challenge(tx, "confirm", holder.owner_id, TRANSFER)
        question = authenticators.question_for(suite, act, challenge)
        if act is not TRANSFER and suite == SUITES[1]:
            question = act.digest.hex()
        response = ocra(read_suite(suite), raw, question, counter=counter)
        claim = ByOcra(f"chl_{passkeys.show('chl', challenge.id)[4:]}", response)
        try:
            await confirm(checks, holder, asked, claim)
        except ProofRefused:
            return False
        return True

    if suite == SUITES[0]:
        async with db.begin("test") as tx:
            challenge = await new_challenge(tx, "confirm", holder.owner_id, TRANSFER)
        assert authenticators.question_for(suite, TRANSFER, challenge) == "6789019900"
    assert not await answer(1, Act("transfer", "trf_1", 19901, "CNY", PAYEE))
    assert not await answer(1, Act("transfer", "trf_1", 19900, "CNY", "6222 **** 6780"))
    assert await answer(1)
    assert not await answer(1)
    assert await answer(2)


async def test_a_challenge_is_answered_once_by_its_owner_about_its_act(db: Db, owner: UUID) -> None:
    async with db.begin("test") as tx:
        made = [await new_challenge(tx, "confirm", owner, TRANSFER) for _ in range(4)]

    for args in (
        ("log_in", owner, TRANSFER),
        ("confirm", uuid4(), TRANSFER),
        ("confirm", owner, None),
    ):
        with pytest.raises(ProofRefused):
            await use_challenge(db, made.pop().id, *args)
    assert await use_challenge(db, made[0].id, "confirm", owner, TRANSFER)
    with pytest.raises(ProofRefused):
        await use_challenge(db, made[0].id, "confirm", owner, TRANSFER)


# Passkeys


def credential(vector: dict[str, Any], half: str) -> dict[str, Any]:
    found = vector[half]
    raw = bytes.fromhex(vector["registration"]["credential_id"])
    names = {
        "registration": ("clientDataJSON", "attestationObject"),
        "authentication": ("clientDataJSON", "authenticatorData", "signature"),
    }[half]
    text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    response = {
        name: base64.urlsafe_b64encode(bytes.fromhex(found[name])).decode().rstrip("=")
        for name in names
    }
    return {"id": text, "rawId": text, "type": "public-key", "response": response}


def is_verified(vector: dict[str, Any], half: str) -> bool:
    """Whether the vector's authenticator looked at who is there: the UV flag."""
    if half == "authentication":
        return bool(bytes.fromhex(vector[half]["authenticatorData"])[32] & 4)
    data = bytes.fromhex(vector[half]["attestationObject"])
    import hashlib

    at = data.index(hashlib.sha256(b"example.org").digest())
    return bool(data[at + 32] & 4)


def is_crossed(vector: dict[str, Any], half: str) -> bool:
    said = json.loads(bytes.fromhex(vector[half]["clientDataJSON"]))
    return bool(said.get("crossOrigin")) or "topOrigin" in said


@pytest.mark.parametrize("vector", CREDENTIALS, ids=[each["title"] for each in CREDENTIALS])
def test_the_vectors_of_the_w3c(vector: dict[str, Any]) -> None:
    """Each signature is checked; refused is what was asked elsewhere, or with nobody looked at."""
    strict = [
        is_verified(vector, half) and not is_crossed(vector, half) and vector["title"] not in limits
        for half, limits in (("registration", NOT_TAKEN), ("authentication", NOT_READ))
    ]
    found = []
    key = b""
    for half in ("registration", "authentication"):
        challenge = bytes.fromhex(vector[half]["challenge"])
        response = credential(vector, half)
        try:
            if half == "registration":
                key = passkeys.check_creation(W3C, challenge, response).public_key
            else:
                passkeys.check_answer(W3C, challenge, key or _key_of(vector), response)
        except PasskeyRefused:
            found.append(False)
        else:
            found.append(True)

    assert found == strict


def _key_of(vector: dict[str, Any]) -> bytes:
    """The public key of a vector, in COSE, out of its attestation object."""
    import cbor2

    data = cbor2.loads(bytes.fromhex(vector["registration"]["attestationObject"]))["authData"]
    length = int.from_bytes(data[53:55], "big")
    return bytes(data[55 + length :])


def test_the_vectors_reach_every_verdict() -> None:
    good = [
        each["title"]
        for each in CREDENTIALS
        if is_verified(each, "authentication") and not is_crossed(each, "authentication")
    ]
    assert len(CREDENTIALS) == 15
    assert len(good) >= 5


@pytest.mark.parametrize(
    "response",
    [None, {}, {"response": {}}, {"rawId": 1, "response": {"clientDataJSON": "%"}}, [1], "x"],
)
def test_hostile_answers_are_refused_by_name(response: Any) -> None:
    with pytest.raises(PasskeyRefused):
        passkeys.check_creation(W3C, b"c" * 32, response)
    with pytest.raises(PasskeyRefused):
        passkeys.check_answer(W3C, b"c" * 32, b"k", response)


async def test_a_passkey_confirms_the_act_that_was_asked_about(
    db: Db, checks: Checks, holder: Holder
) -> None:
    key = Key("https://example.org", "example.org")
    async with db.begin("test") as tx:
        asked = await new_challenge(tx, "add", holder.owner_id)
        options = passkeys.creation_options(
            W3C, asked, owner_id=holder.owner_id, account="138", known=[]
        )
        await passkeys.add_passkey(
            tx, W3C, asked, holder.owner_id, "finger", response=key.create(options)
        )
        with pytest.raises(PasskeyRefused):  # the same credential again
            await passkeys.add_passkey(
                tx, W3C, asked, new_id(), "finger", response=key.create(options)
            )
        mine = await new_challenge(tx, "confirm", holder.owner_id, TRANSFER)
        other = await new_challenge(tx, "confirm", holder.owner_id, Act("transfer", "trf_2"))
    assert mine.signed != other.signed
    signed = key.get(passkeys.request_options(W3C, mine, []))

    with pytest.raises(PasskeyRefused):
        await passkeys.passkey_proves(db, W3C, other, signed, actor="x")
    found = await passkeys.passkey_proves(db, W3C, mine, signed, actor="x")

    assert found.owner_id == holder.owner_id
    with pytest.raises(PasskeyRefused):  # its count does not grow
        await passkeys.passkey_proves(db, W3C, mine, signed, actor="x")


# Levels


@given(st.sets(st.sampled_from(list(Method))), st.sets(st.sampled_from(list(Method))))
def test_more_proofs_never_prove_less(some: set[Method], more: set[Method]) -> None:
    assert level_of(some | more) >= level_of(some)


def test_two_codes_are_one_factor() -> None:
    assert level_of({Method.TOTP, Method.MESSAGE_CODE, Method.HOTP}) is Level.ONE
    assert level_of({Method.PASSKEY}) is Level.TWO
    assert level_of({Method.PASSWORD, Method.TOTP}) is Level.TWO
    assert level_of({Method.CERTIFICATE}) is Level.ONE
    assert level_of({Method.CERTIFICATE, Method.PASSWORD}) is Level.SIGNED
    assert level_of(()) is Level.SESSION


@settings(max_examples=40)
@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_more_money_never_asks_for_less(one: int, other: int) -> None:
    rules = [
        StepUpRule("transfer", "CNY", at, level, date(2016, 7, 1), "x")
        for at, level in ((0, 1), (100_001, 2), (500_001, 3))
    ]
    less, more = sorted((one, other))
    today = date(2026, 1, 1)

    assert level_by_rules(Act("transfer", "a", less, "CNY"), rules, today) <= level_by_rules(
        Act("transfer", "a", more, "CNY"), rules, today
    )


def test_rules_have_their_days_and_none_means_two_factors() -> None:
    rules = [
        StepUpRule("transfer", "CNY", 0, 1, date(2026, 1, 1), "old"),
        StepUpRule("transfer", "CNY", 0, 3, date(2026, 6, 1), "new"),
    ]
    act = Act("transfer", "a", 1, "CNY")

    assert level_by_rules(act, rules, date(2025, 12, 31)) is Level.TWO
    assert level_by_rules(act, rules, date(2026, 5, 31)) is Level.ONE
    assert level_by_rules(act, rules, date(2026, 6, 1)) is Level.SIGNED
    assert level_by_rules(Act("transfer", "a", 1, "USD"), rules, date(2026, 6, 1)) is Level.TWO


async def confirmation(checks: Checks, holder: Holder, act: Act = TRANSFER) -> Confirmation:
    from tongbao.parties.authentication.step_up import confirmation_of

    with pytest.raises(StepUpRequired) as refused:
        await require_step_up(checks, holder, act)
    return await confirmation_of(checks, holder, str(refused.value.facts["confirmation"]))


@pytest.mark.parametrize(
    ("amount", "day_total", "level"),
    [(100, None, 1), (100_000, None, 1), (100_001, None, 2), (1, 100_001, 2), (1, 500_001, 3)],
)
async def test_the_figures_of_the_law_decide(
    checks: Checks, holder: Holder, amount: int, day_total: int | None, level: int
) -> None:
    act = Act("transfer", "t", amount, "CNY", PAYEE, day_total)

    assert (await confirmation(checks, holder, act)).level == level


async def test_a_new_phone_confirms_with_two_factors(checks: Checks, holder: Holder) -> None:
    import msgspec

    fresh = msgspec.structs.replace(holder, device_bound_at=checks.db.clock.now())

    assert (await confirmation(checks, fresh)).level == 2
    assert (await require_step_up(checks, fresh, Act("payment", "p", 1, "CNY"))).id is None


async def test_risk_may_only_ask_for_more(db: Db, checks: Checks, holder: Holder) -> None:
    import msgspec

    class Wary:
        async def level_for(self, owner_id: UUID, device_id: UUID, act: Act) -> Level:
            return Level.TWO if act.subject == "odd" else Level.SESSION

    wary = msgspec.structs.replace(checks, risk=Wary())
    odd, even = Act("payment", "odd", 1, "CNY"), Act("transfer", "even", 1, "CNY")

    assert (await confirmation(wary, holder, odd)).level == 2
    assert (await confirmation(wary, holder, even)).level == 1


async def test_what_was_confirmed_is_done_once_whoever_asks_first(
    db: Db, checks: Checks, holder: Holder
) -> None:
    """Forced interleaving: two requests found the same act confirmed."""
    await with_password(db, holder.owner_id)
    asked = await confirmation(checks, holder)
    with pytest.raises(ProofRefused):
        await confirm(checks, holder, asked, ByPassword("wrong"))
    await confirm(checks, holder, asked, ByPassword("Violet-otter-42"))
    both = [await require_step_up(checks, holder, TRANSFER) for _ in range(2)]

    async def second() -> None:
        async with db.begin("test") as tx:
            await both[1].take(tx)

    async with db.begin("test") as tx:
        await both[0].take(tx)
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()
    with pytest.raises(ConfirmationUsed):
        await waiting
    with pytest.raises(StepUpRequired):
        await require_step_up(checks, holder, TRANSFER)


async def test_another_session_finds_nothing_confirmed(checks: Checks, holder: Holder) -> None:
    import msgspec

    await with_password(checks.db, holder.owner_id)
    await confirm(checks, holder, await confirmation(checks, holder), ByPassword("Violet-otter-42"))
    thief = msgspec.structs.replace(holder, session_hash=b"t" * 32)

    with pytest.raises(StepUpRequired):
        await require_step_up(checks, thief, TRANSFER)
    with pytest.raises(StepUpRequired):
        await require_step_up(checks, holder, Act("transfer", "trf_1", 19900, "CNY", "6780"))
    proved = await require_step_up(checks, holder, TRANSFER)
    assert proved.id is not None
    assert proved.level is Level.ONE


async def test_proofs_are_tried_ten_times(db: Db, checks: Checks, holder: Holder) -> None:
    from tongbao.parties.authentication.model import ConfirmationNotFound

    asked = await confirmation(checks, holder)
    for _ in range(10):
        with pytest.raises(ProofRefused):
            await confirm(checks, holder, asked, ByHotp("000000"))
    with pytest.raises(ConfirmationNotFound):
        await confirm(checks, holder, asked, ByHotp("000000"))
