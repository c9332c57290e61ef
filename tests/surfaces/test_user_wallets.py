"""Wallets as a service: a merchant's user opens one, and agrees to what is proposed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces.wallet_users import RETURN, TERMS, Visitor
from tongbao_sdk import Tongbao

_users = count(1)


@pytest.fixture
async def stage(shared_stage: Stage) -> AsyncIterator[Stage]:
    await shared_stage.live_together()
    await shared_stage.call(shared_stage.client.wallet_programmes.set, **TERMS)
    yield shared_stage
    await shared_stage.db.fetch("delete from code_allowance", ())


def new_user() -> tuple[str, str]:
    """A user of the merchant's, and a phone that nobody has."""
    number = next(_users)
    return f"user-{number}", f"1381234{number:04d}"


async def applied(stage: Stage, user: str, client: Tongbao | None = None) -> tuple[Any, str]:
    """An application and a link to open it by."""
    asking = client or stage.client
    made = await stage.call(asking.wallet_applications.create, user)
    link = await stage.call(asking.wallet_applications.link, made["id"], RETURN)
    return made, link["url"]


async def test_a_user_opens_a_wallet_and_the_merchant_sees_states_only(stage: Stage) -> None:
    client, (user, phone) = stage.client, new_user()
    made, link = await applied(stage, user)
    assert made["status"] == "created"

    back = await Visitor(stage, phone).open(link)

    assert back == {"wallet_application": made["id"], "status": "opened"}
    found = await stage.call(client.wallet_applications.get, made["id"])
    assert (found["status"], found["user_id"]) == ("opened", user)
    assert not any(word in str(found) for word in (phone, "per_", "eac_", "张"))
    balance = await stage.call(client.wallet_applications.balance, made["id"])
    assert (balance["balance"], balance["status"]) == (0, "active")
