"""The card host's own keys, MACs and PIN blocks; shares nothing with the platform's."""

from __future__ import annotations

import secrets

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import SM4

from tongbao_sandbox.seam import Keys


def make_keys() -> Keys:
    """Return the credentials of a fresh acquirer's customer: a terminal and its master key."""
    return Keys(
        shown={
            "merchant_number": "898110000000001",
            "terminal": "10000001",
            "institution": "48021000",
            "switch": "00010000",
            "master_key": _odd(secrets.token_bytes(16)).hex().upper(),
            "cipher": "3des",
            "mac": "ecb",
        },
        kept={"pin_key": _odd(secrets.token_bytes(16)).hex().upper()},
    )


class Sealing:
    """One customer's way with keys: 3DES or SM4, and which MAC."""

    def __init__(self, cipher: str, mac: str) -> None:
        self.is_sm4 = cipher == "sm4"
        self.mac_name = mac
        self.block = 16 if self.is_sm4 else 8

    def new_key(self) -> bytes:
        """Return a fresh working key."""
        key = secrets.token_bytes(16)
        return key if self.is_sm4 else _odd(key)

    def wrapped(self, master: bytes, key: bytes) -> bytes:
        """Return the key under the master key, and its check value behind it."""
        check = self.encrypt(key, bytes(self.block))[: 8 if self.is_sm4 else 4]
        return self.encrypt(master, key) + check

    def mac(self, key: bytes, text: bytes) -> bytes:
        """Return the MAC of a message's bytes."""
        text += bytes(-len(text) % self.block)
        if self.mac_name == "x9.19":
            return self._retail(key, text)
        folded = 0
        for at in range(0, len(text), self.block):
            folded ^= int.from_bytes(text[at : at + self.block], "big")
        halves = f"{folded:0{self.block * 2}X}".encode()
        once = self.encrypt(key, halves[: self.block])
        mixed = int.from_bytes(once, "big") ^ int.from_bytes(halves[self.block :], "big")
        return self.encrypt(key, mixed.to_bytes(self.block, "big")).hex().upper()[:8].encode()

    def _retail(self, key: bytes, text: bytes) -> bytes:
        """CBC with the left half of the key, then once back with the right and on with the left."""
        chain = Cipher(_des(key[:8] * 3), modes.CBC(bytes(8))).encryptor()
        last = chain.update(text)[-8:]
        back = Cipher(_des(key[8:] * 3), modes.ECB()).decryptor().update(last)  # noqa: S305
        return Cipher(_des(key[:8] * 3), modes.ECB()).encryptor().update(back)  # noqa: S305

    def encrypt(self, key: bytes, text: bytes) -> bytes:
        """Return whole blocks encrypted one by one."""
        return self._ecb(key).encryptor().update(text)

    def decrypt(self, key: bytes, text: bytes) -> bytes:
        """Return whole blocks decrypted one by one."""
        return self._ecb(key).decryptor().update(text)

    def _ecb(self, key: bytes) -> Cipher[modes.ECB]:
        return Cipher(SM4(key) if self.is_sm4 else _des(key + key[:8]), modes.ECB())  # noqa: S305


def pin_block(pin: str, card_number: str) -> bytes:
    """Return the clear PIN block bound to the card: ANSI X9.8, ISO 9564-1 format 0."""
    typed = f"{len(pin):02d}{pin}".ljust(16, "F")
    account = "0000" + card_number[-13:-1].rjust(12, "0")
    return (int(typed, 16) ^ int(account, 16)).to_bytes(8, "big")


def encrypted_pin(pin_key: bytes, pin: str, card_number: str) -> bytes:
    """Return the PIN block as a terminal's PIN pad sends it."""
    return Sealing("3des", "ecb").encrypt(pin_key, pin_block(pin, card_number))


def _des(key: bytes) -> TripleDES:
    return TripleDES(key)


def _odd(key: bytes) -> bytes:
    """Return the key with the odd parity DES keys are handed out with."""
    return bytes(byte & 0xFE | (1 - (byte >> 1).bit_count() % 2) for byte in key)
