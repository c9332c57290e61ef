"""The seam between the core and a channel: what each gives the other.

The core owns the socket, the memory, the clock, the faults, the delivery of callbacks and the
control API. A channel is an object with the methods of `Channel`; `__main__` lists the classes.
Handlers are plain functions inside one transaction: they never wait. How an answer misbehaves on
the wire (late, never, reset) is part of the `Reply`, and the core acts it out after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from tongbao_sandbox.clock import VirtualClock
from tongbao_sandbox.faults import Faults
from tongbao_sandbox.model import Callback, PaymentCode, Trade
from tongbao_sandbox.state import State


class Request(Struct, frozen=True):
    """One HTTP request, as it came. ``path`` has lost the channel's prefix."""

    method: str
    path: str  # raw, undecoded: /v3/pay/…
    query: str  # raw, undecoded, without the question mark
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    prefix: str  # what the path lost: /wechat

    @property
    def target(self) -> str:
        """The path and query a client signs, without the prefix."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def origin(self) -> str:
        """The address the client used, with the prefix: the start of every link we hand out."""
        return f"http://{self.headers.get('host', '127.0.0.1')}{self.prefix}"


class Reply(Struct, frozen=True):
    """What goes back, byte for byte, and how the wire treats it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    ending: Literal["answer", "hold", "reset"] = "answer"  # hold: never answer, close at last
    delay_s: float = 0.0  # real seconds


class Outgoing(Struct, frozen=True):
    """One callback as it goes out: signed for this very try."""

    headers: tuple[tuple[str, str], ...]
    body: bytes


class Keys(Struct, frozen=True):
    """A channel's key material: what a merchant is given, and what only the sandbox knows."""

    shown: dict[str, str]
    kept: dict[str, str]


class Refused(Exception):
    """A control request that makes no sense; answered 400 with this text."""


class Courier(Protocol):
    """Takes notifications and sees to their delivery; ``world.courier``."""

    def post(
        self, channel: str, kind: str, number: str, *, url: str, content: dict[str, Any]
    ) -> None:
        """Queue a notification, with whatever the scripted faults do to it."""

    def probe(self, channel: str, *, url: str, content: dict[str, Any]) -> None:
        """Queue a signature probe, which a merchant must refuse."""

    def at(
        self, channel: str, action: str, number: str, *, when: datetime, argument: str = ""
    ) -> None:
        """Have ``channel.act(action, number, argument, when)`` called at that virtual time."""


class World(Struct, frozen=True):
    """What the core gives every channel."""

    state: State
    clock: VirtualClock
    faults: Faults
    courier: Courier
    keys: Mapping[str, Keys]  # by channel name

    def setting(self, name: str, default: Any) -> Any:
        """Return a setting of the control API, or its default."""
        return self.state.setting(name, default)


class Channel(Protocol):
    """One simulated institution."""

    name: str  # "wechat": also the key in credentials.json and in the control API
    prefix: str  # "/wechat": where its routes are mounted
    retry_plan: tuple[float, ...]  # seconds between the tries to deliver a callback

    def answer(self, request: Request) -> Reply:
        """Answer any request below the prefix, unknown paths included."""

    def outgoing(self, callback: Callback) -> Outgoing:
        """Encrypt, sign and frame a callback for this try; ``callback.variant`` may be forged."""

    def accepted(self, status: int, body: bytes) -> bool:
        """Whether the merchant's answer means that it has the callback."""

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return a callback's content with another amount."""

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Let a customer scan the trade's code and ``pay``, ``decline`` or ``abandon``."""

    def new_payment_code(self) -> str:
        """Return fresh digits in this channel's range, or raise `Refused`."""

    def code_made(self, code: PaymentCode) -> None:
        """Hear of a new payment code; most channels need nothing."""

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Do what was put on the agenda with ``world.courier.at``."""

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Answer ``/control/<name>/<path>``: what only this channel can be told; JSON-able."""


ChannelMaker = Callable[[World], Channel]


@runtime_checkable
class Listening(Protocol):
    """A channel that is not spoken to over HTTP and has a port of its own."""

    async def listen(self) -> str:
        """Begin to take connections on loopback and return the address."""

    async def hang_up(self) -> None:
        """Close the port and every connection."""


@runtime_checkable
class Rekeying(Protocol):
    """A channel that signs with a key of its own, which changes now and then."""

    def new_key(self) -> None:
        """Sign with another key from now on, as after a change of certificates."""


def decode_object(body: bytes) -> dict[str, Any] | None:
    """Return a JSON object, or None when the bytes are anything else."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
