"""Cards that are kept, and the tokens that stand for them. A whole number goes in and never out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypedDict, Unpack, cast

from tongbao_sdk.replies import (
    CardToken,
    CardTokenKey,
    VaultCard,
)
from tongbao_sdk.transport import Once, Transport, path_of

TokenKind = Literal["card_on_file", "device"]
TokenStatus = Literal["requested", "active", "suspended", "deleted", "replaced"]


class NewTokenControls(TypedDict, total=False):
    """Where a token shall be good; what is left out is not limited."""

    channels: list[str]
    pay_modes: list[str]
    currency: str
    amount_each_max: int
    amount_max: int
    uses_max: int


class VaultCards:
    """The cards that the merchant keeps in the vault."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def save(self, number: str, expiry: str) -> VaultCard:
        """Keep a card (``expiry`` is YYMM); the same number again is the same card."""
        body = {"number": number, "expiry": expiry}
        return cast("VaultCard", self._transport.post(path_of("vault", "cards"), body))

    def list(self, *, limit: int = 100) -> Iterator[VaultCard]:
        """Yield the cards, newest first, those deleted too."""
        return self._transport.pages(path_of("vault", "cards"), limit=limit)

    def get(self, card_id: str) -> VaultCard:
        """Return one card."""
        return cast("VaultCard", self._transport.get(path_of("vault", "cards", card_id)))

    def reissue(self, card_id: str, number: str, expiry: str) -> VaultCard:
        """Take the number of the card that came in place of this one; its tokens go on."""
        body = {"number": number, "expiry": expiry}
        path = path_of("vault", "cards", card_id, "reissue")
        return cast("VaultCard", self._transport.post(path, body))

    def delete(self, card_id: str) -> VaultCard:
        """Forget a card's number and end its tokens."""
        path = path_of("vault", "cards", card_id, "delete")
        return cast("VaultCard", self._transport.post(path))

    def ask_for_token(
        self,
        card_id: str,
        *,
        expires_at: str,
        kind: TokenKind = "card_on_file",
        controls: NewTokenControls | None = None,
        **once: Unpack[Once],
    ) -> CardToken:
        """Ask for a token that stands for the card. It pays once it is activated."""
        body: dict[str, object] = {"expires_at": expires_at, "kind": kind}
        if controls is not None:
            body["controls"] = controls
        path = path_of("vault", "cards", card_id, "tokens")
        return cast("CardToken", self._transport.post(path, body, **once))


class CardTokens:
    """The tokens that stand for the merchant's cards."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, card_id: str | None = None, limit: int = 100) -> Iterator[CardToken]:
        """Yield the tokens, newest first, those of one card where it is named."""
        return self._transport.pages(path_of("card_tokens"), limit=limit, card_id=card_id)

    def get(self, token_id: str) -> CardToken:
        """Return one token, and how much of its limits is used."""
        return cast("CardToken", self._transport.get(path_of("card_tokens", token_id)))

    def activate(self, token_id: str, *, assurance_method: str = "00") -> CardToken:
        """Let a token pay, and say how the card's holder was verified (EMV, two digits)."""
        body = {"assurance_method": assurance_method}
        path = path_of("card_tokens", token_id, "activate")
        return cast("CardToken", self._transport.post(path, body))

    def suspend(self, token_id: str) -> CardToken:
        """Let a token pay nothing for now."""
        return self._move(token_id, "suspend")

    def resume(self, token_id: str) -> CardToken:
        """Let a suspended token pay again."""
        return self._move(token_id, "resume")

    def delete(self, token_id: str) -> CardToken:
        """End a token for good."""
        return self._move(token_id, "delete")

    def replace(self, token_id: str, **once: Unpack[Once]) -> CardToken:
        """Give a token another number, and end this one."""
        path = path_of("card_tokens", token_id, "replace")
        return cast("CardToken", self._transport.post(path, **once))

    def give_key(
        self,
        token_id: str,
        *,
        uses_max: int = 10,
        refill_at: int = 3,
        **once: Unpack[Once],
    ) -> CardTokenKey:
        """Give the token's device its next limited-use key; its secret is in this answer only."""
        body = {"uses_max": uses_max, "refill_at": refill_at}
        path = path_of("card_tokens", token_id, "keys")
        return cast("CardTokenKey", self._transport.post(path, body, **once))

    def _move(self, token_id: str, what: str) -> CardToken:
        return cast("CardToken", self._transport.post(path_of("card_tokens", token_id, what)))
