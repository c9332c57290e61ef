"""What every act on a red packet needs, where its money lies, and the event of its end."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from tongbao.infra.db import Db
from tongbao.infra.outbox import Event
from tongbao.kernel.ids import show
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey
from tongbao.products.red_packets.model import RedPacket, RedPacketView, view_red_packet

MOVED_ON: Final = "red_packet.moved_on"
"""The red packet's row was not as it was when its parts were counted out."""


class Hall(Struct, frozen=True):
    """The database and the ledger of one process."""

    db: Db
    ledger: Ledger


class RedPacketEnded(Event, frozen=True, kw_only=True, tag="red_packet.ended"):
    """Every part was taken, or the time was over and the rest went back to the sender."""

    object: RedPacketView


def pot_of(packet: RedPacket) -> AccountKey:
    """Return the ledger account that holds what nobody took so far."""
    return AccountKey("subsidy", packet.currency, packet.id)


def ended_event(packet: RedPacket) -> RedPacketEnded:
    """Return the event that tells of a red packet's end."""
    return RedPacketEnded(
        merchant_id=packet.merchant_id,
        mode=packet.mode,
        resource_id=show("rpk", packet.id),
        object=view_red_packet(packet),
    )
