"""What an account at a bank that exchanges files is opened with."""

from __future__ import annotations

from msgspec import Struct


class BankFilesSecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """Our account there. There is no key: whoever may write into the folder is the bank.

    ``folder`` is an absolute path on this machine. Whatever carries files to and from the bank
    takes orders from ``out``, moves them to ``sent``, and leaves notices in ``in``.
    """

    folder: str
    debtor_name: str
    debtor_account: str
    debtor_bank: str  # clearing number (联行号), 12 digits

    def __post_init__(self) -> None:
        """Refuse a folder that is no absolute path, and an account that is none."""
        if not self.folder.startswith("/") or not self.debtor_account:
            raise ValueError("an absolute folder and an account number, please")

    def __repr__(self) -> str:
        return "BankFilesSecrets(***)"
