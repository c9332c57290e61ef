"""People hear what is done with their account: by push where a phone takes it, else by SMS."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import count
from uuid import UUID

import pytest

from tests.dying import dying
from tests.parties.phones import Phone, address
from tests.parties.test_person_locks import until_one_waits
from tests.stage import Stage
from tests.surfaces.test_wallet_app import SandboxOffice
from tongbao.infra.notify.sending import notifications_of
from tongbao.infra.tasks import Lease, LeaseLost, enqueue
from tongbao.kernel.ids import parse
from tongbao.parties.notices import telling
from tongbao.parties.notices.model import TEXTS, Notice, TellPerson, Topic
from tongbao.parties.notices.phones import tokens_of
from tongbao.parties.people import sessions
from tongbao.parties.people.contacts import reach_of
from tongbao.parties.people.dossier import (
    erase_person,
    own_contributors,
    person_with_id,
    set_suspended,
)

_numbers = count(1)


class Owner:
    """Somebody with one phone, in the sandbox's world."""

    def __init__(self, stage: Stage, *, language: str = "zh") -> None:
        self.stage = stage
        self.office = SandboxOffice(stage)
        self.number = f"1390055{next(_numbers):04d}".replace("0000", "9999")
        self.language = language
        self.phone = self.new_phone()
        self.id = UUID(int=0)

    def new_phone(self) -> Phone:
        made = Phone(self.stage.app, self.office)
        made.mode = {"mode": "sandbox"}
        return made

    async def register(self) -> None:
        made = await self.phone.register(self.number, language=self.language)
        assert made.status == 201, made.body
        self.id = parse("per", made.json["person_id"])

    async def log_in_on(self, phone: Phone) -> None:
        asked = await phone.ask_code(self.number, "log_in")
        code = {"code_id": asked.json["code_id"], "code": await phone.code(address(self.number))}
        made = await phone.log_in(self.number, second={"type": "message_code", **code})
        assert made.status == 201, made.body

    async def heard(self, to: str) -> list[str]:
        """The notices that arrived somewhere, without codes."""
        await self.office.deliver()
        told = [each for each in self.office.messages if each.to == to]
        return [each.text for each in told if not re.search(r"\d{6}", each.text)]

    async def tell(self, notice: Notice, spared: UUID | None = None) -> None:
        async with self.stage.db.begin("test") as tx:
            await enqueue(tx, TellPerson(self.id, notice, spared))


@pytest.fixture
async def owner(shared_stage: Stage) -> AsyncIterator[Owner]:
    made = Owner(shared_stage)
    await made.register()
    yield made
    await shared_stage.db.fetch("delete from code_allowance", ())


async def reached(phone: Phone, token: str) -> None:
    done = await phone.send("PUT", "/v1/me/push_token", {"token": token})
    assert done.status == 200, done.body


async def test_a_login_from_a_new_phone_is_told_to_the_phones_before_it(owner: Owner) -> None:
    await reached(owner.phone, "token-of-the-old-phone")
    second = owner.new_phone()
    await owner.log_in_on(second)

    told = TEXTS[Notice.DEVICE_BOUND]["zh"]
    assert await owner.heard("token-of-the-old-phone") == [told]
    assert await owner.heard(address(owner.number)) == []
    await reached(second, "token-of-the-new-phone")
    await owner.log_in_on(second)  # no new phone any more
    assert await owner.heard("token-of-the-new-phone") == []
    assert await owner.heard("token-of-the-old-phone") == [told]


async def test_without_a_token_an_sms_comes_in_the_persons_language(shared_stage: Stage) -> None:
    owner = Owner(shared_stage, language="en")
    await owner.register()
    await owner.log_in_on(owner.new_phone())
    assert await owner.heard(address(owner.number)) == [TEXTS[Notice.DEVICE_BOUND]["en"]]
    await shared_stage.db.fetch("delete from code_allowance", ())


