"""Names become numbers: accounts by kind, owner and currency, posting codes by their words.

A number never changes, so what was found once is not asked again. Whoever meets a new name waits
for one look-up that serves everybody who came meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from tongbao.infra.db import Db
from tongbao.infra.number_ranges import next_number
from tongbao.kernel.errors import Refusal
from tongbao.kernel.licence import Licence
from tongbao.ledger.door import _store as store
from tongbao.ledger.model import (
    BOOK_SHIFT,
    NOBODY,
    AccountKey,
    AccountKindNotLicensed,
    Group,
)
from tongbao.ledger.rules.chart import opening_refusal

Accounts = Mapping[AccountKey, int | type[Refusal]]

_NUMBERS: Final = "ledger_account"
_KNOWN_MAX: Final = 500_000
_IMAGINED_FROM: Final = (1 << BOOK_SHIFT) - (1 << 20)
_IMAGINED_CODE: Final = (1 << 31) - 1


class Names:
    """The numbers of one deployment's accounts and codes, as far as they were asked for."""

    def __init__(self, db: Db, licence: Licence) -> None:
        self._db = db
        self._licence = licence
        self._accounts: dict[int, dict[AccountKey, int | type[Refusal]]] = {}
        self._known = 0
        self.codes: dict[str, int] = {}
        self._asking = asyncio.Lock()
        self._asked: dict[int, set[AccountKey]] = {}

    def accounts(self, book: int) -> Accounts:
        """Return the accounts known so far."""
        return self._accounts.setdefault(book, {})

    def knows(self, book: int, groups: Sequence[Group]) -> bool:
        """Return whether every name in the groups has its number."""
        accounts, codes = self.accounts(book), self.codes
        for group in groups:
            for transfer in group.transfers:
                if (
                    (transfer.debit is not None and transfer.debit not in accounts)
                    or (transfer.credit is not None and transfer.credit not in accounts)
                    or (transfer.code not in codes and transfer.code)
                ):
                    return False
        return True

    async def learn(self, book: int, groups: Sequence[Group]) -> None:
        """Find the number of every name in the groups, opening accounts that are new.

        Accounts open in a commit of their own, before the group's: one without postings harms
        nobody, and the group then waits for nobody else's opening.
        """
        self._asked.setdefault(book, set()).update(keys_of(groups))
        words = {transfer.code for group in groups for transfer in group.transfers}
        async with self._asking:
            if words - self.codes.keys() - {""}:
                await self._learn_codes(words - {""})
            keys = self._asked.pop(book, set())
            unknown = [key for key in keys if key not in self.accounts(book)]
            if unknown:
                self._remember(book, await self._find_or_open(book, unknown))

    async def look(self, book: int, groups: Sequence[Group]) -> Accounts:
        """Return the accounts the groups name, opening none.

        One that would be opened has an imagined id, which no account ever gets.
        """
        keys = list(keys_of(groups))
        named: dict[AccountKey, int | type[Refusal]] = {}
        found = await self._find(book, keys)
        for place, key in enumerate(keys):
            refusal = opening_refusal(key, self._licence)
            imagined = book << BOOK_SHIFT | _IMAGINED_FROM + place
            named[key] = found.get(key) or refusal or imagined
        return named

    async def look_up_codes(self, groups: Sequence[Group]) -> Mapping[str, int]:
        """Return the numbers of the groups' codes, making none: new words share a number."""
        words = {transfer.code for group in groups for transfer in group.transfers}
        if words - self.codes.keys() - {""}:
            rows = await store.LIST_CODES.all(self._db)
            self.codes.update({row.code: row.number for row in rows})
        return dict.fromkeys(words, _IMAGINED_CODE) | self.codes

    def _remember(self, book: int, found: Accounts) -> None:
        self._known += len(found)
        if self._known > _KNOWN_MAX:
            # Not the very dictionaries: a caller may be between asking and reading.
            self._accounts = {}
            self._known = len(found)
        self._accounts.setdefault(book, {}).update(found)

    async def _find_or_open(self, book: int, keys: Sequence[AccountKey]) -> Accounts:
        refusals = {key: opening_refusal(key, self._licence) for key in keys}
        openable = [key for key, refusal in refusals.items() if refusal is None]
        found = await self._find(book, openable)
        new = [key for key in openable if key not in found]
        if new:
            numbers = [await next_number(self._db, _NUMBERS) for _ in new]
            ids = [book << BOOK_SHIFT | number for number in numbers]
            now = self._db.clock.now()
            await store.OPEN_ACCOUNTS.run(self._db, book, ids, *_columns(new), now)
            found |= await self._find(book, new)
        # Only a kind that the database itself does not license is left over.
        return {key: found.get(key) or refusals[key] or AccountKindNotLicensed for key in keys}

    async def _find(self, book: int, keys: Sequence[AccountKey]) -> dict[AccountKey, int]:
        if not keys:
            return {}
        return {
            AccountKey(row.kind, row.currency, None if row.owner == NOBODY else row.owner): row.id
            for row in await store.FIND_ACCOUNTS.all(self._db, book, *_columns(keys))
        }

    async def _learn_codes(self, words: Iterable[str]) -> None:
        """Give every new word the next number; two who do so at once take turns."""
        while True:
            rows = await store.LIST_CODES.all(self._db)
            self.codes.update({row.code: row.number for row in rows})
            new = sorted(set(words) - self.codes.keys())
            if not new:
                return
            next_free = 1 + max((row.number for row in rows), default=0)
            for number, word in enumerate(new, start=next_free):
                await store.ADD_CODE.run(self._db, number, word)


def is_imagined(account: int) -> bool:
    """Return whether the id stands for an account that was not opened."""
    return account & ((1 << BOOK_SHIFT) - 1) >= _IMAGINED_FROM


def keys_of(groups: Sequence[Group]) -> set[AccountKey]:
    """Return every account the groups name."""
    return {
        key
        for group in groups
        for transfer in group.transfers
        for key in (transfer.debit, transfer.credit)
        if key is not None
    }


def _columns(keys: Sequence[AccountKey]) -> tuple[list[str], list[UUID], list[str]]:
    return (
        [key.kind for key in keys],
        [key.owner or NOBODY for key in keys],
        [key.currency for key in keys],
    )
