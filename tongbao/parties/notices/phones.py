"""Where phones are reached by push, and what their people want to hear.

The token is sealed under the person's own key and goes with the phone, or with the person. Its
blind index keeps one app on one phone from telling two people's notices.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.parties.notices import _store as store
from tongbao.parties.notices.model import NoticeChoice, PhoneToken, Topic

_BLIND: Final = "person.blind"
_PERSONAL: Final = "person.personal"


async def set_token(
    tx: Tx, keyring: Keyring, own: Keyring, device: tuple[UUID, UUID, Mode], token: str
) -> None:
    """Reach a phone by this token from now on; the caller holds its row, and it is in use.

    ``device`` is its id, its person's id, and the world they are in.
    """
    device_id, person_id, mode = device
    blind = hmac_sha256(keyring.mac_key(_BLIND), bind("push_token", token))
    sealed = own.seal(_PERSONAL, token.encode(), _place(person_id, blind))
    await store.FORGET_TOKEN.run(tx, device_id)
    await store.SET_TOKEN.run(tx, mode, blind, device_id, person_id, sealed, tx.now)


async def forget_token(tx: Tx, device_id: UUID) -> None:
    """Reach a phone by push no more; without a token nothing changes."""
    await store.FORGET_TOKEN.run(tx, device_id)


async def tokens_of(on: Db | Tx, person_id: UUID) -> list[PhoneToken]:
    """Return where somebody's phones are reached, the newest token first."""
    return await store.TOKENS.all(on, person_id)


def opened(own: Keyring, row: PhoneToken) -> str:
    """Return a token in the clear.

    Raises:
        SealUnreadable
    """
    return own.open(_PERSONAL, row.sealed, _place(row.person_id, row.blind)).decode()


async def choose(tx: Tx, person_id: UUID, *, money: bool) -> None:
    """Keep whether somebody wants to hear of their money."""
    await store.CHOOSE.run(tx, person_id, Topic.MONEY, money, tx.now)


async def choices_of(on: Db | Tx, person_id: UUID) -> list[NoticeChoice]:
    """Return what somebody chose; of what is not among them they hear."""
    return await store.CHOICES.all(on, person_id)


async def wants(on: Db | Tx, person_id: UUID, topic: Topic) -> bool:
    """Tell whether somebody hears of a topic."""
    return all(each.wanted for each in await choices_of(on, person_id) if each.topic == topic)


async def forget_notices(tx: Tx, person_id: UUID) -> None:
    """Forget where somebody is reached and what they chose."""
    await store.FORGET_TOKENS.run(tx, person_id)
    await store.FORGET_CHOICES.run(tx, person_id)


def _place(person_id: UUID, blind: bytes) -> bytes:
    return bind("person_push_token", "sealed", person_id, blind)
