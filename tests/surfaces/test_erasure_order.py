"""Who is erased while they do something: one waits for the other, and nobody waits for both."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.parties.card_people import resident_id
from tests.parties.test_person_locks import Gate, until_one_waits
from tests.stage import Stage
from tests.surfaces.test_person_notices import Owner
from tongbao.infra.db_failures import LockNotFree
from tongbao.parties.people.dossier import erase_person, own_contributors, person_with_id

ACTS: dict[str, tuple[str, dict[str, Any]]] = {
    "opening": ("/v1/me/e_accounts", {"account_class": 3}),
    "another factor": ("/v1/me/authenticators", {"kind": "totp", "name": "app"}),
    "another password": ("/v1/me/password", {"password": "Another-otter-43"}),
}


async def confirmed_but_not_done(owner: Owner, path: str, fields: dict[str, Any]) -> None:
    """Prove all that an act needs, and leave the act itself."""
    asked = await owner.phone.post(path, **fields)
    assert asked.code == "authentication.step_up_required", asked.body
    found = asked.json["facts"]["confirmation"]
    for method in ("password", "message_code"):
        assert (await owner.phone.prove(found, method)).status == 200


@pytest.mark.parametrize("act", ACTS)
async def test_an_act_and_an_erasure_take_the_person_before_the_confirmation(
    shared_stage: Stage, act: str
) -> None:
    """The erasure holds the person and has not come to the confirmations when the act begins."""
    path, fields = ACTS[act]
    owner = Owner(shared_stage)
    await owner.register()
    name = {"name": "张三", "resident_id": resident_id(int(owner.number[-3:]))}
    await owner.phone.post("/v1/me/identity", **name)
    await owner.phone.post("/v1/me/identity/checks", source="residents")
    await confirmed_but_not_done(owner, path, fields)
    db, gate = shared_stage.db, Gate()
    parts = (gate.part, *own_contributors(shared_stage.platform.keyring))
    erasing = asyncio.create_task(erase_person(db, parts, owner.id, actor="test"))
    await gate.reached.wait()
    acting = asyncio.create_task(owner.phone.post(path, **fields))
    await until_one_waits(db)
    gate.open.set()

    try:
        await erasing
    except LockNotFree:
        pytest.fail("the act held the confirmation while it waited for the person")
    answer = await acting
    assert (answer.status, answer.code) == (422, "authentication.confirmation_used"), answer.body
    assert (await person_with_id(db, owner.id)).state == "erased"
    await db.fetch("delete from code_allowance", ())
