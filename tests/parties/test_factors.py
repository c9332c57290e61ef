"""Every factor as a phone uses it: bound over the wire, then put to an act that needs it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.infra.test_certificates import (
    SM2,
    Authority,
    client,
    sm2_certificate,
    sm2_signature,
)
from tests.parties.phones import PASSWORD, Key, Phone
from tests.parties.test_e_account_routes import AT, account, alice, app, enter
from tongbao.infra import audit
from tongbao.infra.certificates import read_certificate
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.kernel.one_time_codes import ocra, read_suite
from tongbao.parties.authentication.authenticators import SUITES
from tongbao.parties.authentication.certificates import add_anchor, renew_crl

__all__ = ["alice", "app"]

SIGNED = 500_001  # 43号 第二十四条: from 5000 yuan a day on by certificate
Signs = Callable[[bytes], bytes]


class Client:
    """Somebody's certificate, who issued it, and what its key signs."""

    def __init__(self, leaf: bytes, root: bytes, signs: Signs, crl: Any = None) -> None:
        self.leaf, self.root, self.signs, self.crl = leaf, root, signs, crl


def rsa_client() -> Client:
    authority, key = Authority(), rsa.generate_private_key(65537, 2048)
    leaf = client(authority, key)
    serial = read_certificate(leaf).parsed.serial_number
    pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
    return Client(
        leaf, authority.der, lambda text: key.sign(text, pss, SHA256()), authority.crl(serial)
    )


def ec_client() -> Client:
    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1())
    leaf = client(authority, key)
    serial = read_certificate(leaf).parsed.serial_number
    return Client(
        leaf, authority.der, lambda text: key.sign(text, ec.ECDSA(SHA256())), authority.crl(serial)
    )


def sm2_client() -> Client:
    if SM2 is None:
        pytest.skip("this machine's OpenSSL knows no SM2")
    root, key = SM2.new_key(), SM2.new_key()
    leaf = sm2_certificate("Zhang San", SM2.public_key(key), "SM CA", root, ca=False)
    anchor = sm2_certificate("SM CA", SM2.public_key(root), "SM CA", root, ca=True)
    return Client(leaf, anchor, lambda text: sm2_signature(key, text))


def text_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


async def bind(phone: Phone, mine: Client, *, signs: Signs | None = None) -> Any:
    asked = (await phone.post("/v1/me/certificates/challenges")).json
    signature = (signs or mine.signs)(asked["text"].encode())
    return await phone.confirmed(
        "/v1/me/certificates",
        challenge_id=asked["challenge_id"],
        chain=[text_of(mine.leaf)],
        signature=text_of(signature),
    )


async def signed_proof(phone: Phone, confirmation: str, signs: Signs) -> Any:
    at = f"/v1/me/confirmations/{confirmation}"
    asked = (await phone.post(f"{at}/challenge", method="certificate")).json
    signature = text_of(signs(asked["text"].encode()))
    return await phone.prove(
        confirmation, "certificate", challenge_id=asked["challenge_id"], signature=signature
    )


