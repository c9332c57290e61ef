"""What an account at the bank is opened with; its messages are `kernel.codecs.iso20022`."""

from __future__ import annotations

from msgspec import Struct


class BankSecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """What we need to act at the bank: our token there and the account that pays."""

    token: str
    debtor_name: str
    debtor_account: str
    debtor_bank: str  # clearing number (联行号), 12 digits

    def __repr__(self) -> str:
        return "BankSecrets(***)"
