"""Registers that know who people are, simulated: residents, phones, cards, tax, social security.

    POST /registers/{source}  {"number", "name", "resident_id", "phone"}  ─►  {"verdict", …}

    POST /registers/bank_cards  {…, "card_number"}  ─►  {"verdict", "reference", "account_class"}

A name that ends in 假 is in no register; one that ends in 慢 is never answered about. A question is
answered the same however often it is asked under its number. A card is of an account of class 2 or
3 where its last digit but one says so, and of class 1 otherwise; one whose digit before that is 9
is not the asker's.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao_sandbox import faults
from tongbao_sandbox.messages import Messages
from tongbao_sandbox.seam import Keys, Refused, Reply, Request, World

NAME: Final = "registers"
SOURCES: Final = ("residents", "phones", "cards", "tax", "social_security")
NOBODY: Final = "假"
SILENT: Final = "慢"
BANK_CARDS: Final = "bank_cards"
_JSON: Final = (("content-type", "application/json"),)

faults.allow("ask", "http_500_not_done", "time_out_done")


class Question(Struct, frozen=True):
    """Whether these belong together."""

    number: str
    name: str
    resident_id: str
    phone: str = ""
    card_number: str = ""


def make_keys() -> Keys:
    """Return the names of the registers, which is all that is needed to ask."""
    return Keys(shown={"sources": " ".join(SOURCES)}, kept={"note": "nothing is signed"})


class Registers(Messages):
    """The simulated registers; like a carrier of messages they call nobody and take no money."""

    name = NAME
    prefix = "/registers"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._faults = world.faults

    def answer(self, request: Request) -> Reply:
        """Answer one question."""
        source = request.path.strip("/")
        if request.method != "POST" or source not in {*SOURCES, BANK_CARDS}:
            return Reply(404)
        try:
            asked = msgspec.json.decode(request.body, type=Question)
        except msgspec.MsgspecError:
            return Reply(400)
        fault = self._faults.take(NAME, "ask", asked.number).name
        if fault or asked.name.endswith(SILENT):
            status = faults.http_status(fault) if fault else None
            return Reply(status or 504, ending="answer" if status else "hold")
        verdict = "different" if asked.name.endswith(NOBODY) else "same"
        content: dict[str, Any] = {"reference": f"{source}-{asked.number}"}
        if source == BANK_CARDS:
            if not 12 <= len(asked.card_number) <= 19 or not asked.phone:
                return Reply(400)
            verdict = "different" if asked.card_number[-3] == "9" else verdict
            content["account_class"] = {"2": 2, "3": 3}.get(asked.card_number[-2], 1)
        return Reply(200, _JSON, msgspec.json.encode({"verdict": verdict, **content}))

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Nothing can be told to a register."""
        del body
        raise Refused(f"no route {method} {path!r}")
