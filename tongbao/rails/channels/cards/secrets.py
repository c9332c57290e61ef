"""The keys of an account at a card host, and how that host wants them used."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

Cipher = Literal["3des", "sm4"]
MacScheme = Literal["ecb", "x9.19"]

_KEY_BYTES: Final = 16


class CardSecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """What we and the host know: the terminal master key, and each other's institution numbers.

    The account's ``merchant_number`` is field 42 and its ``app_id`` the terminal of field 41.
    """

    master_key: str  # TMK, 32 hex digits; the working keys come encrypted under it
    institution: str  # ours as the acquirer, field 32: 8 to 11 digits
    switch: str  # the host's, for the header: 8 to 11 digits
    cipher: Cipher = "3des"
    mac: MacScheme = "ecb"
    category: str = "5999"  # merchant category code, field 18
    batch: str = "000001"  # field 60.2 of sign-in and settlement

    def __post_init__(self) -> None:
        if len(bytes.fromhex(self.master_key)) != _KEY_BYTES:
            raise ValueError("the master key has 16 bytes")
        for name, digits, shortest, longest in (
            ("institution", self.institution, 8, 11),
            ("switch", self.switch, 8, 11),
            ("category", self.category, 4, 4),
            ("batch", self.batch, 6, 6),
        ):
            is_number = digits.isascii() and digits.isdigit()
            if not is_number or not shortest <= len(digits) <= longest:
                raise ValueError(f"{name} has {shortest} to {longest} digits")
        if self.cipher == "sm4" and self.mac != "ecb":
            raise ValueError("X9.19 is a MAC of DES; SM4 goes with ecb")

    def __repr__(self) -> str:
        return "CardSecrets(***)"