async def test_what_push_does_not_take_goes_by_sms_once(owner: Owner) -> None:
    """The app is gone from one phone, or its token was changed: 0000 is nobody's."""
    second = owner.new_phone()
    await reached(owner.phone, "an-older-token")
    await owner.log_in_on(second)
    await reached(second, "token-of-a-lost-app-0000")
    await owner.tell(Notice.MONEY_OUT)

    told = TEXTS[Notice.MONEY_OUT]["zh"]
    assert await owner.heard(address(owner.number)) == [told]
    assert told in await owner.heard("an-older-token")
    assert await owner.heard("token-of-a-lost-app-0000") == []
    kept = await notifications_of(owner.stage.db, owner.id)
    about = [(each.kind.value, each.state) for each in kept if "money_out" in each.purpose]
    assert sorted(about) == [("push", "refused"), ("push", "sent"), ("sms", "sent")]
    assert {each.sealed for each in kept} == {None}


async def test_a_token_goes_with_its_phone_and_with_its_person(owner: Owner) -> None:
    db, second = owner.stage.db, owner.new_phone()
    await owner.log_in_on(second)
    await owner.office.deliver()
    await reached(owner.phone, "one-token")
    await reached(owner.phone, "another-token")  # in place of the first
    await reached(second, "token-of-the-second")
    shown = (await owner.phone.get("/v1/me/notices")).json
    assert (shown["money"], len(shown["push_devices"])) == (True, 2)
    [rows] = [await db.fetch("select * from person_push_token where person_id = $1", (owner.id,))]
    assert not any(b"token-of" in row["sealed"] for row in rows)

    mine = (await owner.phone.get("/v1/me/devices")).json
    gone = next(each["id"] for each in mine if not each["is_this_one"])
    owner.phone.token, token = owner.phone.token, owner.phone.token
    async with db.begin("test") as tx:
        await sessions.remove_device(tx, owner.id, parse("dev", gone))
    assert [each.device_id for each in await tokens_of(db, owner.id)] != [parse("dev", gone)]
    assert len(await tokens_of(db, owner.id)) == 1
    await owner.tell(Notice.PASSWORD_CHANGED)
    assert TEXTS[Notice.PASSWORD_CHANGED]["zh"] not in await owner.heard("token-of-the-second")
    assert await owner.heard("one-token") == []
    assert await owner.heard("another-token") == [TEXTS[Notice.PASSWORD_CHANGED]["zh"]]

    owner.phone.token = token
    await owner.tell(Notice.MONEY_IN)
    await erase_person(db, own_contributors(owner.stage.platform.keyring), owner.id, actor="test")
    assert await tokens_of(db, owner.id) == []
    await owner.tell(Notice.MONEY_IN)  # of who is gone, nobody hears
    assert await owner.heard("another-token") == [TEXTS[Notice.PASSWORD_CHANGED]["zh"]]
    assert await notifications_of(db, owner.id) == []


async def test_an_app_on_a_phone_tells_one_person_only(owner: Owner) -> None:
    """Whoever logged in last on a borrowed phone hears there, and who was there before does not."""
    other = Owner(owner.stage)
    await other.register()
    await reached(owner.phone, "token-of-one-app")
    await reached(other.phone, "token-of-one-app")
    await owner.tell(Notice.RESUMED)
    await other.tell(Notice.SUSPENDED)
    assert await owner.heard("token-of-one-app") == [TEXTS[Notice.SUSPENDED]["zh"]]
    assert await owner.heard(address(owner.number)) == [TEXTS[Notice.RESUMED]["zh"]]


async def test_who_wants_to_hear_nothing_of_money_still_hears_of_safety(owner: Owner) -> None:
    await reached(owner.phone, "token-of-a-quiet-phone")
    for wrong in ({"token": "short"}, {"token": "with spaces in it"}, {"token": "x" * 513}):
        assert (await owner.phone.send("PUT", "/v1/me/push_token", wrong)).status == 400
    chosen = await owner.phone.send("PUT", "/v1/me/notices", {"money": False})
    assert (chosen.status, chosen.json["money"]) == (200, False)
    for notice in Notice:
        await owner.tell(notice)
    safety = {TEXTS[each]["zh"] for each in Notice if each.topic is Topic.SECURITY}
    assert set(await owner.heard("token-of-a-quiet-phone")) == safety
    await owner.phone.send("PUT", "/v1/me/notices", {"money": True})
    await owner.phone.post("/v1/me/push_token/remove")
    await owner.tell(Notice.MONEY_IN)
    assert await owner.heard(address(owner.number)) == [TEXTS[Notice.MONEY_IN]["zh"]]


