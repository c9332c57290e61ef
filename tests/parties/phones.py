"""A person's phone: keeps a key, signs requests, and reads the messages that come.

Written from the description of the signature and not from our code. `Key` is a passkey made in
software, by the W3C's description.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.infra.signed_client import Reply, call
from tongbao.infra import sm2
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.notify.model import Answer, Message, NotTaken, Taken
from tongbao.infra.notify.sending import SendNotification, run_send_notification
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Mode

PASSWORD = "Violet-otter-42"
PHONE = "13800138000"


SM2 = sm2.provider()


def sm2_pem(public: bytes) -> str:
    """A public key as of GM/T 0010, written by hand: no library here writes one."""
    spki = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200") + public
    body = base64.encodebytes(spki).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


class Carrier:
    """A gateway that keeps what it carries."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.numbers: list[str] = []

    async def send(self, number: str, message: Message) -> Answer:
        self.numbers.append(number)
        if message.to.endswith("0009"):
            return NotTaken("number_unknown")
        self.messages.append(message)
        return Taken(f"M{number}")


class Held(Lease):
    """The right to run a task that no worker has claimed."""

    async def hold(self, tx: object) -> None:
        """Nobody else is there."""


async def deliver(db: Db, keyring: Keyring, carrier: Carrier) -> None:
    """Send what waits to be sent."""
    rows = await db.fetch("select id from notification where state = 'waiting' order by id", ())
    for row in rows:
        task = SendNotification(row["id"])
        gateways = dict.fromkeys(Mode, carrier)
        await run_send_notification(db, keyring, gateways, task, Held(row["id"], 1))


class Phone:
    """One phone with the app on it."""

    def __init__(self, app: Any, post: Any, *, kind: str = "ed25519", name: str = "phone") -> None:
        self.app = app
        self.post_office = post
        self.name = name
        self.kind = kind
        self.token: str | None = None
        self.contact = PHONE
        self.mode: dict[str, str] = {}  # {"mode": "sandbox"} where it is not live
        if kind == "sm2":
            assert SM2 is not None
            self.key: Any = SM2.new_key()
            self.pem = sm2_pem(SM2.public_key(self.key))
            return
        made: Any = (
            ed25519.Ed25519PrivateKey.generate()
            if kind == "ed25519"
            else ec.generate_private_key(ec.SECP256R1())
        )
        self.key = made
        self.pem = (
            made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        )

    @property
    def device(self) -> dict[str, str]:
        return {"public_key": self.pem, "name": self.name}

    def sign(self, message: bytes) -> bytes:
        if self.kind == "sm2":
            assert SM2 is not None
            return SM2.sign(self.key, message)
        if self.kind == "ed25519":
            return bytes(self.key.sign(message))
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def authorization(
        self,
        method: str,
        target: str,
        body: bytes,
        *,
        token: str | None = None,
        late: timedelta = timedelta(),
        nonce: str | None = None,
    ) -> str:
        at = int((real_now() - late).timestamp())
        nonce = nonce or secrets.token_urlsafe(16)
        digest = hashlib.sha256(body).hexdigest()
        lines = ["TONGBAO-DEVICE v1", method, target, str(at), nonce, digest, token or "", ""]
        signature = base64.b64encode(self.sign("\n".join(lines).encode())).decode()
        session = f"session={token}," if token else ""
        return f"TONGBAO-DEVICE {session}timestamp={at},nonce={nonce},signature={signature}"

    async def post(self, path: str, **fields: Any) -> Reply:
        return await self.send("POST", path, fields or None)

    async def get(self, path: str) -> Reply:
        return await self.send("GET", path, None)

    async def send(
        self, method: str, path: str, fields: Any, *, authorization: str | None = None
    ) -> Reply:
        body = b"" if fields is None else json.dumps(fields).encode()
        said = authorization or self.authorization(method, path, body, token=self.token)
        headers = {"authorization": said, "content-type": "application/json"}
        return await call(self.app, method, path, headers, [body])

    async def code(self, to: str) -> str:
        """Return the newest code that was sent to an address."""
        return newest_code([each.text for each in await self.letters(to)])

    async def letters(self, to: str) -> list[Message]:
        await self.post_office.deliver()
        return [each for each in self.post_office.carrier.messages if each.to == to]

    async def register(self, contact: str = PHONE, **more: Any) -> Reply:
        self.contact = contact
        asked = await self.ask_code(contact, "register")
        assert asked.status == 200, asked.body
        reply = await self.post(
            "/v1/me/registrations",
            contact=contact,
            code_id=asked.json["code_id"],
            code=await self.code(address(contact)),
            device=self.device,
            **{"password": PASSWORD, **self.mode, **more},
        )
        self.token = reply.json.get("token")
        return reply

    async def ask_code(self, contact: str, purpose: str, *, is_patient: bool = True) -> Reply:
        if is_patient:
            await self.post_office.wait()
        fields = {"contact": contact, "purpose": purpose, "device": self.device, **self.mode}
        return await self.post("/v1/me/codes", **fields)

    async def log_in(self, contact: str = PHONE, **more: Any) -> Reply:
        fields = {"contact": contact, "password": PASSWORD, "device": self.device}
        fields |= {**self.mode, **more}
        self.token = None
        reply = await self.post("/v1/me/sessions", **fields)
        self.token = reply.json.get("token")
        return reply

    async def confirmed(self, path: str, proofs: Sequence[str] = (), **fields: Any) -> Reply:
        """Ask for something, prove what it wants, and ask again."""
        first = await self.post(path, **fields)
        if first.code != "authentication.step_up_required":
            return first
        found = first.json["facts"]["confirmation"]
        for method in proofs or ("password", "message_code"):
            assert (await self.prove(found, method)).status == 200
        return await self.post(path, **fields)

    async def prove(self, confirmation: str, method: str, **claim: Any) -> Reply:
        at = f"/v1/me/confirmations/{confirmation}"
        if method == "password":
            claim = {"password": PASSWORD, **claim}
        if method == "message_code" and not claim:
            await self.post_office.wait()
            sent = await self.post(f"{at}/code", to="phone")
            assert sent.status == 200, sent.body
            claim = {
                "code_id": sent.json["code_id"],
                "code": await self.code(address(self.contact)),
            }
        return await self.post(f"{at}/proofs", type=method, **claim)


