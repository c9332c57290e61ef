"""Splits: shares of your payments for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NotRequired, TypedDict, Unpack, cast

from tongbao_sdk.replies import (
    PaymentShares,
    Receiver,
    Split,
    SplitReturn,
    UnsplitMoney,
)
from tongbao_sdk.transport import Once, Transport, path_of

ReceiverKind = Literal["merchant", "wallet", "channel"]
Releases = Literal["now", "at", "later"]


class Part(TypedDict):
    """What a receiver is to get: an amount, or a ratio in millionths of what came in."""

    receiver_id: str
    amount: NotRequired[int | None]
    ratio_ppm: NotRequired[int | None]


class Splits:
    """Share payments with others."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def bind(
        self,
        *,
        kind: ReceiverKind,
        account: str,
        channel: str | None = None,
        channel_kind: str | None = None,
        name: str | None = None,
        relation: str | None = None,
        **once: Unpack[Once],
    ) -> Receiver:
        """Let somebody have shares: a merchant or wallet here, or who a channel knows.

        Raises:
            Refused, Unanswered
        """
        body = {
            "kind": kind,
            "account": account,
            "channel": channel,
            "channel_kind": channel_kind,
            "name": name,
            "relation": relation,
        }
        return cast("Receiver", self._transport.post(path_of("split_receivers"), body, **once))

    def unbind(self, receiver_id: str, **once: Unpack[Once]) -> Receiver:
        """Let a receiver have no more shares."""
        path = path_of("split_receivers", receiver_id, "unbind")
        return cast("Receiver", self._transport.post(path, **once))

    def receivers(self, *, limit: int = 100) -> Iterator[Receiver]:
        """Yield your receivers, newest first."""
        return self._transport.pages(path_of("split_receivers"), limit=limit)

    def create(
        self,
        payment_id: str,
        *,
        merchant_split_no: str,
        shares: Sequence[Part],
        releases: Releases | None = None,
        release_at: str | None = None,
        **once: Unpack[Once],
    ) -> Split:
        """Share a payment: now, on a day, or when you release it.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_split_no": merchant_split_no,
            "shares": list(shares),
            "releases": releases,
            "release_at": release_at,
        }
        path = path_of("payments", payment_id, "splits")
        return cast("Split", self._transport.post(path, body, **once))

    def finish(self, payment_id: str, *, merchant_split_no: str, **once: Unpack[Once]) -> Split:
        """Say that no more shares of a payment follow."""
        path = path_of("payments", payment_id, "finish_splits")
        body = {"merchant_split_no": merchant_split_no}
        return cast("Split", self._transport.post(path, body, **once))

    def of_payment(self, payment_id: str) -> PaymentShares:
        """Return everything shared of a payment, and what came back."""
        path = path_of("payments", payment_id, "splits")
        return cast("PaymentShares", self._transport.get(path))

    def unsplit(self, payment_id: str) -> UnsplitMoney:
        """Ask the channel how much of a payment may still be shared."""
        path = path_of("payments", payment_id, "unsplit_money")
        return cast("UnsplitMoney", self._transport.post(path))

    def get(self, split_id: str) -> Split:
        """Return one split."""
        return cast("Split", self._transport.get(path_of("splits", split_id)))

    def release(self, split_id: str, **once: Unpack[Once]) -> Split:
        """Give the shares of a split that is held."""
        path = path_of("splits", split_id, "release")
        return cast("Split", self._transport.post(path, **once))

    def cancel(self, split_id: str, **once: Unpack[Once]) -> Split:
        """Call off a split that is held."""
        path = path_of("splits", split_id, "cancel")
        return cast("Split", self._transport.post(path, **once))

    def give_back(
        self,
        split_id: str,
        *,
        receiver_id: str,
        amount: int,
        merchant_return_no: str,
        **once: Unpack[Once],
    ) -> SplitReturn:
        """Take a share back from its receiver, in part or in full."""
        body = {
            "receiver_id": receiver_id,
            "amount": amount,
            "merchant_return_no": merchant_return_no,
        }
        path = path_of("splits", split_id, "returns")
        return cast("SplitReturn", self._transport.post(path, body, **once))
