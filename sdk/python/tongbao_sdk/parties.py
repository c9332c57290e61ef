"""The merchant itself, its API keys, and the wallets it opens for its own users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack, cast

from tongbao_sdk.replies import (
    ApiKey,
    OfflineKey,
    PaymentCode,
    TopUp,
    Wallet,
    WalletAgreement,
    WalletQr,
)
from tongbao_sdk.transport import Once, Transport, path_of


class ApiKeys:
    """The merchant's keys of this mode."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 100) -> Iterator[ApiKey]:
        """Yield the keys, newest first, without their secrets."""
        return self._transport.pages(path_of("api_keys"), limit=limit)

    def get(self, key_id: str) -> ApiKey:
        """Return one key, without its secret."""
        return cast("ApiKey", self._transport.get(path_of("api_keys", key_id)))

    def roll(
        self,
        key_id: str,
        *,
        overlap_s: int = 86_400,
        public_key: str | None = None,
        **once: Unpack[Once],
    ) -> ApiKey:
        """Replace a key by one with the same scopes; until the overlap ends both are good.

        The reply shows the new secret once. When it is lost, roll the key again. With the PEM of a
        ``public_key``, requests with the new key are signed by the private half of it.
        """
        path = path_of("api_keys", key_id, "roll")
        body = {"overlap_s": overlap_s, "public_key": public_key}
        return cast("ApiKey", self._transport.post(path, body, **once))

    def revoke(self, key_id: str) -> ApiKey:
        """End a key at once."""
        return cast("ApiKey", self._transport.post(path_of("api_keys", key_id, "revoke")))


class Wallets:
    """Wallets, where the platform is licensed to keep them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def open(self, *, holder_name: str, currency: str = "CNY", **once: Unpack[Once]) -> Wallet:
        """Open a wallet for a person; of the name only the last character is kept."""
        body = {"holder_name": holder_name, "currency": currency}
        return cast("Wallet", self._transport.post(path_of("wallets"), body, **once))

    def list(self, *, limit: int = 100) -> Iterator[Wallet]:
        """Yield the wallets, newest first."""
        return self._transport.pages(path_of("wallets"), limit=limit)

    def get(self, wallet_id: str) -> Wallet:
        """Return one wallet with its balance."""
        return cast("Wallet", self._transport.get(path_of("wallets", wallet_id)))

    def payment_code(self, wallet_id: str) -> PaymentCode:
        """Return a new one-time code the wallet's holder shows at the counter."""
        path = path_of("wallets", wallet_id, "payment_codes")
        return cast("PaymentCode", self._transport.post(path))

    def scan(self, wallet_id: str, code: str) -> WalletQr:
        """Return what a merchant's code asks for, to be shown before the holder confirms."""
        path = path_of("wallets", wallet_id, "scans")
        return cast("WalletQr", self._transport.post(path, {"code": code}))

    def pay(self, wallet_id: str, code: str, **once: Unpack[Once]) -> WalletQr:
        """Pay a merchant's code from the wallet; a refusal leaves the code payable."""
        path = path_of("wallets", wallet_id, "payments")
        return cast("WalletQr", self._transport.post(path, {"code": code}, **once))

    def scan_agreement(self, wallet_id: str, code: str) -> WalletAgreement:
        """Return what an agreement would allow, to be shown before the holder signs."""
        path = path_of("wallets", wallet_id, "agreement_scans")
        return cast("WalletAgreement", self._transport.post(path, {"code": code}))

    def sign(self, wallet_id: str, code: str, **once: Unpack[Once]) -> WalletAgreement:
        """Sign an agreement: its merchant takes money within its limits until one ends it."""
        path = path_of("wallets", wallet_id, "agreements")
        return cast("WalletAgreement", self._transport.post(path, {"code": code}, **once))

    def end_agreement(self, agreement_id: str, **once: Unpack[Once]) -> WalletAgreement:
        """End an agreement that a wallet has signed, for its holder."""
        path = path_of("wallet_agreements", agreement_id, "end")
        return cast("WalletAgreement", self._transport.post(path, **once))

    def give_offline_key(
        self,
        wallet_id: str,
        *,
        device_name: str,
        replaces: str | None = None,
        **once: Unpack[Once],
    ) -> OfflineKey:
        """Return a key with which the holder's phone makes codes without network, for a day.

        The reply shows its secret once: hand it to the phone, where `offline_codes.OfflineWallet`
        or its like works with it, and keep no copy. ``replaces`` is the phone's key so far.
        """
        path = path_of("wallets", wallet_id, "offline_keys")
        body = {"device_name": device_name, "replaces": replaces}
        return cast("OfflineKey", self._transport.post(path, body, **once))

    def offline_keys(self, wallet_id: str, *, limit: int = 100) -> Iterator[OfflineKey]:
        """Yield the wallet's keys for codes without network, newest first, without secrets."""
        return self._transport.pages(path_of("wallets", wallet_id, "offline_keys"), limit=limit)

    def revoke_offline_key(self, key_id: str) -> OfflineKey:
        """End a key at once: its codes pay no more."""
        path = path_of("offline_keys", key_id, "revoke")
        return cast("OfflineKey", self._transport.post(path))

    def freeze(self, wallet_id: str) -> Wallet:
        """Stop spending from a wallet; money may still come back to it."""
        return cast("Wallet", self._transport.post(path_of("wallets", wallet_id, "freeze")))

    def unfreeze(self, wallet_id: str) -> Wallet:
        """Let a wallet spend again."""
        return cast("Wallet", self._transport.post(path_of("wallets", wallet_id, "unfreeze")))

    def top_up(
        self, wallet_id: str, *, amount: int, currency: str = "CNY", **once: Unpack[Once]
    ) -> TopUp:
        """Put test money into a sandbox wallet."""
        path = path_of("test_helpers", "wallets", wallet_id, "top_up")
        body = {"amount": amount, "currency": currency}
        return cast("TopUp", self._transport.post(path, body, **once))
