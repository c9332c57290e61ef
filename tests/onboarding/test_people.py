"""Stores and the people in them: whose they are, where they work, and who sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.infra.signed_client import SignedClient
from tests.onboarding.applicants import Applicant
from tests.stage import Stage, new_number
from tongbao.infra.crypto import SealUnreadable
from tongbao.kernel.ids import parse
from tongbao.parties.identity.model import SCOPES
from tongbao.parties.staff import _store as store
from tongbao.parties.staff.model import STAFF_MAY, Person, StaffRole, may
from tongbao.parties.staff.staff import person_of

PLACE = {"area_code": "330106", "address": "文三路1号"}


async def opened(applicant: Applicant, **more: Any) -> Any:
    said = {"store_no": new_number(), "name": "西溪店", "place": PLACE, **more}
    return await applicant.ask("POST", "/v1/stores", said)


def phone() -> str:
    return f"138{int(new_number()[:7], 16):09d}"


async def hired(applicant: Applicant, **more: Any) -> Any:
    said = {"role": "cashier", "name": "李四光", "phone": phone(), "every_store": True, **more}
    return await applicant.ask("POST", "/v1/staff", said)


async def test_a_store_has_its_own_number_and_place(applicant: Applicant) -> None:
    point = {"latitude": "30.276001", "longitude": "-120.12"}
    _, made = await opened(applicant, place=PLACE | {"point": point})
    again, taken = await opened(applicant, store_no=made["store_no"])
    off, wrong = await opened(applicant, place=PLACE | {"point": point | {"latitude": "90.1"}})
    path = f"/v1/stores/{made['id']}"
    change = {"name": "新西溪店", "place": PLACE, "status": "closed"}

    _, closed = await applicant.ask("POST", path, change)

    assert made["place"]["point"]["latitude"] == "30.276001"
    assert (again, taken["code"]) == (409, "store.number_used")
    assert (off, wrong["code"]) == (400, "request.invalid_value")
    assert (closed["name"], closed["status"]) == ("新西溪店", "closed")
    assert (await applicant.ask("GET", path))[1] == closed


async def test_people_are_masked_sealed_and_found_again_by_their_phone(
    applicant: Applicant, stage: Stage
) -> None:
    number = phone()
    _, made = await hired(applicant, phone=f"+{number[:3]} {number[3:]}")
    again, taken = await hired(applicant, phone=number)
    rows = await stage.db.fetch("select staff::text as row from staff", ())
    row = await store.GET_STAFF.one(
        stage.db, parse("stf", made["id"]), stage.shop.merchant.id, "sandbox"
    )

    assert (made["name"], made["phone"]) == ("**光", f"{number[:3]}****{number[-4:]}")
    assert (again, taken["code"]) == (409, "staff.phone_used")
    assert not any(number in each["row"] or "李四" in each["row"] for each in rows)
    keyring = stage.platform.keyring
    assert person_of(keyring, row) == Person("李四光", f"+{number[:3]} {number[3:]}")
    with pytest.raises(SealUnreadable):
        keyring.open("application.personal", row.sealed, b"")


async def test_one_phone_is_one_persons_whoever_is_quicker(applicant: Applicant) -> None:
    number = phone()

    answers = await asyncio.gather(*(hired(applicant, phone=number) for _ in range(4)))

    assert sorted(status for status, _ in answers) == [201, 409, 409, 409]


async def test_where_somebody_works_is_clear_and_the_merchants_own(
    applicant: Applicant, stage: Stage
) -> None:
    _, mine = await opened(applicant)
    other = await stage.open_shop()
    stranger = Applicant(stage)
    stranger.client = SignedClient(stage.app, other.key_id, other.secret.reveal())
    _, theirs = await opened(stranger)
    named = {"every_store": False, "store_ids": [mine["id"]]}

    _, made = await hired(applicant, **named)
    codes = [
        (await hired(applicant, **wrong))[1].get("code")
        for wrong in (
            {"every_store": False},
            {"every_store": True, "store_ids": [mine["id"]]},
            named | {"role": "owner"},
            named | {"store_ids": [theirs["id"]]},
        )
    ]
    path = f"/v1/staff/{made['id']}"
    _, promoted = await applicant.ask("POST", path, {"role": "owner", "every_store": True})

    assert made["store_ids"] == [mine["id"]]
    assert codes == ["staff.stores_unclear"] * 3 + ["store.not_found"]
    assert (promoted["role"], promoted["store_ids"]) == ("owner", [])
    assert (await stranger.ask("GET", path))[0] == 404
    assert (await stranger.ask("POST", f"{path}/leave"))[0] == 404


async def test_who_left_stays_away_and_frees_the_phone(applicant: Applicant) -> None:
    number = phone()
    _, made = await hired(applicant, phone=number)
    path = f"/v1/staff/{made['id']}"

    first, again = [(await applicant.ask("POST", f"{path}/leave"))[1] for _ in range(2)]
    _, refused = await applicant.ask("POST", path, {"role": "manager", "every_store": True})

    assert first == again
    assert first["status"] == "left"
    assert refused["code"] == "staff.left"
    assert (await hired(applicant, phone=number))[0] == 201


def test_roles_are_in_the_words_of_scopes() -> None:
    assert set().union(*STAFF_MAY.values()) <= SCOPES.keys()
    assert not may(StaffRole.CASHIER, "refunds:write")
    assert not may(StaffRole.ACCOUNTANT, "payments:write")
