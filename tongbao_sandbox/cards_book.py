"""What the card host knows: cards with their money, transactions with their ends, and the rules.

Cards are kept under a digest of their number, so that no file of the sandbox holds one. A card
exists as soon as it is used: 1 000 000 fen, PIN 123456.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from tongbao_sandbox.clock import china
from tongbao_sandbox.seam import World

NAME: Final = "cards"
TEST_BIN: Final = "625188"
"""The BIN of UnionPay's own simulator. Any other number is 14, no such card."""
BALANCE: Final = 1_000_000
PIN: Final = "123456"
PIN_TRIES: Final = 3


class Card(Struct, frozen=True):
    """One card; money in fen."""

    id: str
    balance: int = BALANCE
    held: int = 0  # set aside by authorisations
    pin: str = PIN
    wrong_pins: int = 0


class Entry(Struct, frozen=True, kw_only=True):
    """One transaction the host answered. ``code`` is what it answered with."""

    key: str  # time, trace and institution: what field 90 names
    reference: str  # field 37
    kind: str  # purchase, cancel, authorise, void, capture, refund
    card: str
    amount: int
    code: str
    terminal: str
    merchant: str
    authorisation: str = ""
    about: str = ""  # the reference of the transaction it refers to
    state: str = "done"  # done, reversed, cancelled, captured
    refunded: int = 0
    batch: str = ""  # the reference of the settlement that closed its batch


class CardBook:
    """Reads and writes the host's memory; every method runs inside the core's transaction."""

    def __init__(self, world: World) -> None:
        self._world = world

    def card(self, number: str) -> Card:
        """Return the card, as it was made if it was never used."""
        card_id = f"{number[:6]}-{sha256(number.encode()).hexdigest()[:24]}"
        return self.card_by_id(card_id)

    def card_by_id(self, card_id: str) -> Card:
        """Return the card under its digest."""
        found = self._world.state.document(NAME, f"card.{card_id}")
        return Card(card_id) if found is None else msgspec.json.decode(found[0], type=Card)

    def put_card(self, card: Card) -> Card:
        """Keep the card and return it."""
        self._put(f"card.{card.id}", card)
        return card

    def entry(self, key: str, reference: str) -> Entry | None:
        """Return the transaction with this key and reference."""
        found = self._world.state.document(NAME, f"entry.{key}.{reference}")
        return None if found is None else msgspec.json.decode(found[0], type=Entry)

    def original(self, key: str, kinds: frozenset[str]) -> Entry | None:
        """Return the approved transaction a refund, a capture or a cancellation is about."""
        for entry in self.entries():
            if entry.key == key and entry.kind in kinds and entry.code == "00":
                return entry
        return None

    def put_entry(self, entry: Entry) -> Entry:
        """Keep the transaction and return it."""
        self._put(f"entry.{entry.key}.{entry.reference}", entry)
        return entry

    def entries(self) -> list[Entry]:
        """Return every transaction, oldest first."""
        rows = self._world.state.db.execute(
            "select content from document where channel = ? and name like 'entry.%' order by rowid",
            (NAME,),
        )
        return [msgspec.json.decode(row[0], type=Entry) for row in rows]

    def bar(self, key: str, reference: str) -> None:
        """Remember a reversal that came before what it reverses, so that it comes too late."""
        self._put(f"barred.{key}.{reference}", Card(""))

    def is_barred(self, key: str, reference: str) -> bool:
        """Whether the transaction was reversed before it came."""
        return self._world.state.document(NAME, f"barred.{key}.{reference}") is not None

    # Money ------------------------------------------------------------------------------------

    def judge(self, number: str, amount: int, expiry: str) -> str:
        """Return the response code for taking or setting aside so much, 00 if it may be."""
        if not number.startswith(TEST_BIN):
            return "14"
        if number[-4:-2] == "00" and number[-2:] != "00":
            return number[-2:]
        if expiry and expiry < china(self._world.clock.now()).strftime("%y%m"):
            return "54"
        card = self.card(number)
        return "00" if card.balance - card.held >= amount else "51"

    def move(self, card_id: str, *, balance: int = 0, held: int = 0) -> None:
        """Change what the card has and what is set aside on it."""
        card = self.card_by_id(card_id)
        self.put_card(structs.replace(card, balance=card.balance + balance, held=card.held + held))

    def undo(self, entry: Entry, state: str) -> None:
        """Give back what the transaction took or set aside."""
        if entry.code == "00" and entry.state == "done":
            if entry.kind == "authorise":
                self.move(entry.card, held=-entry.amount)
            else:
                self.move(entry.card, balance=entry.amount)
        self.put_entry(structs.replace(entry, state=state))

    def settle(self, terminal: str, merchant: str, reference: str) -> tuple[int, int, int, int]:
        """Close a terminal's batch; return count and amount of its debits and of its credits.

        A repeat under the same reference closes nothing more and is answered as the first was.
        """
        found = self._world.state.document(NAME, f"batch.{reference}")
        if found is not None:
            return msgspec.json.decode(found[0], type=tuple[int, int, int, int])
        ours = [
            entry
            for entry in self.entries()
            if (entry.terminal, entry.merchant, entry.batch) == (terminal, merchant, "")
            and entry.code == "00"
            and entry.state == "done"
        ]
        for entry in ours:
            self.put_entry(structs.replace(entry, batch=reference))
        debits = [entry.amount for entry in ours if entry.kind in {"purchase", "capture"}]
        returned = [entry.amount for entry in ours if entry.kind == "refund"]
        figures = len(debits), sum(debits), len(returned), sum(returned)
        self._put(f"batch.{reference}", figures)
        return figures

    def _put(self, name: str, record: Any) -> None:
        now = self._world.clock.now()
        # Replacing would move a row to the end; what came first stays first.
        cursor = self._world.state.db.execute(
            "update document set content = ? where channel = ? and name = ?",
            (msgspec.json.encode(record), NAME, name),
        )
        if not cursor.rowcount:
            self._world.state.put_document(NAME, name, msgspec.json.encode(record), now)
