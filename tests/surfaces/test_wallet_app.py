"""The wallet app on the whole platform: wired, its messages carried, its registers asked."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2 as httpx
import pytest

from tests.parties.phones import PASSWORD, Phone, address
from tests.stage import Stage
from tongbao.infra.notify.model import Kind, Message
from tongbao.infra.notify.sending import notifications_of
from tongbao.infra.telemetry import set_up_logging
from tongbao.kernel.ids import parse

NUMBER = "13600136000"
RESIDENT_ID = "110101199003078670"


class SandboxOffice:
    """Messages as the sandbox's carrier shows them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.carrier = self
        self.messages: list[Message] = []

    async def deliver(self) -> None:
        await self.stage.idle()
        found = await asyncio.to_thread(self.stage.sandbox.get, "messages/inbox")
        self.messages = [
            Message(Kind(each["kind"]), each["to"], each["title"], each["text"], each["language"])
            for each in found
        ]

    async def wait(self) -> None:
        await self.stage.db.fetch("delete from code_allowance", ())


@pytest.fixture
async def phone(shared_stage: Stage) -> AsyncIterator[Phone]:
    made = Phone(shared_stage.app, SandboxOffice(shared_stage))
    made.mode = {"mode": "sandbox"}
    yield made
    await shared_stage.db.fetch("delete from code_allowance", ())


async def test_somebody_registers_proves_their_name_and_leaves(
    shared_stage: Stage, phone: Phone
) -> None:
    made = await phone.register(NUMBER)
    assert made.status == 201, made.body
    name = {"name": "张三", "resident_id": RESIDENT_ID}
    await phone.post("/v1/me/identity", **name)
    levels = [
        (await phone.post("/v1/me/identity/checks", source=source)).json["real_name_level"]
        for source in ("residents", "phones", "cards")
    ]
    person_id: UUID = parse("per", made.json["person_id"])

    assert levels == [1, 1, 2]
    found = await shared_stage.db.fetch("select sealed, state from notification", ())
    assert {(row["sealed"], row["state"]) for row in found} == {(None, "sent")}
    assert await notifications_of(shared_stage.db, person_id) == []
    fake = Phone(shared_stage.app, phone.post_office)
    fake.mode = phone.mode
    await fake.register("13600136001")
    await fake.post("/v1/me/identity", name="李假", resident_id="11010119900307109X")
    refused = await fake.post("/v1/me/identity/checks", source="residents")
    assert refused.code == "person.real_name_not_confirmed"


async def test_nothing_of_a_person_is_ever_logged(shared_stage: Stage, phone: Phone) -> None:
    root = logging.getLogger()
    before, stream = (root.handlers[:], root.level), io.StringIO()
    set_up_logging("debug", "json", stream)
    try:
        number = "13400134000"
        made = await phone.register(number)
        await phone.post("/v1/me/identity", name="王小明", resident_id="110101199003071102")
        await phone.post("/v1/me/identity/checks", source="phones")
        code = await phone.code(address(number))
        await phone.log_in(number, password="Wrong-word-1")
    finally:
        root.handlers, root.level = before
    said = stream.getvalue()

    assert "http_request" in said
    for secret in (number, code, "王小明", "110101199003071102", PASSWORD, made.json["token"]):
        assert secret not in said


def test_the_sandbox_plays_a_number_that_nobody_has(shared_stage: Stage) -> None:
    def ask(path: str, **body: Any) -> Any:
        return httpx.post(f"{shared_stage.sandbox.url}/{path}", json=body, trust_env=False)

    letter = {"number": "n1", "kind": "sms", "title": "t", "text": "x", "language": "zh"}
    question = {"number": "q1", "name": "李假", "resident_id": "x", "phone": ""}

    assert ask("messages", to="+8613800130000", **letter).status_code == 422
    first = ask("messages", to="+8613800130001", **letter).json()
    assert ask("messages", to="+8613800130001", **letter).json() == first
    assert ask("messages").status_code == 400
    assert ask("registers/residents", **question).json()["verdict"] == "different"
    assert ask("registers/nowhere", **question).status_code == 404
