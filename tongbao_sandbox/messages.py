"""A carrier of messages, simulated: it takes SMS, mail and push, and keeps what was sent.

    POST /messages  {"number", "kind", "to", "title", "text", "language"}

A number is carried once, however often it is handed over. What goes to an address that ends in
``0000`` is refused. ``GET /control/messages/inbox?to=…`` is the phone that somebody looks at.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao_sandbox import faults
from tongbao_sandbox.model import Callback, PaymentCode, Trade
from tongbao_sandbox.seam import Keys, Outgoing, Refused, Reply, Request, World

NAME: Final = "messages"
NOBODY: Final = "0000"
LETTER: Final = "letter."
_JSON: Final = (("content-type", "application/json"),)
_SHOWN_MAX: Final = 200

faults.allow("send", "http_500_not_done", "http_500_done", "time_out_done", "time_out_not_done")


class Handed(Struct, frozen=True):
    """One message as it is handed over."""

    number: str
    kind: str
    to: str
    title: str
    text: str
    language: str


def make_keys() -> Keys:
    """Return nothing of worth: this carrier asks nobody who they are."""
    return Keys(shown={"path": "/messages"}, kept={"note": "this carrier signs nothing"})


class Messages:
    """The simulated carrier; see `seam.Channel`."""

    name = NAME
    prefix = "/messages"
    retry_plan: tuple[float, ...] = ()

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, request: Request) -> Reply:
        """Carry one message."""
        if (request.method, request.path.strip("/")) != ("POST", ""):
            return Reply(404)
        try:
            handed = msgspec.json.decode(request.body, type=Handed)
        except msgspec.MsgspecError as wrong:
            return _json(400, {"reason": str(wrong)[:_SHOWN_MAX]})
        fault = self._world.faults.take(NAME, "send", handed.number).name
        if fault.endswith("_not_done"):
            return _lost(fault)
        if handed.to.endswith(NOBODY):
            return _json(422, {"reason": "number_unknown"})
        state = self._world.state
        name = f"{LETTER}{handed.number}"
        if state.document(NAME, name) is None:
            content = msgspec.json.encode(handed)
            state.put_document(NAME, name, content, self._world.clock.now())
        return _lost(fault) if fault else _json(200, {"reference": f"M{handed.number}"})

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Show what was carried, oldest first: ``inbox``, of one address with ``to``."""
        if (method, path) != ("GET", "inbox"):
            raise Refused(f"no route {path!r}")
        held = sorted(self._world.state.named_documents(NAME, LETTER, 10_000))
        letters = [msgspec.json.decode(content) for _, content in held]
        return [one for one in letters if body.get("to") in {None, one["to"]}]

    def outgoing(self, callback: Callback) -> Outgoing:
        """Nothing is ever notified."""
        raise Refused(f"nobody is told of a {callback.kind}")

    def accepted(self, status: int, body: bytes) -> bool:
        """Nothing is ever notified."""
        del body
        return status == 200

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Nothing is ever notified."""
        return content

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Nobody pays here."""
        raise Refused(f"nobody can {action} {trade.number} at a carrier of messages")

    def new_payment_code(self) -> str:
        """Nobody pays here."""
        raise Refused("a carrier of messages has no payment codes")

    def code_made(self, code: PaymentCode) -> None:
        """Nobody pays here."""

    def act(self, action: str, number: str, argument: str, at: Any) -> None:
        """Nothing is ever put on the agenda."""


def _lost(fault: str) -> Reply:
    status = faults.http_status(fault)
    return Reply(status or 504, ending="answer" if status else "hold")


def _json(status: int, content: object) -> Reply:
    return Reply(status, _JSON, msgspec.json.encode(content))
