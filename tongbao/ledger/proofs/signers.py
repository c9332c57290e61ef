"""The keys of proofs, and the notes they sign.

A note is text: what is said, an empty line, and a line for each signature (`— name id‖signature`),
as in C2SP's signed note. A key that is replaced goes on signing beside the new one until its end.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit, sm2
from tongbao.infra.crypto import (
    Keyring,
    bind,
    ed25519_new_key,
    ed25519_public_key,
    ed25519_sign,
    ed25519_verify,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import base32, new_id
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs.model import KeyKind, ProofKey, Proofs, PublishedKey

OVERLAP: Final = timedelta(days=30)
"""How long a replaced key goes on signing unless told otherwise."""
_PURPOSE: Final = "ledger.proof_key"
_TYPES: Final = {KeyKind.ED25519: b"\x01", KeyKind.SM2: b"\xffSM2\n"}
_SIGNERS: Final = (KeyKind.ED25519, KeyKind.SM2)
_BLIND_BYTES: Final = 32


class Signers(Struct, frozen=True):
    """The log's name, which all its keys have, and those of them that sign now."""

    name: str
    keys: tuple[ProofKey, ...]


async def signers(proofs: Proofs, tx: Tx) -> Signers:
    """Return who signs at this moment; what keys are missing are made."""
    keys = await store.KEYS.all(tx)
    current = {key.kind for key in keys if key.ends_at is None}
    absent = [kind for kind in (KeyKind.BLIND, *_SIGNERS) if kind not in current]
    for kind in absent:
        await _make_key(tx, proofs.keyring, kind)
    if absent:
        keys = await store.KEYS.all(tx)
    signing = [
        key
        for key in keys
        if key.kind in _SIGNERS and (key.ends_at is None or tx.now < key.ends_at)
    ]
    return Signers(_name_of(keys), tuple(signing))


async def blind_key(proofs: Proofs, on: Db | Tx) -> bytes:
    """Return the secret that salts the sides of leaves."""
    keys = [key for key in await store.KEYS.all(on) if key.kind is KeyKind.BLIND]
    if not keys:
        async with proofs.db.begin("proofs") as tx:
            await _make_key(tx, proofs.keyring, KeyKind.BLIND)
        keys = [key for key in await store.KEYS.all(on) if key.kind is KeyKind.BLIND]
    return _opened(proofs.keyring, keys[0])


async def rotate(
    proofs: Proofs, kind: KeyKind, *, actor: str, overlap: timedelta = OVERLAP
) -> None:
    """Replace the current key of a kind; it goes on signing beside the new one for a while."""
    if kind not in _SIGNERS:
        raise ValueError("every leaf was made with the one blinding key")
    async with proofs.db.begin(actor) as tx:
        present = await signers(proofs, tx)
        for key in present.keys:
            if key.kind is kind and key.ends_at is None:
                await store.END_KEY.run(tx, key.id, tx.now + overlap)
                facts = {"kind": kind.value, "ends_at": (tx.now + overlap).isoformat()}
                await audit.record(tx, "ledger.proof_key.rotate", str(key.id), facts)
        await _make_key(tx, proofs.keyring, kind)


async def published(db: Db) -> list[PublishedKey]:
    """Return every key checkpoints are or were signed with, oldest first."""
    keys = await store.KEYS.all(db)
    shown = []
    for key in keys:
        if key.kind in _SIGNERS and key.public_key is not None:
            line = key_line(_name_of(keys), key)
            shown.append(PublishedKey(key.kind, line, key.starts_at, key.ends_at))
    return shown


def key_line(name: str, key: ProofKey) -> str:
    """Return the line a verifier is given: name, id, and the key itself."""
    raw = _TYPES[key.kind] + (key.public_key or b"")
    return f"{name}+{_key_id(name, raw).hex()}+{base64.b64encode(raw).decode()}"


def signed_note(keyring: Keyring, present: Signers, body: str) -> str:
    """Return what is said, with the signature of everybody who signs."""
    lines = []
    for key in present.keys:
        signature = _signature(keyring, key, body.encode())
        if signature is not None:
            raw = _key_id(present.name, _TYPES[key.kind] + (key.public_key or b"")) + signature
            lines.append(f"\u2014 {present.name} {base64.b64encode(raw).decode()}\n")
    return body + "\n" + "".join(lines)


async def every_key(on: Db | Tx) -> list[ProofKey]:
    """Return the ledger's keys, those that are over too, oldest first; sealed as they are kept."""
    return await store.KEYS.all(on)


async def is_ours(on: Db | Tx, note: str) -> bool:
    """Tell whether one of our Ed25519 keys, of any time, has signed the note."""
    keys = await store.KEYS.all(on)
    body, _, lines = note.partition("\n\n")
    signatures = [base64.b64decode(line.split(" ")[2]) for line in lines.splitlines()]
    return any(
        ed25519_verify(key.public_key or b"", (body + "\n").encode(), signature[4:])
        for key in keys
        if key.kind is KeyKind.ED25519
        for signature in signatures
    )


def _signature(keyring: Keyring, key: ProofKey, message: bytes) -> bytes | None:
    """Return the signature, or None on a machine whose libcrypto cannot make it."""
    if key.kind is KeyKind.ED25519:
        return ed25519_sign(_opened(keyring, key), message)
    curve = sm2.provider()
    return None if curve is None else curve.sign(_opened(keyring, key), message)


async def _make_key(tx: Tx, keyring: Keyring, kind: KeyKind) -> None:
    """Add a current key of a kind; of two processes at once, the first one's stays."""
    key_id, public = new_id(), None
    if kind is KeyKind.BLIND:
        private = os.urandom(_BLIND_BYTES)
    elif kind is KeyKind.ED25519:
        private = ed25519_new_key()
        public = ed25519_public_key(private)
    else:
        curve = sm2.provider()
        if curve is None:
            return
        private = curve.new_key()
        public = curve.public_key(private)
    sealed = keyring.seal(_PURPOSE, private, _place(key_id))
    await store.ADD_KEY.run(tx, key_id, kind, public, sealed, tx.now)


def _opened(keyring: Keyring, key: ProofKey) -> bytes:
    return keyring.open(_PURPOSE, key.sealed, _place(key.id))


def _place(key_id: UUID) -> bytes:
    return bind("proof_key", key_id)


def _name_of(keys: Sequence[ProofKey]) -> str:
    """Return the name of this deployment's log, after the one key that is never replaced."""
    [log] = [key.id for key in keys if key.kind is KeyKind.BLIND]
    return f"tongbao.log/{base32(log)}"


def _key_id(name: str, raw: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + raw).digest()[:4]
