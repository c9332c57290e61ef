"""Every role at every page of the console, every scope at every route: from the routers' lists.

Both lists are those of the application as it is deployed, with what wiring hands in, so whatever is
added tomorrow is in them. No form or body is good here, so nothing is done.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest

from tests.infra.signed_client import Reply, SignedClient, call
from tests.stage import Stage
from tests.surfaces.test_console import OPEN_TO_ANYBODY
from tests.surfaces.visitors import hire, reader
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import create_key
from tongbao.parties.identity.model import ROLES, Role, scopes_under

CONSOLE = "/console"
FOREIGN = b"form_token=not-of-this-session"


def pages(stage: Stage) -> list[Any]:
    """Every page and act of the console as it is deployed."""
    found = list(stage.app._mounts[CONSOLE]._routes)
    assert len(found) > 150, "the pages of other rooms are among them"
    return found


async def at(stage: Stage, route: Any, cookie: str = "") -> Reply:
    """Ask for a page as a link of ours would; of an act, send a form that is none of ours."""
    path = CONSOLE + re.sub(r"\{\w+\}", "x", route.pattern)
    headers = {"cookie": cookie, "sec-fetch-site": "same-origin", "accept-language": "en"}
    body = b""
    if route.method != "GET":
        body, headers["content-type"] = FOREIGN, "application/x-www-form-urlencoded"
    return await call(stage.app, route.method, path, headers, [body])


async def test_nobody_without_a_session_sees_or_does_anything(shared_stage: Stage) -> None:
    for route in pages(shared_stage):
        reply, named = await at(shared_stage, route), (route.method, route.pattern)
        assert (route.permission is None) == (named in OPEN_TO_ANYBODY), named
        if route.permission is not None:
            assert reply.status == 303, named
            assert reply.headers["location"].startswith("/console/login"), named
            assert not reply.body, named


@pytest.mark.parametrize("role", Role)
async def test_a_role_may_what_the_table_says_and_nothing_else(
    shared_stage: Stage, role: Role
) -> None:
    person = await hire(shared_stage, role, login=f"roles.{role.value}")
    seen: Counter[bool] = Counter()
    async with reader(shared_stage, person) as one:
        cookie = "; ".join(f"{name}={value}" for name, value in one.client.cookies.items())
        for route in pages(shared_stage):
            if route.permission is None:
                continue
            reply = await at(shared_stage, route, cookie)
            may, named = route.permission in ROLES[role], (route.method, route.pattern)
            seen[may] += 1
            assert (b"operator.permission_missing" in reply.body) == (not may), named
            if not may:
                assert reply.status == 403, named
            elif route.method != "GET":
                assert (reply.status, b"csrf_token_wrong" in reply.body) == (403, True), named
            else:
                assert reply.status in {200, 303, 400, 404}, named
    assert seen[True] > 30
    assert (seen[False] > 30) == (role is not Role.ADMIN)


async def test_every_route_of_the_api_wants_its_scope_and_no_other(shared_stage: Stage) -> None:
    """A key with that scope alone is let in; one with every scope but that is refused."""
    stage, licence = shared_stage, shared_stage.platform.settings.licence
    every = set(scopes_under(licence))
    wanted = {each.access.scope for each in stage.app.operations}
    assert wanted <= every
    for scope in sorted(wanted):
        only, without = [await key_with(stage, held) for held in ({scope}, every - {scope})]
        for operation in stage.app.operations:
            if operation.access.scope != scope:
                continue
            target = re.sub(r"\{\w+\}", "x", operation.path)
            sent = a_file(stage, operation)
            let_in = await only.send(operation.method, target, **sent)
            refused = await without.send(operation.method, target, **sent)
            assert (refused.status, refused.code) == (403, "auth.scope_missing"), target
            assert let_in.code != "auth.scope_missing", target
            assert let_in.status < 500, target


def a_file(stage: Stage, operation: Any) -> dict[str, Any]:
    """What a route of files wants to be sent before it looks at anything else; else nothing."""
    told = stage.app.document["paths"][operation.path][operation.method.lower()]
    [kind, *_] = [*told.get("requestBody", {}).get("content", {}), "application/json"]
    if kind == "application/json":
        return {}
    digest = b64encode(sha256(b"a file").digest()).decode()
    headers = {"content-type": kind, "content-digest": f"sha-256=:{digest}:"}
    return {"body": b"a file", "headers": headers}


async def key_with(stage: Stage, scopes: set[str]) -> SignedClient:
    """A client of the shop's whose key has these scopes."""
    async with stage.db.begin("operator") as tx:
        made = await create_key(
            tx,
            stage.platform.keyring,
            stage.shop.merchant.id,
            Mode.SANDBOX,
            licence=stage.platform.settings.licence,
            name="one scope",
            scopes=sorted(scopes),
        )
    return SignedClient(stage.app, show("key", made.key.id), made.secret.reveal())