@pytest.mark.parametrize("kind", [rsa_client, ec_client, sm2_client], ids=["RSA", "EC", "SM2"])
async def test_a_certificate_signs_the_transfer_that_the_law_wants_signed(
    alice: Phone, app: App, db: Db, kind: Callable[[], Client]
) -> None:
    mine, others = kind(), kind()
    payer, payee = await account(alice, 3, fill=2 * SIGNED), await account(alice, 2)
    wanted = {"amount": SIGNED, "payee": payee, "request_id": "r1"}
    async with db.begin("operator") as tx:
        anchor = await add_anchor(tx, "CFCA", mine.root)

    assert (await bind(alice, others)).code == "certificate.refused", "of an unknown authority"
    assert (await bind(alice, mine, signs=others.signs)).code == "authentication.proof_refused"
    assert (await bind(alice, mine)).status == 201
    bob = await enter(Phone(app, alice.post_office), db, "13800138001")
    assert bob.token != alice.token
    asked = await alice.post(f"{AT}/{payer}/transfers", **wanted)
    confirmation = asked.json["facts"]["confirmation"]
    assert asked.json["facts"]["level"] == 3
    for proof in ("password", "message_code"):
        assert (await alice.prove(confirmation, proof)).status == 200
    still = await alice.post(f"{AT}/{payer}/transfers", **wanted)
    assert still.code == "authentication.step_up_required", "two factors are no signature"

    lied = await signed_proof(
        alice, confirmation, lambda text: mine.signs(text.replace(b"500001", b"500002"))
    )
    assert lied.code == "authentication.proof_refused"
    assert (await signed_proof(alice, confirmation, others.signs)).code == lied.code
    proved = await signed_proof(alice, confirmation, mine.signs)
    assert (proved.status, proved.json["is_confirmed"]) == (200, True), proved.body
    done = await alice.post(f"{AT}/{payer}/transfers", **wanted)
    assert (done.status, done.json["status"]) == (201, "done"), done.body

    if mine.crl is not None:  # no library here writes lists signed with SM2
        async with db.begin("operator") as tx:
            await renew_crl(tx, anchor.id, mine.crl)
        asked = await alice.post(f"{AT}/{payer}/transfers", **{**wanted, "request_id": "r2"})
        revoked = await signed_proof(alice, asked.json["facts"]["confirmation"], mine.signs)
        assert revoked.code == "certificate.refused"
    [factor] = [x for x in (await alice.get("/v1/me/factors")).json if x["kind"] == "certificate"]
    gone = await alice.confirmed(f"/v1/me/factors/{factor['id']}/remove")
    assert gone.status == 200, gone.body


async def passkey_of(phone: Phone) -> Key:
    key = Key()
    asked = (await phone.post("/v1/me/passkeys/challenges")).json
    added = await phone.confirmed(
        "/v1/me/passkeys",
        challenge_id=asked["challenge_id"],
        name="finger",
        response=key.create(asked["options"]),
    )
    assert added.status == 201, added.body
    return key


async def test_a_passkey_confirms_a_transfer_and_its_backup_flags_are_watched(
    alice: Phone, db: Db
) -> None:
    key = await passkey_of(alice)
    payer, payee = await account(alice, 3, fill=400_000), await account(alice, 2)
    wanted = {"amount": 150_000, "payee": payee, "request_id": "r1"}
    asked = await alice.post(f"{AT}/{payer}/transfers", **wanted)
    confirmation = asked.json["facts"]["confirmation"]
    at = f"/v1/me/confirmations/{confirmation}"
    assert asked.json["facts"]["level"] == 2

    async def by_passkey(**client: Any) -> Any:
        question = (await alice.post(f"{at}/challenge", method="passkey")).json
        assert question["options"]["userVerification"] == "required"
        response = key.get(question["options"], **client)
        terms = {"challenge_id": question["challenge_id"], "response": response}
        return await alice.prove(confirmation, "passkey", **terms)

    assert (await by_passkey(crossOrigin=True)).code == "passkey.refused"
    assert (await by_passkey(topOrigin="https://evil")).code == "passkey.refused"
    eligible, backed_up = 0x08, 0x10
    key.flags &= ~(eligible | backed_up)
    assert (await by_passkey()).code == "passkey.refused", "another kind of key"
    key.flags |= eligible
    proved = await by_passkey()
    assert (proved.status, proved.json["is_confirmed"]) == (200, True), proved.body
    assert (await alice.post(f"{AT}/{payer}/transfers", **wanted)).status == 201
    [told] = await audit.entries_of_actions(db, ["passkey.backup_changed"])
    assert told.facts == {"backed_up": False}, "it was a copy in a cloud, and is none any more"


