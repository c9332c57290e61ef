"""Crypto: which purpose uses which algorithm and key, and the envelope that seals stored secrets.

    sealed = version 1 | key id 4 | salt 32 | commitment 32 | AES-256-GCM ciphertext and tag
           | version 2 | cipher 1 | sealing key id 16 | salt 32 | commitment 32 | ciphertext and tag

Version 1 is sealed under the file key, version 2 under a sealing key (`infra.kms.sealing_keys`).
Each sealed text has a key of its own, derived from that key, the purpose and the salt. The
commitment, derived with it, makes sure that one sealed text opens under one key only. Whoever seals
binds the place it is stored in, so that rows cannot be swapped. Algorithms that channels insist on
and we would not choose live in the channels' own folders.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from enum import IntEnum, StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Struct
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from tongbao.infra import key_file
from tongbao.infra.key_file import KEY_BYTES, Wrapping
from tongbao.kernel.errors import Conflict

_VERSION: Final = b"\x01"
_KEY_ID: Final = slice(1, 5)
_VERSION_2: Final = b"\x02"
_HEAD_BYTES: Final = 5
_HEAD_2_BYTES: Final = 18
_SALT_BYTES: Final = 32
_COMMITMENT_BYTES: Final = 32
_TAG_BYTES: Final = 16
_SM4_KEY_BYTES: Final = 16
_ED25519_KEY_BYTES: Final = 32
_ED25519_SIGNATURE_BYTES: Final = 64
# Safe although fixed: the salt gives every sealed text its own key, used once.
_NONCE: Final = bytes(12)


class SealUnreadable(Conflict):
    """A sealed secret cannot be opened: another file key, another place, or damaged."""

    code = "crypto.seal_unreadable"
    advice = "Restore the key file that was in use when the secret was stored."
    advice_zh = "请恢复存储该密钥时使用的主密钥文件。"


class Algorithm(StrEnum):
    """What may be used for anything of our own."""

    AES_256_GCM = "AES-256-GCM, key by HKDF-SHA-256, committed"
    GCM_UNDER_SEALING_KEY = "AES-256-GCM or SM4-GCM under a sealing key, committed"
    HMAC_SHA_256 = "HMAC-SHA-256"
    HMAC_SM3 = "HMAC-SM3 (GB/T 32905)"
    ED25519 = "Ed25519"
    SM2 = "SM2 with SM3 (GB/T 32918)"
    SHAKE_256 = "SHAKE-256, the key first"
    ARGON2ID = "Argon2id"
    ECDSA_P256 = "ECDSA on P-256 with SHA-256, or Ed25519"
    CERTIFICATE = "RSA, ECDSA or SM2, by the key of an X.509 certificate"
    WEBAUTHN = "WebAuthn, by the key of a passkey"
    TOTP_SHA_1 = "TOTP, HMAC-SHA-1 (RFC 6238; what authenticator apps support)"


class Purpose(Struct, frozen=True):
    """One use of cryptography: with what, under which key, for what."""

    name: str
    algorithm: Algorithm
    key: str  # whose key: the file key's, or where the key itself is kept
    meaning: str


class Sealing(IntEnum):
    """The ciphers of version 2, by the byte that names them."""

    AES_256_GCM = 1
    SM4_GCM = 2


class ClearKey(Struct, frozen=True):
    """A sealing key in the clear. It stays in memory, and prints as its id."""

    id: UUID
    cipher: Sealing
    secret: bytes

    def __repr__(self) -> str:
        return f"ClearKey({self.id})"


class Place(Struct, frozen=True):
    """Where a sealed text is stored, which it opens at alone; ``tenant`` is empty of nobody's."""

    table: str
    column: str
    row: str
    tenant: str = ""

    @property
    def aad(self) -> bytes:
        """Return what is bound into the seal."""
        return bind(self.table, self.column, self.row, self.tenant)


