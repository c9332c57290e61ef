"""Red packets: money for a group of people, taken by whoever is quick."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Unpack, cast

from tongbao_sdk.replies import (
    Grab,
    GrabAnswer,
    RedPacket,
)
from tongbao_sdk.transport import Once, Transport, path_of

RedPacketKind = Literal["equal", "lucky"]


class RedPackets:
    """Send red packets and take of them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(
        self,
        wallet_id: str,
        *,
        kind: RedPacketKind,
        amount: int,
        parts: int,
        currency: str = "CNY",
        greeting: str = "",
        expires_in_s: int | None = None,
        **once: Unpack[Once],
    ) -> RedPacket:
        """Put ``amount`` minor units of a wallet aside for so many people.

        Raises:
            Refused, Unanswered
        """
        body = {
            "wallet_id": wallet_id,
            "kind": kind,
            "amount": amount,
            "parts": parts,
            "currency": currency,
            "greeting": greeting,
            "expires_in_s": expires_in_s,
        }
        return cast("RedPacket", self._transport.post(path_of("red_packets"), body, **once))

    def get(self, red_packet_id: str) -> RedPacket:
        """Return one red packet."""
        return cast("RedPacket", self._transport.get(path_of("red_packets", red_packet_id)))

    def list(self, *, wallet_id: str | None = None, limit: int = 100) -> Iterator[RedPacket]:
        """Yield red packets, newest first; those one wallet sent, with ``wallet_id``."""
        return self._transport.pages(path_of("red_packets"), wallet_id=wallet_id, limit=limit)

    def grab(self, red_packet_id: str, wallet_id: str) -> GrabAnswer:
        """Take a part for a wallet; once more returns the same part.

        Raises:
            Refused, Unanswered
        """
        path = path_of("red_packets", red_packet_id, "grabs")
        return cast("GrabAnswer", self._transport.post(path, {"wallet_id": wallet_id}))

    def grabs(self, red_packet_id: str, *, limit: int = 100) -> Iterator[Grab]:
        """Yield who took which part, in the order they came."""
        return self._transport.pages(path_of("red_packets", red_packet_id, "grabs"), limit=limit)

    def received(self, wallet_id: str, *, limit: int = 100) -> Iterator[Grab]:
        """Yield the parts that a wallet took, newest first."""
        return self._transport.pages(path_of("wallets", wallet_id, "red_packet_grabs"), limit=limit)