async def test_what_changes_who_may_get_in_is_told(owner: Owner) -> None:
    """A second phone hears each of them; the phone that does it does not need to."""
    second = owner.new_phone()
    await owner.log_in_on(second)
    await owner.office.deliver()
    await reached(owner.phone, "token-of-who-does-it")
    await reached(second, "token-of-who-hears")
    enrolled = await owner.phone.confirmed("/v1/me/authenticators", kind="totp", name="app")
    changed = await owner.phone.confirmed("/v1/me/password", password="Another-otter-43")
    assert (enrolled.status, changed.status) == (201, 200), (enrolled.body, changed.body)
    db = owner.stage.db
    for suspended in (True, False):
        async with db.begin("test") as tx:
            await set_suspended(tx, owner.id, suspended=suspended, because="a test")

    wanted = (Notice.FACTOR_CHANGED, Notice.PASSWORD_CHANGED, Notice.SUSPENDED, Notice.RESUMED)
    told = [TEXTS[each]["zh"] for each in wanted]
    assert sorted(await owner.heard("token-of-who-hears")) == sorted(told)
    assert sorted(await owner.heard("token-of-who-does-it")) == sorted(told[2:])


async def test_of_a_phone_put_out_hears_not_only_the_phone_that_put_it_out(owner: Owner) -> None:
    """Somebody got in on a phone of theirs, and puts the owner's out."""
    second = owner.new_phone()
    await owner.log_in_on(second)
    second.contact = owner.number
    await reached(owner.phone, "token-of-the-one-put-out")
    await reached(second, "token-of-who-puts-out")
    mine = (await second.get("/v1/me/devices")).json
    [there] = [each["id"] for each in mine if not each["is_this_one"]]

    removed = await second.confirmed(f"/v1/me/devices/{there}/remove")

    assert removed.status == 200, removed.body
    told = TEXTS[Notice.DEVICE_REMOVED]["zh"]
    assert told not in await owner.heard("token-of-who-puts-out")
    assert told in await owner.heard(address(owner.number))


def test_nothing_personal_stands_in_what_lights_up_on_a_locked_phone() -> None:
    assert set(TEXTS) == set(Notice)
    for texts in TEXTS.values():
        assert not any(re.search(r"[{}\d]|\*\*", text) for text in texts.values())
        assert (texts["zh"][:4], texts["en"][:9]) == ("【通宝】", "[Tongbao]")


async def test_a_teller_that_dies_tells_nothing_twice(owner: Owner) -> None:
    stage, task = owner.stage, TellPerson(owner.id, Notice.FROZEN)
    async with stage.db.begin("test") as tx:
        await enqueue(tx, task, run_at=tx.now.replace(year=tx.now.year + 1))
    [row] = await stage.db.fetch(
        "update task set attempt = 1, lease_until = run_at"
        " where type = 'people.tell' and args->>'person_id' = $1 returning id",
        (str(owner.id),),
    )
    lease, keyring = Lease(row["id"], 1), stage.platform.keyring
    with dying("notices.before_commit"):
        await telling.run_tell(stage.db, keyring, reach_of, task, lease)
    assert await notifications_of(stage.db, owner.id) == []
    await telling.run_tell(stage.db, keyring, reach_of, task, lease)
    with pytest.raises(LeaseLost):
        await telling.run_tell(stage.db, keyring, reach_of, task, lease)
    assert await owner.heard(address(owner.number)) == [TEXTS[Notice.FROZEN]["zh"]]


async def test_a_token_set_while_its_person_is_erased_does_not_stay(owner: Owner) -> None:
    db, keyring = owner.stage.db, owner.stage.platform.keyring
    person = await person_with_id(db, owner.id)
    async with db.begin("test") as tx:
        await reach_of(tx, keyring, owner.id)  # holds the person as whoever sets a token does
        erasing = asyncio.create_task(
            erase_person(db, own_contributors(keyring), owner.id, actor="test")
        )
        await until_one_waits(db)
        late = owner.phone.send("PUT", "/v1/me/push_token", {"token": "late-token"})
        setting = asyncio.create_task(late)
        await asyncio.sleep(0)
    await erasing
    answer = await setting
    assert answer.status in {200, 401}, answer.body
    assert await tokens_of(db, owner.id) == []
    assert person.state == "active"
