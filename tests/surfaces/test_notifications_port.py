"""Messages to people over the port, by the worker and a real gateway: the sandbox's carrier."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.stage import Stage
from tongbao.infra.notify.model import Kind, Message
from tongbao.infra.notify.sending import notifications_of, queue_message
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Mode

ADDRESSES = {
    Kind.SMS: "+8613700137{:03}",
    Kind.MAIL: "reader-{}@mail.example",
    Kind.PUSH: "device-token-{}",
}


def letter(kind: Kind, at: int) -> Message:
    return Message(kind, ADDRESSES[kind].format(at), "通宝", "您的账户有变动", "zh")


async def queued(stage: Stage, message: Message, subject: UUID) -> UUID:
    async with stage.db.begin("tests") as tx:
        return await queue_message(
            *(tx, stage.platform.keyring, message),
            mode=Mode.SANDBOX,
            purpose="tests",
            subject=subject,
        )


async def inbox(stage: Stage, address: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await asyncio.to_thread(
        stage.sandbox.get, "messages/inbox", to=address
    )
    return found


@pytest.mark.parametrize("kind", Kind)
async def test_a_message_of_each_kind_arrives_and_its_text_is_not_kept(
    shared_stage: Stage, kind: Kind
) -> None:
    subject, message = uuid4(), letter(kind, 1)
    made = await queued(shared_stage, message, subject)
    await shared_stage.idle()

    [carried] = await inbox(shared_stage, message.to)
    assert (carried["kind"], carried["text"]) == (kind.value, message.text)
    assert carried["number"] == base32(made)
    [kept] = await notifications_of(shared_stage.db, subject)
    assert (kept.kind, kept.state, kept.sealed) == (kind, "sent", None)


@pytest.mark.parametrize("kind", Kind)
async def test_what_was_carried_and_not_answered_is_carried_once(
    shared_stage: Stage, kind: Kind
) -> None:
    """The gateway is given the same number again, and the person hears it once."""
    subject, message = uuid4(), letter(kind, 2)
    shared_stage.sandbox.fault("messages", "send", "http_500_done")
    await queued(shared_stage, message, subject)
    await shared_stage.idle()
    [kept] = await notifications_of(shared_stage.db, subject)
    assert kept.state == "waiting"
    await shared_stage.advance(seconds=6)

    assert len(await inbox(shared_stage, message.to)) == 1
    [kept] = await notifications_of(shared_stage.db, subject)
    assert kept.state == "sent"


@pytest.mark.parametrize("kind", Kind)
async def test_what_a_gateway_will_not_carry_is_not_tried_again(
    shared_stage: Stage, kind: Kind
) -> None:
    subject, message = uuid4(), letter(kind, 3)
    nobody = Message(kind, message.to + "0000", message.title, message.text, "en")
    await queued(shared_stage, nobody, subject)
    await shared_stage.idle()
    [kept] = await notifications_of(shared_stage.db, subject)
    assert (kept.state, kept.sealed) == ("refused", None)
    assert await inbox(shared_stage, nobody.to) == []
