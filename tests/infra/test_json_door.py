"""Doors that take JSON: what is sent, and what an answer that cannot be read is worth."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from msgspec import Struct

from tests.infra import webhook_receiver
from tests.infra.webhook_receiver import Receiver, answer
from tongbao.infra.http import HttpClient, HttpSilence, LoopbackAllowed
from tongbao.infra.json_door import JsonDoor
from tongbao.infra.notify.gateway import HttpGateway
from tongbao.infra.notify.model import Message, Unclear
from tongbao.infra.settings import Secret
from tongbao.rails.registers.client import UNKNOWN, HttpRegister, Said

UNREADABLE = (b"<html>", b"\xff", b'{"verdict": 1, "reference": 2}', b"[]")

receiver = webhook_receiver.receiver


class Verdict(Struct, frozen=True):
    verdict: str
    reference: str = ""


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(LoopbackAllowed())
    yield client
    await client.close()


async def test_a_document_goes_out_under_the_token_and_its_answer_is_read(
    receiver: Receiver, http: HttpClient
) -> None:
    receiver.answers = [answer(422, b'{"verdict": "no", "more": 1}')]
    door = JsonDoor(http, receiver.url, Secret("word"), timeout_s=5.0)

    assert await door.ask({"name": "张三"}, Verdict) == (422, Verdict("no"))

    [got] = receiver.received
    assert json.loads(got.body) == {"name": "张三"}
    assert got.headers["authorization"] == "Bearer word"
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize("body", UNREADABLE)
async def test_an_answer_that_cannot_be_read_is_none(
    receiver: Receiver, http: HttpClient, body: bytes
) -> None:
    receiver.answers = [answer(200, body)] * 3

    with pytest.raises(HttpSilence, match="unreadable"):
        await JsonDoor(http, receiver.url, None, timeout_s=5.0).ask({}, Verdict)
    message = Message("sms", "13800138000", "title", "text", "zh")
    assert await HttpGateway(http, receiver.url).send("n-1", message) == Unclear("unreadable")
    register = HttpRegister(http, receiver.url)
    said = await register.ask("n-2", name="张三", resident_id="1", phone="2")
    assert said == Said(UNKNOWN)
    assert "authorization" not in receiver.received[-1].headers
