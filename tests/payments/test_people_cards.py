"""A person's app, the platform, a card host and a bank: cards bound, and money over them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tests.parties.card_people import pan
from tests.parties.phones import Carrier, Phone
from tests.payments.test_cards import BALANCE, card_host, comes_to, on_card, script
from tests.stage import Stage
from tongbao.infra.notify.model import Message

__all__ = ["card_host"]

AT, CARDS = "/v1/me/e_accounts", "/v1/me/bank_cards"
PHONE, AT_BANK = "13800138000", "13900139000"
CARD = pan(4_711, "625188")


class SandboxPost:
    """Messages as the sandbox got them from the platform's gateway."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.carrier = stage, Carrier()

    async def deliver(self) -> None:
        await self.stage.idle()
        found = await asyncio.to_thread(self.stage.sandbox.get, "messages/inbox")
        self.carrier.messages = [msgspec.convert(each, Message, strict=False) for each in found]

    async def wait(self) -> None:
        await self.stage.db.fetch("delete from code_allowance", ())


async def test_a_card_is_bound_and_fills_and_empties_an_account_over_real_protocols(
    stage: Stage,
) -> None:
    phone = Phone(stage.app, SandboxPost(stage))
    phone.mode = {"mode": "sandbox"}
    assert (await phone.register(PHONE)).status == 201
    await stage.db.fetch("update person_device set bound_at = bound_at - interval '7 days'", ())
    await phone.post("/v1/me/identity", name="张三", resident_id="110101199003078670")
    for source in ("residents", "phones", "tax", "cards", "social_security"):
        assert (await phone.post("/v1/me/identity/checks", source=source)).status < 300
    account = (await phone.confirmed(AT, account_class=3)).json["id"]
    await phone.confirmed(f"{AT}/{account}/activate")

    given = {"number": CARD, "expiry": "4912", "phone": AT_BANK}
    foreign = await phone.confirmed(CARDS, **{**given, "number": pan(4_711, "622848")[:-3] + "921"})
    assert foreign.code in {"bound_card.not_verified", "vault_card.number_wrong"}
    asked = await phone.confirmed(CARDS, **given)
    assert asked.status == 201, asked.body
    shown = asked.json["card"]
    assert (shown["last4"], shown["status"], CARD in repr(asked.body)) == (
        CARD[-4:],
        "verified",
        False,
    )
    text = (await phone.letters(f"+86{AT_BANK}"))[-1].text
    assert CARD[-4:] in text
    sent = {"code_id": asked.json["code_id"], "code": text.split("验证码")[1][:6]}
    at = f"{CARDS}/{shown['id']}"
    assert (await phone.post(f"{at}/confirm", **sent)).json["is_default"] is True
    assert [each["id"] for each in (await phone.get(CARDS)).json] == [shown["id"]]

    async def done(what: str, amount: int, request: str, end: str) -> dict[str, Any]:
        made = await phone.confirmed(
            f"{AT}/{account}/{what}", amount=amount, request_id=request, card=shown["id"]
        )
        assert (made.status, made.json["status"]) == (201, "waiting"), made.body
        await stage.idle()
        await stage.advance(seconds=30)
        found: dict[str, Any] = (await phone.get(f"{AT}/{account}/orders/{made.json['id']}")).json
        assert found["status"] == end, found
        return found

    await done("top_ups", 50_000, "r1", "done")
    assert await on_card(stage, CARD) == (BALANCE - 50_000, 0)
    await script(stage, "time_out_done")  # taken, and never answered: it is taken back
    failed = await done("top_ups", 7_000, "r2", "failed")
    assert failed["code"] == "e_account.bank_silent"
    assert await comes_to(stage, CARD, (BALANCE - 50_000, 0))
    await done("withdrawals", 20_000, "r3", "done")
    assert (await phone.get(f"{AT}/{account}")).json["balance"] == 30_000
    postings = await stage.db.fetch(
        "select c.code, sum(t.amount)::bigint as amount from ledger_transfer t"
        " join ledger_code c on c.number = t.code where c.code like 'e_account.%' group by c.code",
        (),
    )
    assert {row["code"].split("/")[0]: row["amount"] for row in postings} == {
        "e_account.landed": 50_000,
        "e_account.leaving": 20_000,
        "e_account.left": 20_000,
    }
    gone = await phone.confirmed(f"{at}/unbind")
    assert gone.json["status"] == "unbound"
    after = await phone.confirmed(
        f"{AT}/{account}/top_ups", amount=1, request_id="r4", card=shown["id"]
    )
    assert after.code == "bound_card.over"

    virtual = f"{AT}/{account}/virtual_cards"
    issued = await phone.confirmed(virtual, request_id="v1", limits={"each_max": 900})
    assert (issued.status, issued.json["status"]) == (201, "active"), issued.body
    card = {"card_number": issued.json["number"], "expiry": issued.json["expiry"]}
    assert (await phone.confirmed(virtual, request_id="v1")).json["number"] is None
    second = (await phone.confirmed(AT, account_class=2)).json["id"]
    await phone.confirmed(f"{AT}/{second}/activate")
    charges = f"{AT}/{second}/card_charges"
    paid = await phone.post(charges, **card, amount=900, request_id="p1")
    assert (paid.status, paid.json["amount"]) == (201, 900), paid.body
    refused = await phone.post(charges, **card, amount=901, request_id="p2")
    assert refused.code == "virtual_card.declined"
    one = f"{virtual}/{issued.json['id']}"
    assert (await phone.post(f"{one}/freeze")).json["status"] == "frozen"
    assert (await phone.post(charges, **card, amount=1, request_id="p3")).code == refused.code
    assert (await phone.post(f"{one}/paint")).code == "virtual_card.not_found"
    assert (await phone.confirmed(f"{one}/close")).json["status"] == "closed"
    assert (await phone.get(f"{AT}/{second}")).json["balance"] == 900
    assert [each["number"] for each in (await phone.get(virtual)).json] == [None]