def newest_code(texts: list[str]) -> str:
    """The code in the newest message that has one; it stands before ids, which have digits too."""
    found = [code for text in texts if (code := re.search(r"(?<!\d)\d{6}(?!\d)", text))]
    return found[-1].group()


def address(contact: str) -> str:
    """An address as messages go to it."""
    return contact if "@" in contact else f"+86{contact}"


class Key:
    """A passkey in software: ES256, with user verification unless told otherwise."""

    def __init__(self, origin: str = "https://pay.example", rp: str = "pay.example") -> None:
        self.origin, self.rp = origin, rp
        self.id = secrets.token_bytes(16)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.count = 0
        self.flags = 0x1D  # user present, verified, backup eligible, backed up

    def create(self, options: dict[str, Any], **client: Any) -> dict[str, Any]:
        """What ``navigator.credentials.create`` returns."""
        numbers = self.key.public_key().public_numbers()
        x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
        cose = b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + x + b"\x22\x58\x20" + y
        credential = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cose
        data = self._data(self.flags | 0x40) + credential
        size = b"\x58" + bytes([len(data)]) if len(data) < 256 else b"\x59" + len(data).to_bytes(2)
        attestation = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData" + size + data
        response = {
            "clientDataJSON": _text(self._client("webauthn.create", options, client)),
            "attestationObject": _text(attestation),
        }
        return self._credential(response)

    def get(self, options: dict[str, Any], **client: Any) -> dict[str, Any]:
        """What ``navigator.credentials.get`` returns."""
        self.count += 1
        data = self._data(self.flags)
        said = self._client("webauthn.get", options, client)
        signature = self.key.sign(data + hashlib.sha256(said).digest(), ec.ECDSA(SHA256()))
        response = {
            "clientDataJSON": _text(said),
            "authenticatorData": _text(data),
            "signature": _text(signature),
            "userHandle": None,
        }
        return self._credential(response)

    def _data(self, flags: int) -> bytes:
        rp = hashlib.sha256(self.rp.encode()).digest()
        return rp + bytes([flags]) + self.count.to_bytes(4, "big")

    def _client(self, kind: str, options: dict[str, Any], client: dict[str, Any]) -> bytes:
        said = {"type": kind, "challenge": options["challenge"], "origin": self.origin}
        return json.dumps({**said, "crossOrigin": False, **client}).encode()

    def _credential(self, response: dict[str, Any]) -> dict[str, Any]:
        text = _text(self.id)
        return {"id": text, "rawId": text, "type": "public-key", "response": response}


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
