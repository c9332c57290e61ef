"""Operators' second factors at the console: passkeys, recovery codes, and what a setting asks."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any

import pyotp
import pytest

from tests.parties.phones import Key
from tests.stage import Stage
from tests.surfaces.visitors import PASSWORD, Person, Reader, hire, reader
from tongbao.infra import audit
from tongbao.kernel.clock import real_now
from tongbao.parties.authentication.passkeys import site_of
from tongbao.parties.identity.model import LoginRefused
from tongbao.parties.identity.sessions import log_in

_people = count(1)
CODE = re.compile(r"[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}")


class Wrist:
    """A watch that goes on by a step with every code that is read from it."""

    def __init__(self, totp: pyotp.TOTP) -> None:
        self.totp, self.steps = totp, -1

    def code(self) -> str:
        """One of the three codes that are good now, each once."""
        self.steps += 1
        assert self.steps < 3
        return self.totp.at(real_now() + timedelta(seconds=30 * (self.steps - 1)))


@pytest.fixture
async def person(shared_stage: Stage) -> Person:
    return await hire(shared_stage, login=f"own.{next(_people)}")


@pytest.fixture
def wrist(person: Person) -> Wrist:
    return Wrist(person.totp)


@pytest.fixture
async def visitor(shared_stage: Stage, person: Person, wrist: Wrist) -> AsyncIterator[Reader]:
    async with reader(shared_stage) as one:
        await one.follow(await one.log_in(person, code=wrist.code()))
        yield one


def options_on(page: Any) -> dict[str, Any]:
    found = re.findall(r'data-passkey="([^"]+)"', page.text)
    options: dict[str, Any] = json.loads(html.unescape(found[0]))
    return options


def key_of(stage: Stage) -> Key:
    site = site_of(stage.url)
    return Key(site.origins[0], site.id)


async def test_a_passkey_is_enrolled_and_logs_in(
    shared_stage: Stage, person: Person, wrist: Wrist, visitor: Reader
) -> None:
    key = key_of(shared_stage)
    page = await visitor.get("/console/me")
    wrong = await visitor.send(
        "/console/me/passkeys",
        name="desk key",
        password="wrong",
        code="000000",
        response=json.dumps(key.create(options_on(page))),
    )
    page = await visitor.get("/console/me")
    added = await visitor.send(
        "/console/me/passkeys",
        name="desk key",
        password=PASSWORD,
        code=wrist.code(),
        response=json.dumps(key.create(options_on(page))),
    )

    assert wrong.status_code == 401
    assert "desk key" in (await visitor.follow(added)).text

    async def by_passkey(one: Reader, key: Key, password: str = PASSWORD) -> Any:
        page = await one.get("/console/login?with=passkey")
        response = json.dumps(key.get(options_on(page)))
        fields = {"login": person.login, "password": password, "response": response}
        return await one.send("/console/login", **fields)

    async with reader(shared_stage) as new:
        assert (await by_passkey(new, key, "wrong")).status_code == 401
        assert (await by_passkey(new, key_of(shared_stage))).status_code == 401
        assert (await by_passkey(new, key)).status_code == 303
    acts = await audit.entries_of_actions(shared_stage.db, ["operator.logged_in"])
    assert acts[-1].facts == {"by": "passkey"}


async def test_a_recovery_code_is_good_for_one_login(
    shared_stage: Stage, person: Person, wrist: Wrist, visitor: Reader
) -> None:
    await visitor.get("/console/me")
    made = await visitor.send("/console/me/recovery-codes", password=PASSWORD, code=wrist.code())
    codes = CODE.findall(made.text)
    assert len(codes) == 10
    again = (await visitor.get("/console/me")).text

    assert not CODE.findall(again.partition("<main")[2])
    assert "10 left" in again
    async with reader(shared_stage) as new:
        assert (await new.log_in(person, code=codes[0].upper())).status_code == 303
    async with reader(shared_stage) as new:
        assert (await new.log_in(person, code=codes[0])).status_code == 401
        assert (await new.log_in(person, code=codes[1], password="wrong")).status_code == 401
        assert (await new.log_in(person, code=codes[1])).status_code == 303


async def test_where_a_passkey_is_asked_for_a_code_is_not_enough(
    shared_stage: Stage, person: Person, wrist: Wrist
) -> None:
    db, keyring = shared_stage.db, shared_stage.platform.keyring
    terms: dict[str, Any] = {"login": person.login, "password": PASSWORD, "factor": "passkey"}

    first = await log_in(db, keyring, code=wrist.code(), **terms)
    await db.fetch(
        "insert into passkey (id, owner_id, credential_id, public_key, sign_count,"
        " may_be_backed_up, is_backed_up, name, aaguid, state, created_at)"
        " values ($1, $1, '\\x01', '\\x02', 0, false, false, 'x', '', 'active', $2)",
        (first.session.operator.id, real_now()),
    )

    with pytest.raises(LoginRefused):
        await log_in(db, keyring, code=wrist.code(), **terms)
    await log_in(db, keyring, code=wrist.code(), **{**terms, "factor": "any"})


async def test_the_script_is_allowed_by_its_nonce_and_nothing_is_inline(visitor: Reader) -> None:
    for path in ("/console/me",):
        page = await visitor.get(path)
        nonce = re.findall(r'nonce="([^"]+)"', page.text)[0]
        assert f"'nonce-{nonce}'" in page.headers["content-security-policy"]
        assert "passkey" in re.findall(r'<script src="([^"]+)"', page.text)[0]
        assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)


async def test_a_password_is_changed_by_who_proves_themselves_and_every_session_ends(
    shared_stage: Stage, person: Person, wrist: Wrist, visitor: Reader
) -> None:
    chosen = "seven quiet herons"
    await visitor.get("/console/me")
    known = {"new_password": chosen, "again": chosen, "password": PASSWORD}

    differs = await visitor.send("/console/me/password", **known | {"again": "x" * 12, "code": "1"})
    unproved = await visitor.send("/console/me/password", **known | {"code": "000000"})
    weak = {"new_password": "tongbao for ever", "again": "tongbao for ever"}
    refused = await visitor.send("/console/me/password", **known | weak | {"code": wrist.code()})
    done = await visitor.send("/console/me/password", **known | {"code": wrist.code()})

    assert [each.status_code for each in (differs, unproved, refused)] == [400, 401, 422]
    assert done.headers["location"] == "/console/login"
    assert (await visitor.get("/console/me")).status_code == 303, "this session too is over"
    changed = await audit.entries_of_actions(shared_stage.db, ["operator.password_set"])
    assert changed[-1].actor == changed[-1].subject