async def test_a_token_confirms_payee_and_amount_and_no_others(alice: Phone) -> None:
    made = await alice.confirmed(
        "/v1/me/authenticators", kind="ocra", name="token", suite=SUITES[0]
    )
    padded = made.json["secret"] + "=" * (-len(made.json["secret"]) % 8)
    raw, suite = base64.b32decode(padded), read_suite(SUITES[0])
    first = ocra(suite, raw, "0" * 10, counter=0)
    begun = await alice.post(f"/v1/me/authenticators/{made.json['id']}/confirm", code=first)
    assert begun.status == 200
    payer, payee = await account(alice, 3, fill=400_000), await account(alice, 2)
    wanted = {"amount": 1_234, "payee": payee, "request_id": "r1"}
    asked = await alice.post(f"{AT}/{payer}/transfers", **wanted)
    confirmation = asked.json["facts"]["confirmation"]

    async def by_token(counter: int, question: str | None = None) -> Any:
        at = f"/v1/me/confirmations/{confirmation}/challenge"
        said = (await alice.post(at, method="ocra")).json
        assert said["question"].endswith("001234"), "the amount, as it is typed in"
        response = ocra(suite, raw, question or said["question"], counter=counter)
        terms = {"challenge_id": said["challenge_id"], "response": response}
        return await alice.prove(confirmation, "ocra", **terms), said["question"]

    wrong, shown = await by_token(1, "0000001235")
    assert wrong.code == "authentication.proof_refused"
    proved, _ = await by_token(1)
    assert (proved.status, proved.json["proved"]) == (200, ["ocra"]), proved.body
    again, _ = await by_token(1)
    assert again.code == "authentication.proof_refused", "a counter is good once"
    assert shown[:4] == "".join(each for each in payee if each.isdigit())[-4:].rjust(4, "0")
    assert (await alice.post(f"{AT}/{payer}/transfers", **wanted)).status == 201


async def test_a_code_by_mail_confirms_the_act_it_names_and_no_other(
    alice: Phone, app: App, db: Db
) -> None:
    mail = "alice@example.com"
    await alice.post_office.wait()
    asked = (await alice.post("/v1/me/contact_codes", contact=mail)).json
    proof = {"code_id": asked["code_id"], "code": await alice.code(mail)}
    added = await alice.confirmed("/v1/me/contacts", contact=mail, **proof)
    assert (added.status, added.json["masked"]) == (201, "a***@example.com"), added.body
    payer, payee = await account(alice, 3, fill=400_000), await account(alice, 2)
    wanted = {"amount": 150_000, "payee": payee, "request_id": "r1"}
    asked_by = [
        (await alice.post(f"{AT}/{payer}/transfers", **{**wanted, **more})).json["facts"]
        for more in ({}, {"amount": 150_001, "request_id": "r2"})
    ]
    mine, other = [each["confirmation"] for each in asked_by]
    assert asked_by[0]["level"] == 2

    await alice.post_office.wait()
    sent = (await alice.post(f"/v1/me/confirmations/{mine}/code", to="mail")).json
    letter = (await alice.letters(mail))[-1]
    claim = {"code_id": sent["code_id"], "code": await alice.code(mail)}

    assert (letter.kind, "1500.00" in letter.text, payee in letter.text) == ("mail", True, True)
    wrong = await alice.prove(other, "message_code", **claim)
    assert wrong.code == "authentication.code_wrong"
    for confirmation, method, said in ((mine, "message_code", claim), (mine, "password", {})):
        proved = await alice.prove(confirmation, method, **said)
        assert proved.status == 200, proved.body
    assert proved.json["is_confirmed"] is True
    assert (await alice.post(f"{AT}/{payer}/transfers", **wanted)).status == 201
    again = await alice.prove(other, "message_code", **claim)
    assert again.code == "authentication.code_wrong", "a code is good once"


async def test_a_login_reminds_of_an_old_password_and_lets_in(alice: Phone, db: Db) -> None:
    fresh = await alice.log_in()
    await db.fetch("update password set set_at = set_at - interval '91 days'", ())
    due = await alice.log_in()

    assert fresh.json["password_is_due"] is False
    assert (due.status, due.json["password_is_due"]) == (201, True)
    refused = await alice.confirmed("/v1/me/password", password=PASSWORD)
    assert refused.json["facts"]["reason"] == "had_before", refused.body
