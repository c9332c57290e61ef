"""The keys of an application at Alipay."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class AlipaySecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """Our private key and what Alipay signs with; with ``app_certificate_pem``, certificate mode.

    In certificate mode ``alipay_public_key_pem`` is Alipay's certificate; newer ones are fetched by
    themselves and believed when they lead to ``root_certificates_pem``. ``protocol`` chooses
    between the gateway's form protocol and the REST one. With ``app_auth_token`` the application is
    a service provider's, acting for the merchant who gave it that token. With ``profit_sharing``
    every order is placed with ``royalty_freeze``: what is paid stays frozen until the split that
    finishes it, or `unfreeze`.
    """

    app_private_key_pem: str
    alipay_public_key_pem: str  # a public key or a certificate
    app_certificate_pem: str = ""
    root_certificates_pem: str = ""
    protocol: Literal["v1", "v3"] = "v1"
    app_auth_token: str = ""
    profit_sharing: bool = False
    sub_merchant: str = ""  # every order is for this one (二级商户), taken on below us

    def __post_init__(self) -> None:
        if bool(self.app_certificate_pem) != bool(self.root_certificates_pem):
            raise ValueError("certificate mode needs our certificate and Alipay's root ones")
        if self.app_certificate_pem and "CERTIFICATE" not in self.alipay_public_key_pem:
            raise ValueError("certificate mode needs Alipay's certificate, not its bare key")

    def __repr__(self) -> str:
        return "AlipaySecrets(***)"
