"""The keys of an account at WeChat Pay, and whose account it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

Scheme = Literal["RSA", "SM2"]
"""RSA-SHA256 with AES-256-GCM, or the Chinese algorithms: SM2 with SM3, and SM4-GCM."""


class Partner(Struct, frozen=True, forbid_unknown_fields=True):
    """The service provider (服务商) who calls for a sub-merchant (特约商户).

    The account's merchant number is then the sub-merchant's, and its app the one the customer
    meets: ``sub_appid``, or the provider's own where the sub-merchant has none. All keys are the
    provider's.
    """

    sp_mchid: str
    sp_appid: str
    sub_appid: str = ""


class WechatPaySecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """What only we and WeChat Pay know, and the keys WeChat Pay signs with.

    ``platform_keys`` maps a serial (or ``PUB_KEY_ID_…``) to a PEM: a platform certificate or a
    public key. With ``public_key_id`` the account is in public-key mode; without it, platform
    certificates are fetched when an unknown serial appears. While WeChat Pay moves an account from
    one to the other, both are held. ``app_ids`` are further apps bound to the merchant number.
    With ``profit_sharing`` every order is placed so that it may be split, and its money stays
    frozen until the split that finishes it, or `unfreeze`. ``app_secret`` is needed by the hosted
    cashier inside WeChat only.
    """

    api_v3_key: str
    merchant_serial: str  # of the merchant API certificate
    merchant_private_key_pem: str
    platform_keys: Mapping[str, str] = field(default_factory=dict)
    public_key_id: str = ""
    partner: Partner | None = None
    app_ids: frozenset[str] = frozenset()
    scheme: Scheme = "RSA"
    profit_sharing: bool = False
    app_secret: str = ""  # of the official account, so that a page in WeChat learns who is there

    def __post_init__(self) -> None:
        if len(self.api_v3_key.encode()) != 32:
            raise ValueError("the APIv3 key has 32 bytes")
        if self.public_key_id and self.public_key_id not in self.platform_keys:
            raise ValueError("platform_keys holds no key of this public_key_id")

    def __repr__(self) -> str:
        return "WechatPaySecrets(***)"
