"""What is sent to people, by which way, and what a gateway can answer. No I/O."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.licence import Mode


class Kind(StrEnum):
    """How a message travels."""

    SMS = "sms"
    MAIL = "mail"
    PUSH = "push"


class Message(Struct, frozen=True):
    """One message; ``to`` is a phone number, a mail address, or a phone's push token."""

    kind: Kind
    to: str
    title: str
    text: str
    language: Literal["zh", "en"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind})"  # neither the text nor the person


class Handed(Message, frozen=True):
    """A message as it waits to be sent; ``instead`` goes where this one is not taken."""

    instead: Message | None = None


class Taken(Struct, frozen=True):
    """The gateway has the message and names it so."""

    reference: str


class NotTaken(Struct, frozen=True):
    """The gateway will not send it: there is no such number, or it is blocked."""

    reason: str


class Unclear(Struct, frozen=True):
    """Nobody knows: it is sent again under its number, which a gateway sends once."""

    reason: str


Answer = Taken | NotTaken | Unclear


class Gateway(Protocol):
    """Who carries messages. ``number`` is ours, and the same for a repeat."""

    async def send(self, number: str, message: Message) -> Answer:
        """Hand a message over."""


class Notification(Struct, frozen=True):
    """One row of the table. ``sealed`` is what was `Handed`, as long as it has to be kept."""

    id: UUID
    mode: Mode
    kind: Kind
    purpose: str
    subject: UUID | None
    sealed: bytes | None
    state: Literal["waiting", "sent", "refused", "given_up"]
    reference: str | None
    created_at: datetime
    ended_at: datetime | None
