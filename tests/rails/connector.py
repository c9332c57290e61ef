"""A channel that `tongbao new-channel` began, as the suite of connectors meets it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any
from uuid import UUID

from msgspec import Struct

import tests.rails.connectors
from tests.rails.peers import PEERS, Peer
from tongbao.kernel.licence import Mode
from tongbao.rails.channels.contract.orders import ChannelAccount


class Connector(Struct, frozen=True):
    """How to make the channel, and which of its calls are built."""

    name: str
    make: Callable[..., Any]  # from an HttpClient
    secrets: Any
    built: frozenset[str]
    merchant_number: str = "M1"
    peer: Peer | None = None  # who plays the other side, for the rest of the contract suite

    def account(self, gateway: str) -> ChannelAccount:
        return ChannelAccount(
            id=UUID(int=9),
            channel=self.name,
            mode=Mode.SANDBOX,
            gateway=gateway,
            merchant_number=self.merchant_number,
            app_id="A1",
            notify_url="https://pay.example/callbacks/t",
            fee_ppm=0,
            secrets=self.secrets,
        )


def connectors() -> dict[str, Connector]:
    """Every registration in tests/rails/connectors/, by name."""
    found = {}
    for module in pkgutil.iter_modules(tests.rails.connectors.__path__):
        made = importlib.import_module(f"tests.rails.connectors.{module.name}").CONNECTOR
        found[made.name] = made
    return found


def every_peer() -> dict[str, Peer]:
    """Whoever plays the other side of a channel, by the channel's name."""
    begun = {name: each.peer for name, each in connectors().items() if each.peer is not None}
    return PEERS | begun
