"""The keys of a merchant at UnionPay."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class UnionPaySecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """Certificates and our private key (``01``), or one shared key (``11`` SHA-256, ``12`` SM3).

    ``business_code`` and ``terminal`` are of an account that collects dues: UnionPay's number of
    the biller and the kind of bill (bussCode), and what it registered of the terminal (termInfo).

    One account uses one method, and answers signed by another are refused: who could choose the
    weaker one would. Out of merchant.pfx come the private key and the certificate; UnionPay gives
    out its root (acp_root.cer) and its middle certificate (acp_middle.cer).
    """

    sign_method: Literal["01", "11", "12"] = "01"
    merchant_private_key_pem: str = ""
    merchant_certificate_pem: str = ""
    root_certificate_pem: str = ""
    middle_certificate_pem: str = ""
    secure_key: str = ""
    business_code: str = ""
    terminal: str = ""

    def __post_init__(self) -> None:
        """Refuse keys that are not those of the method."""
        pems = (
            self.merchant_private_key_pem,
            self.merchant_certificate_pem,
            self.root_certificate_pem,
            self.middle_certificate_pem,
        )
        if self.sign_method == "01" and not all(pems):
            raise ValueError("signMethod 01 needs the private key and three certificates")
        if self.sign_method != "01" and not self.secure_key:
            raise ValueError("signMethod 11 and 12 need the secure key")

    def __repr__(self) -> str:
        return "UnionPaySecrets(***)"
