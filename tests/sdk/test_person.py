"""The SDK of a person's phone: it signs what it asks, and is the person whom it logs in."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.parties.phones import PASSWORD
from tests.sdk.test_typescript import drive
from tests.stage import Stage
from tongbao_sdk import Refused, Unanswered
from tongbao_sdk.answering import answered_by
from tongbao_sdk.person import Person


def pem_of(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


KEYS = {
    "13600137801": ed25519.Ed25519PrivateKey.generate(),
    "13600137802": ec.generate_private_key(ec.SECP256R1()),
}


async def code_for(stage: Stage, number: str) -> str:
    await stage.idle()
    inbox = await asyncio.to_thread(stage.sandbox.get, "messages/inbox", to=f"+86{number}")
    found: list[str] = re.findall(r"(?<!\d)\d{6}(?!\d)", inbox[-1]["text"])
    return found[0]


async def test_a_person_registers_logs_in_and_sees_what_is_theirs(stage: Stage) -> None:
    """With either kind of key, in Python and in TypeScript."""
    for number, key in KEYS.items():
        await comes_in(stage, number)
        seen = await asyncio.to_thread(
            drive,
            "person",
            url=stage.url,
            keyId="none",
            secret="none",
            pem=pem_of(key),
            contact=number,
            password=PASSWORD,
        )
        assert seen == {
            "refused": [403, True, "person.login_refused"],
            "accounts": [],
            "isSame": True,
        }


async def comes_in(stage: Stage, number: str) -> None:
    phone = Person(stage.url, private_key=pem_of(KEYS[number]), mode="sandbox")
    await stage.db.fetch("delete from code_allowance", ())

    sent = await stage.call(phone.ask_code, number, "register")
    code = await code_for(stage, number)
    made = await stage.call(phone.register, number, PASSWORD, code_id=sent["code_id"], code=code)
    first = phone.session
    seen = [
        await stage.call(each)
        for each in (phone.e_accounts, phone.consents, phone.consent_texts, phone.account)
    ]
    await stage.call(phone.log_out)
    with pytest.raises(Refused) as nobody:
        await stage.call(phone.account)
    with pytest.raises(Refused) as wrong:
        await stage.call(phone.log_in, number, "another-Password-1")
    opened = await stage.call(phone.log_in, number, PASSWORD)

    assert first
    assert opened["token"] == phone.session != first
    assert seen[3]["id"] == made["person_id"] == opened["person_id"]
    assert (nobody.value.status, wrong.value.code) == (403, "person.login_refused")
    with pytest.raises(Refused) as unknown:
        await stage.call(phone.limits, "eac_nothing")
    assert unknown.value.status in {400, 404}


def test_what_nobody_answered_is_unanswered_and_a_key_of_another_kind_is_refused() -> None:
    pem = pem_of(KEYS["13600137801"])
    silent = Person(
        "https://pay.example", private_key=pem, client=answered_by(lambda *_: (502, b"<html>"))
    )
    with pytest.raises(Unanswered):
        silent.consent_texts()
    with pytest.raises(ValueError, match="not an id"):
        silent.limits("..")
    with pytest.raises(ValueError, match="Ed25519"):
        Person("https://pay.example", private_key=pem_of(x25519.X25519PrivateKey.generate()))