_FILE_KEY: Final = "file key"
_SEALING_KEY: Final = "sealing key"

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
        Purpose("user_wallets.contact", Algorithm.AES_256_GCM, _FILE_KEY, "Phones to be proved."),
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
        Purpose("custody.account", Algorithm.HMAC_SHA_256, _FILE_KEY, "Our accounts at banks."),
        Purpose("split.receiver_mac", Algorithm.HMAC_SHA_256, _FILE_KEY, "Look-up of receivers."),
        Purpose("person.key", Algorithm.AES_256_GCM, _FILE_KEY, "A person's own keys."),
        Purpose("person.personal", Algorithm.AES_256_GCM, "person.key", "Who a person is."),
        Purpose("person.factor", Algorithm.AES_256_GCM, "person.key", "Secrets shared with them."),
        Purpose("person.blind", Algorithm.HMAC_SHA_256, _FILE_KEY, "Phones and ids, to be found."),
        Purpose("person.password", Algorithm.ARGON2ID, "none", "A person's password."),
        Purpose("person.session", Algorithm.HMAC_SHA_256, _FILE_KEY, "Look-up of their sessions."),
        Purpose("person.code", Algorithm.HMAC_SHA_256, _FILE_KEY, "Codes sent in messages."),
        Purpose(
            "login.source", Algorithm.HMAC_SHA_256, _FILE_KEY, "From where logins fail, counted."
        ),
        Purpose("person.request", Algorithm.ECDSA_P256, "none", "Requests of a person's phone."),
        Purpose("person.certificate", Algorithm.CERTIFICATE, "none", "Acts that people sign."),
        Purpose("developer.mail", Algorithm.AES_256_GCM, _FILE_KEY, "Developers' addresses."),
        Purpose("developer.session", Algorithm.HMAC_SHA_256, _FILE_KEY, "Look-up of theirs."),
        Purpose("dpop.nonce", Algorithm.HMAC_SHA_256, _FILE_KEY, "Nonces that partners sign."),
        Purpose("open_bank.signing", Algorithm.AES_256_GCM, _FILE_KEY, "What signs our answers."),
        Purpose("passkey", Algorithm.WEBAUTHN, "none", "Passkeys of people and operators."),
        Purpose("notification.text", Algorithm.AES_256_GCM, _FILE_KEY, "Messages on their way."),
        Purpose("parking.car", Algorithm.AES_256_GCM, _FILE_KEY, "Which car was where."),
        Purpose("combined.page", Algorithm.HMAC_SHA_256, _FILE_KEY, "Addresses of pages to pay."),
        Purpose("parking.blind", Algorithm.HMAC_SHA_256, _FILE_KEY, "The same visit again."),
        Purpose("refund.redirection", Algorithm.AES_256_GCM, _FILE_KEY, "Whose card gets it."),
        Purpose("refund.blind", Algorithm.HMAC_SHA_256, _FILE_KEY, "The same card again."),
        Purpose("cashier.payer", Algorithm.AES_256_GCM, _FILE_KEY, "Who is at a cashier's page."),
        Purpose("vault.card", Algorithm.GCM_UNDER_SEALING_KEY, _SEALING_KEY, "Card numbers."),
        Purpose(
            "vault.use_key", Algorithm.GCM_UNDER_SEALING_KEY, _SEALING_KEY, "Limited-use keys."
        ),
        Purpose("vault.fingerprint", Algorithm.HMAC_SHA_256, _SEALING_KEY, "The same card again."),
        Purpose("vault.cryptogram", Algorithm.HMAC_SHA_256, "vault.use_key", "One use of a token."),
        Purpose(
            "kms.sealing_key", Algorithm.AES_256_GCM, _FILE_KEY, "Sealing keys, where no HSM is."
        ),
        Purpose("kms.component", Algorithm.AES_256_GCM, _FILE_KEY, "Half of a new master key."),
        Purpose("kms.signing_seed", Algorithm.HMAC_SHA_256, _FILE_KEY, "Seed of what follows."),
        Purpose("kms.signing", Algorithm.ED25519, "kms.signing_seed", "Signed ceremonies."),
    )
}
"""The inventory. A purpose that is not here cannot be used."""


