"""A card host, simulated: it signs terminals in, takes purchases and undoes them, over TCP.

The last four digits of a test card's number, 00 and two more, choose the response code: …0051 has
not enough money, …0055 a wrong PIN. Amounts from 777.01 yuan choose a fault (`magic`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, structs

from tongbao_sandbox import faults, magic
from tongbao_sandbox.cards_book import NAME, PIN_TRIES, Card, CardBook, Entry
from tongbao_sandbox.cards_crypto import Sealing, encrypted_pin
from tongbao_sandbox.cards_host import MAC_REFUSED, Reaction, Server, Session
from tongbao_sandbox.cards_message import Fields
from tongbao_sandbox.clock import china
from tongbao_sandbox.model import Callback, PaymentCode, Trade
from tongbao_sandbox.seam import Outgoing, Refused, Reply, Request, World

_DONE: Final = ("time_out_done", "time_out_not_done", "bad_signature_done", "wrong_amount_done")
_WIRE: Final = ("slow", "reset", "reset_mid_frame_done", "doubled_answer")
faults.allow("pay", "wrong_amount_paid", "reset_mid_frame_paid", *_DONE, *_WIRE)
for _point in ("close", "refund", "capture", "void", "totals"):
    faults.allow(_point, *_DONE, *_WIRE)
faults.allow("refund", "not_enough")
faults.allow("query", "reset", "doubled_answer")
faults.allow("sign_in", "wrong_check_value", "refused", "time_out", "reset")

_ECHOED: Final = (2, 3, 4, 7, 11, 12, 13, 18, 25, 32, 33, 37, 41, 42, 49)
_POINTS: Final = {
    "purchase": "pay",
    "authorise": "pay",
    "reverse": "close",
    "refund": "refund",
    "capture": "capture",
    "cancel": "void",
    "void": "void",
    "balance": "query",
    "totals": "totals",
}
_KINDS: Final = {
    ("0200", b"000000", b"00"): "purchase",
    ("0200", b"200000", b"00"): "cancel",
    ("0200", b"310000", b"00"): "balance",
    ("0100", b"030000", b"06"): "authorise",
    ("0100", b"200000", b"06"): "void",
    ("0220", b"000000", b"06"): "capture",
    ("0220", b"200000", b"00"): "refund",
}


class Asked(Struct, frozen=True):
    """One transaction request, read out."""

    kind: str
    fields: Fields
    key: str
    reference: str
    about: str  # what field 90 names, as a key
    about_type: str  # and the type of that message
    amount: int
    number: str  # the card's

    def text(self, field: int) -> str:
        """Return a field as text."""
        return self.fields.get(field, b"").decode("latin-1")


class Cards:
    """The simulated host; see `seam.Channel`."""

    name = NAME
    prefix = "/cards"
    retry_plan: tuple[float, ...] = ()

    def __init__(self, world: World) -> None:
        self._world = world
        self._book = CardBook(world)
        self._server = Server(self)
        keys = world.keys[NAME]
        self.shown = keys.shown
        self._pin_key = bytes.fromhex(keys.kept["pin_key"])
        self._do: dict[str, Callable[[Asked], tuple[str, Fields]]] = {
            "purchase": self._take,
            "authorise": self._take,
            "cancel": self._cancel,
            "void": self._cancel,
            "capture": self._capture,
            "refund": self._refund,
            "balance": self._balance,
            "reverse": self._reverse,
            "totals": self._totals,
        }

    async def listen(self) -> str:
        """Take connections on loopback and return the address: ``tcp://127.0.0.1:PORT``."""
        return await self._server.start()

    async def hang_up(self) -> None:
        """Close the port and every connection."""
        await self._server.stop()

    # What the host does with a message ---------------------------------------------------------

    def sealing(self) -> Sealing:
        """Return how keys are used: the settings ``cards.cipher`` and ``cards.mac``."""
        cipher = self._world.setting("cards.cipher", self.shown["cipher"])
        return Sealing(cipher, self._world.setting("cards.mac", self.shown["mac"]))

    def react(self, session: Session, mti: str, fields: Fields) -> Reaction:
        """Answer one message, inside one transaction."""
        with self._world.state.begin():
            if mti == "0800":
                reaction = self._sign_in(session, fields)
            else:
                reaction = self._transact(session, mti, fields)
            self._log(mti, fields, reaction)
        return reaction

    def _sign_in(self, session: Session, fields: Fields) -> Reaction:
        fault = self._world.faults.take(NAME, "sign_in", "").name
        known = fields.get(41, b"").strip() == self.shown["terminal"].encode()
        if not known or fault == "refused":
            return Reaction("0810", {**_echo(fields), 39: b"97" if not known else b"96"})
        master = bytes.fromhex(self.shown["master_key"])
        pin_key, mac_key, track_key = (session.sealing.new_key() for _ in range(3))
        session.mac_key = mac_key
        block = b"".join(
            session.sealing.wrapped(master, key) for key in (pin_key, mac_key, track_key)
        )
        if fault == "wrong_check_value":
            block = block[:-1] + bytes((block[-1] ^ 1,))
        answer = {**_echo(fields), **self._dated(), 39: b"00", 60: fields.get(60, b""), 62: block}
        return Reaction("0810", answer, ending=_ending(fault))

    def _transact(self, session: Session, mti: str, fields: Fields) -> Reaction:
        asked = _read(mti, fields)
        answer_type = f"{int(mti) + 10:04d}"
        if asked is None:
            return Reaction(answer_type, {**_echo(fields), 39: b"30"})
        fault, seconds = self._fault(asked)
        if fault in {"time_out_unpaid", "time_out_not_done"}:
            return Reaction(answer_type, {}, ending="silence")
        if fault == "reset":
            return Reaction(answer_type, {}, ending="reset")
        if fault == "new_key":
            session.mac_key = None  # forgotten, as after a restart: it takes another sign-in
            return Reaction(answer_type, {**_echo(fields), 39: MAC_REFUSED})
        if fault == "not_enough":
            self._enter(asked, "", "51")
            return Reaction(answer_type, {**_echo(fields), **self._dated(), 39: b"51"})
        code, more = self._do[asked.kind](asked)
        answer = {**_echo(fields), **self._dated(), **more, 39: code.encode()}
        if fault.startswith("wrong_amount"):
            answer[4] = f"{asked.amount + 1:012d}".encode()
        return Reaction(
            answer_type,
            answer,
            ending=_ending(fault),
            delay_s=seconds if fault == "slow" else 0.0,
            is_doubled=fault == "doubled_answer",
            has_wrong_mac=fault.startswith("bad_signature"),
        )

    def _fault(self, asked: Asked) -> tuple[str, float]:
        point = _POINTS[asked.kind]
        if point in magic.TABLE:
            fault = magic.fault_of(self._world, NAME, point, asked.reference, asked.amount)
        else:
            fault = self._world.faults.take(NAME, point, asked.reference)
        return fault.name, fault.seconds(5)

    def _take(self, asked: Asked) -> tuple[str, Fields]:
        if self._book.entry(asked.key, asked.reference) is not None:
            return "94", {}
        if self._book.is_barred(asked.key, asked.reference):
            return "22", {}
        code = self._pin_code(asked) or self._book.judge(asked.number, asked.amount, asked.text(14))
        if code == "00" and magic.is_declined(asked.amount):
            code = "51"
        card = self._book.card(asked.number)
        authorisation = f"{self._world.state.next_number('cards.authorisation'):06d}"
        self._enter(asked, card.id, code, authorisation=authorisation if code == "00" else "")
        if code != "00":
            return code, {}
        if asked.kind == "authorise":
            self._book.move(card.id, held=asked.amount)
        else:
            self._book.move(card.id, balance=-asked.amount)
        return code, {38: authorisation.encode()}

    def _pin_code(self, asked: Asked) -> str:
        """Return 55 or 75 for a wrong PIN, and nothing for a right or an absent one."""
        block = asked.fields.get(52)
        if block is None:
            return ""
        card = self._book.card(asked.number)
        if block == encrypted_pin(self._pin_key, card.pin, asked.number):
            self._book.put_card(structs.replace(card, wrong_pins=0))
            return ""
        wrong = card.wrong_pins + 1
        self._book.put_card(structs.replace(card, wrong_pins=wrong))
        return "75" if wrong >= PIN_TRIES else "55"

    def _cancel(self, asked: Asked) -> tuple[str, Fields]:
        before = self._book.entry(asked.key, asked.reference)
        if before is not None:
            return before.code, {}
        kind = "purchase" if asked.kind == "cancel" else "authorise"
        original = self._original(asked, kind)
        code = _may_cancel(asked, original)
        self._enter(asked, original.card if original else "", code, original)
        if original is not None and code == "00":
            self._book.undo(original, "cancelled")
        return code, {}

    def _capture(self, asked: Asked) -> tuple[str, Fields]:
        before = self._book.entry(asked.key, asked.reference)
        if before is not None:
            return before.code, {38: before.authorisation.encode()} if before.authorisation else {}
        original = self._original(asked, "authorise")
        code = _may_capture(asked, original)
        if original is None or code != "00":
            self._enter(asked, "", code, original)
            return code, {}
        self._enter(asked, original.card, code, original, authorisation=original.authorisation)
        self._book.move(original.card, balance=-asked.amount, held=-original.amount)
        self._book.put_entry(structs.replace(original, state="captured"))
        return code, {38: original.authorisation.encode()}

    def _refund(self, asked: Asked) -> tuple[str, Fields]:
        before = self._book.entry(asked.key, asked.reference)
        if before is not None:
            return before.code, {}
        original = self._refundable(asked)
        code = "25" if original is None or original.state != "done" else "00"
        if original is not None and original.refunded + asked.amount > original.amount:
            code = "64"
        self._enter(asked, original.card if original else "", code, original)
        if original is not None and code == "00":
            refunded = original.refunded + asked.amount
            self._book.put_entry(structs.replace(original, refunded=refunded))
            self._book.move(original.card, balance=asked.amount)
        return code, {}

    def _refundable(self, asked: Asked) -> Entry | None:
        """Return the purchase or the capture that field 90 names, by its type too."""
        kind = {"0200": "purchase", "0220": "capture"}.get(asked.about_type, "")
        return self._original(asked, kind)

    def _original(self, asked: Asked, kind: str) -> Entry | None:
        """Return the approved transaction that field 90 names, if it came from this terminal."""
        return _from_there(asked, self._book.original(asked.about, frozenset({kind})))

    def _balance(self, asked: Asked) -> tuple[str, Fields]:
        code = self._pin_code(asked) or self._book.judge(asked.number, 0, asked.text(14))
        if code != "00":
            return code, {}
        card = self._book.card(asked.number)
        text = "".join(
            f"30{kind}156{'C' if amount >= 0 else 'D'}{abs(amount):012d}"
            for kind, amount in (("01", card.balance), ("02", card.balance - card.held))
        )
        return code, {54: text.encode()}

    def _reverse(self, asked: Asked) -> tuple[str, Fields]:
        original = _from_there(asked, self._book.entry(asked.about, asked.reference))
        if original is None:
            self._book.bar(asked.about, asked.reference)
            return "25", {}
        if original.refunded or original.state == "captured":
            return "12", {}
        self._book.undo(original, "reversed")
        return "00", {}

    def _totals(self, asked: Asked) -> tuple[str, Fields]:
        ours = self._book.settle(asked.text(41), asked.text(42), asked.reference)
        figures = f"{ours[0]:03d}{ours[1]:012d}{ours[2]:03d}{ours[3]:012d}"
        verdict = "1" if asked.text(48)[:30] == figures else "2"
        return "00", {48: f"{figures}{verdict}{'0' * 31}".encode()}

    def _enter(
        self,
        asked: Asked,
        card: str,
        code: str,
        original: Entry | None = None,
        *,
        authorisation: str = "",
    ) -> None:
        self._book.put_entry(
            Entry(
                key=asked.key,
                reference=asked.reference,
                kind=asked.kind,
                card=card,
                amount=asked.amount,
                code=code,
                terminal=asked.text(41),
                merchant=asked.text(42),
                authorisation=authorisation,
                about=original.reference if original else "",
            )
        )

    def _dated(self) -> Fields:
        at = china(self._world.clock.now())
        return {12: f"{at:%H%M%S}".encode(), 13: f"{at:%m%d}".encode(), 15: f"{at:%m%d}".encode()}

    def _log(self, mti: str, fields: Fields, reaction: Reaction) -> None:
        """Remember that it came and how it ended; what it held stays out."""
        about = fields.get(37, b"").decode("latin-1")
        code = reaction.fields.get(39, b"").decode()
        self._world.state.log_exchange(
            self._world.clock.now(),
            (mti, f"/cards/{about}", f"fields {sorted(fields)}"),
            (None if reaction.ending == "silence" else 200, reaction.ending, f"39 {code}"),
        )

    # Control ------------------------------------------------------------------------------------

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Show and change cards, press a PIN pad's keys, list what the host knows."""
        match (method, path):
            case ("POST", "card"):
                return self._shown_card(body)
            case ("POST", "pin-pad"):
                block = encrypted_pin(self._pin_key, str(body["pin"]), str(body["number"]))
                return {"pin_block": block.hex()}
            case ("GET", "entries"):
                return self._book.entries()
            case ("POST", "hang-up"):
                return {"closed": self._server.drop_all()}
            case _:
                raise Refused("card, pin-pad, entries or hang-up")

    def _shown_card(self, body: dict[str, Any]) -> Card:
        card = self._book.card(str(body["number"]))
        for name in ("balance", "pin"):
            if name in body:
                card = self._book.put_card(structs.replace(card, **{name: body[name]}))
        return structs.replace(card, pin="")

    # What only payment channels over HTTP have ----------------------------------------------------

    def answer(self, request: Request) -> Reply:
        """Refuse: this host speaks ISO 8583 over TCP."""
        del request
        return Reply(404)

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Nothing is put on the agenda."""

    def outgoing(self, callback: Callback) -> Outgoing:
        """Refuse: a card host does not call back."""
        del callback
        raise Refused("a card host sends no callbacks")

    def accepted(self, status: int, body: bytes) -> bool:
        """Refuse nothing: there is nothing to accept."""
        del body
        return status == 200

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content: there are no callbacks."""
        return content

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Refuse: a card host shows no codes."""
        del trade, action
        raise Refused("cards have no codes to scan")

    def new_payment_code(self) -> str:
        """Refuse: a card host makes no payment codes."""
        raise Refused("cards have no payment codes")

    def code_made(self, code: PaymentCode) -> None:
        """Nothing to prepare."""


def _read(mti: str, fields: Fields) -> Asked | None:
    about = fields.get(90, b"").decode("latin-1")
    kind = _KINDS.get((mti, fields.get(3, b""), fields.get(25, b"")))
    if mti == "0400" and len(about) == 42:
        kind = "reverse"
    if mti == "0500":
        kind = "totals"
    amount = fields.get(4, b"0")
    if kind is None or not amount.isdigit():
        return None
    institution = fields.get(32, b"").decode("latin-1").rjust(11, "0")
    trace, time = (fields.get(at, b"").decode("latin-1") for at in (11, 7))
    return Asked(
        kind=kind,
        fields=fields,
        key=f"{time}.{trace}.{institution}",
        reference=fields.get(37, b"").decode("latin-1"),
        about=f"{about[10:20]}.{about[4:10]}.{about[20:31]}",
        about_type=about[:4],
        amount=int(amount),
        number=fields.get(2, b"").decode("latin-1"),
    )


def _may_cancel(asked: Asked, original: Entry | None) -> str:
    if original is None:
        return "25"
    if original.state != "done" or original.refunded:
        return "12"
    return "00" if original.amount == asked.amount else "64"


def _from_there(asked: Asked, entry: Entry | None) -> Entry | None:
    """Return the transaction if it was the asking terminal's: a host knows each by its own."""
    if entry is None or (entry.terminal, entry.merchant) != (asked.text(41), asked.text(42)):
        return None
    return entry


def _may_capture(asked: Asked, original: Entry | None) -> str:
    if original is None:
        return "25"
    if original.state != "done":
        return "12"
    if asked.text(38) != original.authorisation:
        return "12"
    return "00" if asked.amount <= original.amount else "64"


def _echo(fields: Fields) -> Fields:
    return {number: fields[number] for number in _ECHOED if number in fields}


def _ending(fault: str) -> str:
    if fault.startswith("time_out"):
        return "silence"
    if fault.startswith("reset_mid_frame"):
        return "reset_mid_frame"
    return "reset" if fault == "reset" else "answer"
