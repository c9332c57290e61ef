"""What terminals say to us: their first word with a code, and then that they are there.

A request is signed like an API request, by the terminal's own key, whose id has the terminal's
letters. Heartbeats carry no nonce that would have to be kept: one that was signed no later than the
last one that counted counts for nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.admission.authentication import SigningKey
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.lookups import Lookups, Remembered
from tongbao.infra.settings import Secret
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.parties.terminals import _store as store
from tongbao.parties.terminals.inventory import terminal_with_serial, terminals_with_ids
from tongbao.parties.terminals.model import (
    CODE_LIFE,
    CODE_MISSES_MAX,
    PREFIX,
    ActivationRefused,
    Terminal,
    TerminalNotFound,
    TerminalState,
    TerminalStateWrong,
    code_fits,
    hash_of,
    new_code,
)

PURPOSE: Final = "terminal.secret"
KEY_STANDS_S: Final = 0.9
"""How long a key that was looked at is believed; a lost terminal's works no longer than that."""
_OPENED_MAX: Final = 10_000
_ACTOR: Final = "terminals"


class Activated(Struct, frozen=True):
    """A terminal with the secret of its new key, which is told to it alone, once."""

    terminal: Terminal
    secret: Secret


class Beat(Struct, frozen=True):
    """What a terminal says of itself; ``heard`` is the last notice it has told."""

    signed_at: int
    firmware: str
    battery: int | None
    signal: int | None
    parameters_version: int
    heard: int


class Standing(Struct, frozen=True):
    """What a heartbeat is answered with: how the terminal stands with us."""

    state: TerminalState
    parameters_version: int


async def give_code(tx: Tx, terminal_id: UUID, owner: tuple[UUID, Mode]) -> Secret:
    """Return a new activation code of a merchant's terminal, good once and for a day.

    The key that the terminal may have goes on until the code is used.

    Raises:
        TerminalNotFound, TerminalStateWrong
    """
    locked = await store.LOCK_TERMINAL.first(tx, terminal_id)
    if locked is None or (locked.merchant_id, locked.mode) != owner:
        raise TerminalNotFound
    if locked.state is not TerminalState.BOUND:
        raise TerminalStateWrong(status=locked.state, wanted="activation")
    code = new_code()
    await store.GIVE_CODE.run(tx, locked.id, hash_of(code), tx.now + CODE_LIFE)
    await audit.record(tx, "terminal.code_given", show(PREFIX, locked.id), {})
    return Secret(code)


async def activate(db: Db, keyring: Keyring, serial: str, code: str) -> Activated:
    """Give a terminal its key for the right code, and use the code up.

    A wrong one is counted in a commit of its own; after five the code is dead. Whether it was the
    serial number or the code that was wrong is not said.

    Raises:
        ActivationRefused
    """
    try:
        found = await terminal_with_serial(db, serial[:64])
    except TerminalNotFound:
        raise ActivationRefused from None
    async with db.begin(_ACTOR) as tx:
        locked = await store.LOCK_TERMINAL.one(tx, found.id)
        if locked.state is TerminalState.BOUND and code_fits(locked, code, tx.now):
            return await _give_key(tx, keyring, locked)
        if locked.code_hash is not None and locked.code_misses < CODE_MISSES_MAX:
            await store.MISS_CODE.run(tx, locked.id)
    raise ActivationRefused


async def _give_key(tx: Tx, keyring: Keyring, terminal: Terminal) -> Activated:
    secret = f"tk_{secrets.token_urlsafe(32)}"
    number = terminal.key_number + 1
    sealed = keyring.seal(PURPOSE, secret.encode(), _place(terminal.id, number))
    activated = await store.GIVE_KEY.one(tx, terminal.id, sealed, tx.now)
    await store.FIRST_BEAT.run(tx, terminal.id, tx.now)
    await audit.record(tx, "terminal.activated", show(PREFIX, terminal.id), {"key": number})
    return Activated(activated, Secret(secret))


class TerminalKeys:
    """The keys of terminals, as they were at most `KEY_STANDS_S` ago; asked for many at a time."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self._db = db
        self._secret = lru_cache(maxsize=_OPENED_MAX)(partial(_open, keyring))
        self._keys = Remembered(self._find_all, seconds=KEY_STANDS_S)

    async def find(self, key_id: UUID) -> SigningKey | None:
        """Return a terminal's key; that of one that was taken back is none.

        What was no key a moment ago may be one now, so that is asked anew.
        """
        return await self._keys.get(key_id) or (await self._find_all([key_id])).get(key_id)

    async def note_use(self, key: SigningKey) -> None:
        """Do nothing: a terminal's use is its heartbeat."""

    async def _find_all(self, ids: Sequence[UUID]) -> dict[UUID, SigningKey]:
        placed = [
            each
            for each in (await terminals_with_ids(self._db, ids)).values()
            if each.state.is_placed and each.key_sealed is not None
        ]
        owners = [each.merchant_id for each in placed if each.merchant_id is not None]
        merchants = await merchants_with_ids(self._db, owners)
        found = {}
        for each in placed:
            if each.merchant_id is None or each.mode is None or each.key_sealed is None:
                continue  # not of one that is placed
            book = merchants[each.merchant_id].book(each.mode)
            caller = Caller(each.id, each.merchant_id, each.mode, book, frozenset())
            secret = self._secret(each.key_sealed, _place(each.id, each.key_number))
            found[each.id] = SigningKey(caller, secret, revoked=False)
        return found


class Heartbeats:
    """Writes down what terminals say, all that came meanwhile in one statement."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._said: dict[UUID, Beat] = {}
        self._answers = Lookups(self._write)

    async def beat(self, terminal_id: UUID, beat: Beat) -> Standing | None:
        """Write a heartbeat down and say how the terminal stands; None for one that is gone.

        Of two that the same terminal sends at one moment the later one is written.
        """
        before = self._said.get(terminal_id)
        if before is None or beat.signed_at >= before.signed_at:
            self._said[terminal_id] = beat
        return await self._answers.get(terminal_id)

    async def _write(self, ids: Sequence[UUID]) -> dict[UUID, Standing]:
        # In one order, so that two processes that write the same terminals wait and never lock up.
        said = [(each, self._said.pop(each)) for each in sorted(ids) if each in self._said]
        if said:
            columns = [
                [each for each, _ in said],
                [beat.signed_at for _, beat in said],
                [beat.firmware for _, beat in said],
                [beat.battery for _, beat in said],
                [beat.signal for _, beat in said],
                [beat.parameters_version for _, beat in said],
                [beat.heard for _, beat in said],
            ]
            now = self._db.clock.now()
            await store.BEAT.run(self._db, columns[0], now, *columns[1:])
        found = await terminals_with_ids(self._db, ids)
        return {each.id: Standing(each.state, each.parameters_version) for each in found.values()}


def _open(keyring: Keyring, sealed: bytes, place: bytes) -> Secret:
    return Secret(keyring.open(PURPOSE, sealed, place).decode())


def _place(terminal_id: UUID, number: int) -> bytes:
    return bind("terminal", "key_sealed", terminal_id, str(number))