class Keyring:
    """The file key, and older ones that only open what they once sealed."""

    def __init__(self, keys: list[bytes], reread: Callable[[], list[bytes]] | None = None) -> None:
        self._reread = reread
        self._take(keys)

    def _take(self, keys: list[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError("a keyring needs keys of 32 bytes")
        self._keys = {_key_id(key): key for key in keys}
        self._oldest = keys[-1]
        self.primary_id = _key_id(keys[0])

    def __repr__(self) -> str:
        return f"Keyring(primary {self.primary_id.hex()}, {len(self._keys)} keys)"

    @classmethod
    def from_file(cls, path: Path, *, wrapping: Wrapping | None = None) -> Keyring:
        """Read the key file; make it, for its owner's eyes only, when there is none.

        One key in base64 per line: the first seals, all open. To rotate, add a line on top; a
        process that meets a text under a key it does not know reads the file again. ``wrapping`` is
        for lines that a security module has wrapped.

        Raises:
            KeyFileUnreadable
        """
        return cls(key_file.read_or_create(path, wrapping), partial(key_file.read, path, wrapping))

    @property
    def key_ids(self) -> list[str]:
        """Return the ids of all its keys, the one that seals first."""
        return [each.hex() for each in self._keys]

    def reread(self) -> None:
        """Take the keys that the file has by now.

        Raises:
            KeyFileUnreadable
        """
        if self._reread is not None:
            self._take(self._reread())

    def seal(self, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt a secret for storage; ``aad`` names where it is stored, see `bind`."""
        require(purpose, Algorithm.AES_256_GCM)
        head = _VERSION + self.primary_id
        key = self._keys[self.primary_id]
        return _seal(Sealing.AES_256_GCM, key, head, purpose, (plaintext, aad))

    def open(self, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt what `seal` made for the same purpose and place.

        Raises:
            SealUnreadable
        """
        require(purpose, Algorithm.AES_256_GCM)
        if len(sealed) < _HEAD_BYTES or sealed[:1] != _VERSION:
            raise SealUnreadable(purpose=purpose)
        if sealed[_KEY_ID] not in self._keys:
            self.reread()  # another process may have rotated the file key
        file_key = self._keys.get(sealed[_KEY_ID])
        if file_key is None:
            raise SealUnreadable(purpose=purpose)
        cipher = Sealing.AES_256_GCM
        return _open(cipher, file_key, _HEAD_BYTES, purpose, (sealed, aad))

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether the first key sealed it; if not, it should be sealed anew."""
        return sealed[_KEY_ID] == self.primary_id

    def mac_key(self, purpose: str) -> bytes:
        """Return the HMAC key of a purpose that the file key itself serves.

        It comes from the oldest key: what is looked up by it is found after a rotation too.
        """
        found = require(purpose, Algorithm.HMAC_SHA_256)
        if found.key != _FILE_KEY:
            raise ValueError(f"the key of {purpose} is kept elsewhere: {found.key}")
        return _derive(self._oldest, b"mac", purpose.encode())


def seal_under(key: ClearKey, purpose: str, plaintext: bytes, place: Place) -> bytes:
    """Encrypt a text for storage under a sealing key."""
    require(purpose, Algorithm.GCM_UNDER_SEALING_KEY)
    head = _VERSION_2 + bytes([key.cipher]) + key.id.bytes
    return _seal(key.cipher, key.secret, head, purpose, (plaintext, place.aad))


def open_under(key: ClearKey, purpose: str, sealed: bytes, place: Place) -> bytes:
    """Decrypt what `seal_under` made under the same key for the same purpose and place.

    Raises:
        SealUnreadable
    """
    require(purpose, Algorithm.GCM_UNDER_SEALING_KEY)
    if sealing_key_of(sealed) != key.id or sealed[1] != key.cipher:
        raise SealUnreadable(purpose=purpose)
    return _open(key.cipher, key.secret, _HEAD_2_BYTES, purpose, (sealed, place.aad))


def sealing_key_of(sealed: bytes) -> UUID | None:
    """Return the id of the sealing key that a text was sealed under; None when under none."""
    if len(sealed) < _HEAD_2_BYTES or sealed[:1] != _VERSION_2:
        return None
    return UUID(bytes=sealed[2:_HEAD_2_BYTES])


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
    # The library's own form of it takes both in one; their lengths say where one ends.
    if len(public_key) != _ED25519_KEY_BYTES or len(signature) != _ED25519_SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def sm4_gcm_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Return ciphertext and tag by SM4 (GB/T 32907) with 16 bytes of key and 12 of nonce."""
    encryptor = Cipher(SM4(key), GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(aad)
    return encryptor.update(plaintext) + encryptor.finalize() + encryptor.tag


def sm4_gcm_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
    """Return the plaintext, or None when anything at all does not match."""
    text, tag = ciphertext[:-_TAG_BYTES], ciphertext[-_TAG_BYTES:]
    if len(tag) != _TAG_BYTES:
        return None
    decryptor = Cipher(SM4(key), GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(aad)
    try:
        return decryptor.update(text) + decryptor.finalize()
    except InvalidTag:
        return None


def _seal(
    cipher: Sealing, key: bytes, head: bytes, purpose: str, what: tuple[bytes, bytes]
) -> bytes:
    """Seal ``what`` (a text, and its place) under a key; ``head`` says which key that is."""
    (plaintext, aad), salt = what, os.urandom(_SALT_BYTES)
    record, commitment = _record_key(cipher, key, purpose, salt)
    header = head + salt + commitment
    encrypt = aes_256_gcm_encrypt if cipher is Sealing.AES_256_GCM else sm4_gcm_encrypt
    return header + encrypt(record, _NONCE, plaintext, bind(header, aad))


def _open(
    cipher: Sealing, key: bytes, head_bytes: int, purpose: str, what: tuple[bytes, bytes]
) -> bytes:
    """Open ``what`` (a sealed text, and its place).

    Raises:
        SealUnreadable
    """
    sealed, aad = what
    header_bytes = head_bytes + _SALT_BYTES + _COMMITMENT_BYTES
    if len(sealed) < header_bytes + _TAG_BYTES:
        raise SealUnreadable(purpose=purpose)
    header, ciphertext = sealed[:header_bytes], sealed[header_bytes:]
    salt = header[head_bytes : head_bytes + _SALT_BYTES]
    record, commitment = _record_key(cipher, key, purpose, salt)
    if not constant_time_equal(commitment, header[-_COMMITMENT_BYTES:]):
        raise SealUnreadable(purpose=purpose)
    decrypt = aes_256_gcm_decrypt if cipher is Sealing.AES_256_GCM else sm4_gcm_decrypt
    plaintext = decrypt(record, _NONCE, ciphertext, bind(header, aad))
    if plaintext is None:
        raise SealUnreadable(purpose=purpose)
    return plaintext


def _record_key(cipher: Sealing, key: bytes, purpose: str, salt: bytes) -> tuple[bytes, bytes]:
    """Return the key of one sealed text and its commitment."""
    purpose_key = _derive(key, b"seal", purpose.encode())
    size, label = (
        (KEY_BYTES, b"tongbao record v1")
        if cipher is Sealing.AES_256_GCM
        else (_SM4_KEY_BYTES, b"tongbao record sm4")
    )
    both = HKDFExpand(SHA256(), size + _COMMITMENT_BYTES, label + salt).derive(purpose_key)
    return both[:size], both[size:]


def _derive(file_key: bytes, use: bytes, label: bytes) -> bytes:
    name = bind(b"tongbao v1", use, label)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=name).derive(file_key)


def _key_id(file_key: bytes) -> bytes:
    return _derive(file_key, b"key id", b"")[:4]


def require(purpose: str, algorithm: Algorithm) -> Purpose:
    """Return a purpose of the registry; one that is not there, or for something else, is a bug."""
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
