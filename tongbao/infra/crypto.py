"""Crypto: which purpose uses which algorithm and key, and the envelope that seals stored secrets.

    sealed = version 1 | key id 4 | salt 32 | commitment 32 | AES-256-GCM ciphertext and tag

Each sealed text has a key of its own, derived from the file key, the purpose and the salt. The
commitment, derived with it, makes sure that one sealed text opens under one key only. Whoever
seals binds the place it is stored in, so that rows cannot be swapped. Algorithms that channels
insist on and we would not choose live in the channels' own folders.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Struct

from tongbao.kernel.errors import Conflict

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_KEY_ID: Final = slice(1, 5)
_SALT: Final = slice(5, 37)
_COMMITMENT: Final = slice(37, 69)
_HEADER_BYTES: Final = 69
_TAG_BYTES: Final = 16
# Safe although fixed: the salt gives every sealed text its own key, used once.
_NONCE: Final = bytes(12)


class SealUnreadable(Conflict):
    """A sealed secret cannot be opened: another file key, another place, or damaged."""

    code = "crypto.seal_unreadable"
    advice = "Restore the key file that was in use when the secret was stored."
    advice_zh = "请恢复存储该密钥时使用的主密钥文件。"


class KeyFileUnreadable(Conflict):
    """The key file is damaged, or others may read it."""

    code = "crypto.key_file_unreadable"
    advice = "Restore the file from its backup and allow only its owner to read it (0600)."
    advice_zh = "请从备份恢复主密钥文件，并将权限设为仅所有者可读（0600）。"


class Algorithm(StrEnum):
    """What may be used for anything of our own."""

    AES_256_GCM = "AES-256-GCM, key by HKDF-SHA-256, committed"
    HMAC_SHA_256 = "HMAC-SHA-256"
    HMAC_SM3 = "HMAC-SM3 (GB/T 32905)"
    ED25519 = "Ed25519"
    SM2 = "SM2 with SM3 (GB/T 32918)"
    SHAKE_256 = "SHAKE-256, the key first"
    ARGON2ID = "Argon2id"
    TOTP_SHA_1 = "TOTP, HMAC-SHA-1 (RFC 6238; what authenticator apps support)"


class Purpose(Struct, frozen=True):
    """One use of cryptography: with what, under which key, for what."""

    name: str
    algorithm: Algorithm
    key: str  # whose key: the file key's, or where the key itself is kept
    meaning: str


_FILE_KEY: Final = "file key"

PURPOSES: Final[dict[str, Purpose]] = {
    purpose.name: purpose
    for purpose in (
        Purpose("channel.secrets", Algorithm.AES_256_GCM, _FILE_KEY, "Our keys at a channel."),
        Purpose("channel.fingerprint", Algorithm.HMAC_SHA_256, _FILE_KEY, "Keys told apart."),
        Purpose("webhook.secret", Algorithm.AES_256_GCM, _FILE_KEY, "A webhook endpoint's keys."),
        Purpose("api_key.secret", Algorithm.AES_256_GCM, _FILE_KEY, "A merchant's API secret."),
        Purpose("jeepay.secret", Algorithm.AES_256_GCM, _FILE_KEY, "A jeepay app's secret."),
        Purpose("operator.totp", Algorithm.AES_256_GCM, _FILE_KEY, "An operator's TOTP seed."),
        Purpose("merchant.bank_account", Algorithm.AES_256_GCM, _FILE_KEY, "Where we pay to."),
        Purpose("transfer.payee", Algorithm.AES_256_GCM, _FILE_KEY, "Whom a merchant pays."),
        Purpose("api.request", Algorithm.HMAC_SHA_256, "api_key.secret", "Signed API requests."),
        Purpose("webhook.v1", Algorithm.HMAC_SHA_256, "webhook.secret", "Webhook signature v1."),
        Purpose("webhook.v1a", Algorithm.ED25519, "webhook.secret", "Webhook signature v1a."),
        Purpose("operator.password", Algorithm.ARGON2ID, "none", "An operator's password."),
        Purpose("operator.totp_code", Algorithm.TOTP_SHA_1, "operator.totp", "Second factor."),
        Purpose("session.token", Algorithm.HMAC_SHA_256, _FILE_KEY, "Look-up of session tokens."),
        Purpose("ledger.proof_key", Algorithm.AES_256_GCM, _FILE_KEY, "The ledger's proof keys."),
        Purpose("ledger.note", Algorithm.ED25519, "ledger.proof_key", "Signed checkpoints."),
        Purpose("ledger.note_sm2", Algorithm.SM2, "ledger.proof_key", "The same, by SM2."),
        Purpose("ledger.blind", Algorithm.SHAKE_256, "ledger.proof_key", "Salts of leaves."),
        Purpose("payment_code", Algorithm.HMAC_SHA_256, _FILE_KEY, "A wallet's payment codes."),
        Purpose("offline_key.secret", Algorithm.AES_256_GCM, _FILE_KEY, "A phone's code secret."),
        Purpose("offline_code", Algorithm.HMAC_SM3, "offline_key.secret", "Codes of a phone."),
        Purpose("terminal.secret", Algorithm.AES_256_GCM, _FILE_KEY, "A terminal's own secret."),
        Purpose("terminal.request", Algorithm.HMAC_SHA_256, "terminal.secret", "Their requests."),
        Purpose("blob.key", Algorithm.AES_256_GCM, _FILE_KEY, "A stored document's own key."),
        Purpose("application.personal", Algorithm.AES_256_GCM, _FILE_KEY, "Persons who apply."),
        Purpose("application.blind", Algorithm.HMAC_SHA_256, _FILE_KEY, "The same number again."),
        Purpose("term.signer", Algorithm.AES_256_GCM, _FILE_KEY, "Who signed a merchant's terms."),
        Purpose("staff.person", Algorithm.AES_256_GCM, _FILE_KEY, "A merchant's people."),
        Purpose("staff.blind", Algorithm.HMAC_SHA_256, _FILE_KEY, "Their phones, to be found."),
        Purpose("terminal.secret", Algorithm.AES_256_GCM, _FILE_KEY, "A terminal's own secret."),
        Purpose("terminal.request", Algorithm.HMAC_SHA_256, "terminal.secret", "Their requests."),
        Purpose("split.receiver", Algorithm.AES_256_GCM, _FILE_KEY, "Who gets shares."),
        Purpose("split.receiver_mac", Algorithm.HMAC_SHA_256, _FILE_KEY, "Look-up of receivers."),
        Purpose("cashier.payer", Algorithm.AES_256_GCM, _FILE_KEY, "Who is at a cashier's page."),
    )
}
"""The inventory. A purpose that is not here cannot be used."""


class Keyring:
    """The file key, and older ones that only open what they once sealed."""

    def __init__(self, keys: list[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError("a keyring needs keys of 32 bytes")
        self._keys = {_key_id(key): key for key in keys}
        self.primary_id = _key_id(keys[0])

    def __repr__(self) -> str:
        return f"Keyring(primary {self.primary_id.hex()}, {len(self._keys)} keys)"

    @classmethod
    def from_file(cls, path: Path) -> Keyring:
        """Read the key file; make it, for its owner's eyes only, when there is none.

        One key in base64 per line: the first seals, all open. To rotate, add a line on top.

        Raises:
            KeyFileUnreadable
        """
        try:
            if path.stat().st_mode & 0o077:
                raise KeyFileUnreadable(path=str(path), reason="others may read it")
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            text = _create_key_file(path)
        except (OSError, UnicodeDecodeError):
            raise KeyFileUnreadable(path=str(path), reason="not readable") from None
        try:
            return cls([base64.b64decode(line, validate=True) for line in text.split()])
        except (binascii.Error, ValueError):
            raise KeyFileUnreadable(path=str(path), reason="not 32 bytes in base64") from None

    def seal(self, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt a secret for storage; ``aad`` names where it is stored, see `bind`."""
        _require(purpose, Algorithm.AES_256_GCM)
        salt = os.urandom(32)
        key, commitment = _record_key(self._keys[self.primary_id], purpose, salt)
        header = _VERSION + self.primary_id + salt + commitment
        return header + aes_256_gcm_encrypt(key, _NONCE, plaintext, bind(header, aad))

    def open(self, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt what `seal` made for the same purpose and place.

        Raises:
            SealUnreadable
        """
        _require(purpose, Algorithm.AES_256_GCM)
        file_key = self._keys.get(sealed[_KEY_ID])
        if len(sealed) < _HEADER_BYTES + _TAG_BYTES or sealed[:1] != _VERSION or file_key is None:
            raise SealUnreadable(purpose=purpose)
        key, commitment = _record_key(file_key, purpose, sealed[_SALT])
        if not constant_time_equal(commitment, sealed[_COMMITMENT]):
            raise SealUnreadable(purpose=purpose)
        header, ciphertext = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        plaintext = aes_256_gcm_decrypt(key, _NONCE, ciphertext, bind(header, aad))
        if plaintext is None:
            raise SealUnreadable(purpose=purpose)
        return plaintext

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether the first key sealed it; if not, it should be sealed anew."""
        return sealed[_KEY_ID] == self.primary_id

    def mac_key(self, purpose: str) -> bytes:
        """Return the HMAC key of a purpose that the file key itself serves."""
        found = _require(purpose, Algorithm.HMAC_SHA_256)
        if found.key != _FILE_KEY:
            raise ValueError(f"the key of {purpose} is kept elsewhere: {found.key}")
        return _derive(self._keys[self.primary_id], b"mac", purpose.encode())


def bind(*parts: str | bytes | UUID) -> bytes:
    """Join the names of a place (table, column, row, tenant) so that no two places look alike."""
    joined = b""
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        joined += len(raw).to_bytes(4, "big") + raw
    return joined


def hmac_sha256(key: bytes, *parts: bytes) -> bytes:
    """Return the HMAC-SHA-256 of the parts, one after the other."""
    return hmac.digest(key, b"".join(parts), "sha256")


def hmac_sm3(key: bytes, *parts: bytes) -> bytes:
    """Return the HMAC-SM3 of the parts, one after the other."""
    return hmac.digest(key, b"".join(parts), "sm3")


def constant_time_equal(one: bytes, other: bytes) -> bool:
    """Compare without telling by the time taken how far they agree."""
    return hmac.compare_digest(one, other)


def aes_256_gcm_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Return ciphertext and tag; a key with the same nonce twice gives both texts away."""
    _check_gcm(key, nonce)
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def aes_256_gcm_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
    """Return the plaintext, or None when anything at all does not match."""
    _check_gcm(key, nonce)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        return None


def ed25519_new_key() -> bytes:
    """Return a new private key, as its 32-byte seed."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def ed25519_public_key(private_key: bytes) -> bytes:
    """Return the 32 bytes that may be shown to everybody."""
    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def ed25519_sign(private_key: bytes, message: bytes) -> bytes:
    """Return the 64-byte signature."""
    return _ed25519_key(private_key).sign(message)


@lru_cache(maxsize=64)
def _ed25519_key(private_key: bytes) -> Ed25519PrivateKey:
    """Return the key with what follows from its seed, which takes as long as to sign."""
    return Ed25519PrivateKey.from_private_bytes(private_key)


def ed25519_verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the key's owner signed exactly this message."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _create_key_file(path: Path) -> str:
    """Make the file whole or not at all; of two processes at once, the first one's key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}.new")
    half.unlink(missing_ok=True)
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(base64.b64encode(os.urandom(KEY_BYTES)).decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(half, path)  # unlike a rename, this fails when the name exists
    except FileExistsError:
        pass
    finally:
        half.unlink()
    _keep_name(path)
    return path.read_text(encoding="ascii")


def _keep_name(path: Path) -> None:
    """Make a file's name outlive a power cut: what is sealed from now on is lost without it."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _record_key(file_key: bytes, purpose: str, salt: bytes) -> tuple[bytes, bytes]:
    """Return the key of one sealed text and its commitment."""
    purpose_key = _derive(file_key, b"seal", purpose.encode())
    expand = HKDFExpand(SHA256(), 2 * KEY_BYTES, b"tongbao record v1" + salt)
    both = expand.derive(purpose_key)
    return both[:KEY_BYTES], both[KEY_BYTES:]


def _derive(file_key: bytes, use: bytes, label: bytes) -> bytes:
    name = bind(b"tongbao v1", use, label)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=name).derive(file_key)


def _key_id(file_key: bytes) -> bytes:
    return _derive(file_key, b"key id", b"")[:4]


def _require(purpose: str, algorithm: Algorithm) -> Purpose:
    found = PURPOSES[purpose]
    if found.algorithm is not algorithm:
        raise ValueError(f"{purpose} is for {found.algorithm}")
    return found


def _check_gcm(key: bytes, nonce: bytes) -> None:
    if len(key) != KEY_BYTES or len(nonce) != len(_NONCE):
        raise ValueError("AES-256-GCM takes 32 bytes of key and 12 of nonce")


@lru_cache(maxsize=256)
def rsa_private_key(pem: str) -> RSAPrivateKey:
    """Return the RSA key in a PEM, checked once: that takes 36 ms, and signing 0.25 ms.

    Raises:
        ValueError, TypeError: it is no RSA key.
    """
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("the key is no RSA key")
    return key
