"""What the wallet's routes work with, and the wire forms that several of them use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.infra.db import Db, Tx
from tongbao.infra.public_keys import PublicKeyUnusable, SigningAlgorithm, read_public_key
from tongbao.infra.serving.device_api import DeviceCaller
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.message_codes import CodeSent
from tongbao.parties.authentication.model import Act
from tongbao.parties.authentication.step_up import (
    CODE_PREFIX,
    Checks,
    Confirmed,
    require_step_up,
)
from tongbao.parties.bound_cards.binding import Binder
from tongbao.parties.bound_cards.moving import CardMoney
from tongbao.parties.people.dossier import Contributor, hold_person
from tongbao.parties.people.entering import Entered, Phone
from tongbao.parties.people.model import DEVICE_PREFIX, DeviceKeyMalformed, PersonDevice
from tongbao.parties.people.real_names import Registers
from tongbao.parties.people.sessions import holder_of
from tongbao.payments.collecting.outcomes import Flow

PREFIX: Final = "/v1/me"
_SIGNS: Final = frozenset(
    {
        SigningAlgorithm.ED25519,
        SigningAlgorithm.ECDSA_P256_SHA256,
        SigningAlgorithm.SM2_SM3,
    }
)

_Made = TypeVar("_Made")

ContactField = Annotated[str, Meta(min_length=5, max_length=254)]
PasswordField = Annotated[str, Meta(min_length=1, max_length=512)]
CodeField = Annotated[str, Meta(min_length=1, max_length=64)]
NameField = Annotated[str, Meta(min_length=1, max_length=64)]
Language = Literal["zh", "en"]


class Desk(Struct, frozen=True):
    """What a deployment's wallet app works with."""

    checks: Checks
    registers: Mapping[Mode, Registers]
    contributors: tuple[Contributor, ...]
    cards: CardMoney | None = None
    binder: Binder | None = None
    flow: Flow | None = None  # where merchants are paid

    @property
    def db(self) -> Db:
        """The database."""
        return self.checks.db


class DeviceIs(Struct, frozen=True, forbid_unknown_fields=True):
    """The phone that asks: the public key that its request is signed with, and its name."""

    public_key: Annotated[str, Meta(min_length=64, max_length=2048)]
    name: NameField


class SessionView(Struct, frozen=True, kw_only=True):
    """A new session; its token is shown this once."""

    object: Literal["person_session"]
    person_id: str
    device_id: str
    token: str
    password_is_due: bool  # a reminder: nobody is locked out for it


class CodeView(Struct, frozen=True, kw_only=True):
    """What everybody is told who asks for a code, whether anybody has the address or not."""

    object: Literal["message_code"]
    code_id: str
    expires_at: datetime


class Done(Struct, frozen=True):
    """It is done, or was before."""

    done: bool = True


class DeviceView(Struct, frozen=True, kw_only=True):
    """One of the person's phones."""

    id: str
    object: Literal["device"]
    name: str
    bound_at: datetime
    is_this_one: bool


async def read_phone(desk: Desk, caller: DeviceCaller, device: DeviceIs) -> Phone:
    """Return the phone whose key has signed this very request.

    Raises:
        DeviceKeyMalformed, SignatureInvalid, TimestampStale, NonceReplayed
    """
    try:
        key = read_public_key(device.public_key, "$.device.public_key")
    except PublicKeyUnusable:
        raise DeviceKeyMalformed(param="$.device.public_key") from None
    if key.algorithm not in _SIGNS:
        raise DeviceKeyMalformed(param="$.device.public_key")
    await caller.proof.check(desk.db, key)
    return Phone(key, device.name)


async def step_up(desk: Desk, caller: DeviceCaller, kind: str, subject: str) -> Confirmed:
    """Return the right to change something of one's own account once.

    Raises:
        SessionOver, StepUpRequired
    """
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    return await require_step_up(desk.checks, holder, Act(kind, subject))


async def take(tx: Tx, caller: DeviceCaller, confirmed: Confirmed) -> None:
    """Use a confirmation up, once its person is held: whoever erases them takes both so.

    The other way round, what the act writes of the person would wait for the erasure, and that for
    the confirmation.

    Raises:
        ConfirmationUsed
    """
    await hold_person(tx, caller.current.person_id)
    await confirmed.take(tx)


async def done_once(
    look: Callable[[], Awaitable[_Made | None]], do: Callable[[], Awaitable[_Made]]
) -> _Made:
    """Return what this request has made before, which is confirmed already, or what it makes.

    A request whose twin was first may meet what the twin left: too little money, a confirmation
    that is used up. It is answered with what the twin has made.
    """
    known = await look()
    if known is not None:
        return known
    try:
        return await do()
    except Refusal:
        known = await look()
        if known is None:
            raise
        return known


def view_session(entered: Entered, *, is_due: bool) -> SessionView:
    """Return a session as its phone is told of it."""
    return SessionView(
        object="person_session",
        person_id=entered.person.actor,
        device_id=show(DEVICE_PREFIX, entered.session.device.id),
        token=entered.session.token.reveal(),
        password_is_due=is_due,
    )


def view_code(sent: CodeSent) -> CodeView:
    """Return what is said of a code."""
    return CodeView(
        object="message_code", code_id=show(CODE_PREFIX, sent.code_id), expires_at=sent.expires_at
    )


def view_device(device: PersonDevice, this: UUID) -> DeviceView:
    """Return a phone as its person sees it."""
    return DeviceView(
        id=show(DEVICE_PREFIX, device.id),
        object="device",
        name=device.name,
        bound_at=device.bound_at,
        is_this_one=device.id == this,
    )
