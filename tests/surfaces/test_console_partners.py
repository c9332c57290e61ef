"""Partners in the console: taken on and changed by two, suspended by one."""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces.partnering import Es256
from tests.surfaces.visitors import hire, reader
from tongbao.kernel.ids import parse
from tongbao.parties.identity.model import Role
from tongbao.parties.partners.model import PartnerState
from tongbao.parties.partners.partners import partner_with_id

_people = count(1)
ROW = re.compile(r'<tr id="(ptn_\w+)"')


def terms(key: Es256, kid: str = "k1", **more: Any) -> dict[str, str]:
    return {
        "name": "Ledger Lens",
        "redirect_uris": "https://app.partner.example/cb\nhttps://app.partner.example/two",
        "kind.account_information": "1",
        "jwks": json.dumps({"keys": [{**key.jwk, "kid": kid}]}),
        "reason": "a licensed firm, contract 12",
        **more,
    }


async def colleague(stage: Stage) -> Any:
    return await hire(stage, login=f"partners.{next(_people)}")


async def agreed(stage: Stage, page: Any) -> None:
    """Somebody else reads what was proposed and agrees."""
    assert page.status_code == 303, page.text
    own = page.headers["location"].partition("?")[0]
    async with reader(stage, await colleague(stage)) as other:
        await other.get(own)
        done = await other.send(f"{own}/approve", note="checked")
        assert done.status_code == 303, done.text
    await stage.idle()


async def test_a_partner_is_taken_on_and_changed_by_two_and_suspended_by_one(
    shared_stage: Stage,
) -> None:
    db, key, fresh = shared_stage.db, Es256(), Es256()
    async with reader(shared_stage, await colleague(shared_stage)) as one:
        empty = await one.get("/console/partners")
        assert "No partner yet" in empty.text
        wrong = await one.send("/console/partners/new", mode="sandbox", **terms(key, jwks="no"))
        assert wrong.status_code == 400
        await one.get("/console/partners")
        page = await one.send("/console/partners/new", mode="sandbox", **terms(key))
        assert ROW.findall((await one.get("/console/partners")).text) == []
        await agreed(shared_stage, page)
        [client_id] = ROW.findall((await one.get("/console/partners?status=active")).text)
        assert ROW.findall((await one.get("/console/partners?mode=live")).text) == []
        own = f"/console/partners/{client_id}"
        shown = await one.get(own)
        assert "https://app.partner.example/two" in shown.text
        assert key.jkt in shown.text

        suspended = await one.follow(await one.send(f"{own}/suspend", because="asks too much"))
        assert "The partner is suspended." in suspended.text
        row = await partner_with_id(db, parse("ptn", client_id))
        assert row.state is PartnerState.SUSPENDED
        at = {"changed_at": row.changed_at.isoformat(), "state": "active"}
        await one.get(own)
        earlier = {**at, "changed_at": "then"}
        stale = await one.send(f"{own}/change", **terms(fresh, "k2", **earlier))
        assert stale.status_code == 400
        await one.get(own)
        certified = {
            "auth_method": "tls_client_auth",
            "name_kind": "san_dns",
            "certificate_name": "api.lens.example",
            "binds_certificate": "1",
        }
        certified["webhook_url"] = "https://hooks.partner.example/consents"
        odd = await one.send(f"{own}/change", **terms(fresh, "k2", **at, auth_method="guess"))
        assert odd.status_code == 400
        await one.get(own)
        page = await one.send(f"{own}/change", **terms(fresh, "k2", **at, **certified))
        assert "waits for another operator" in (await one.get(own)).text
        await agreed(shared_stage, page)
        row = await partner_with_id(db, parse("ptn", client_id))
        assert (row.state, [each["kid"] for each in row.jwks]) == ("active", ["k2"])
        assert (row.auth_method, row.binds_certificate) == ("tls_client_auth", True)
        shown = (await one.get(own)).text
        assert "api.lens.example" in shown
        assert re.search(r"hooks\.partner\.example/consents</code>\s*<code>whpk_", shown)


async def test_who_only_looks_sees_no_forms_and_can_do_nothing(shared_stage: Stage) -> None:
    viewer = await hire(shared_stage, login=f"partners.{next(_people)}", role=Role.VIEWER)
    async with reader(shared_stage, viewer) as one:
        page = await one.get("/console/partners")
        token = {"form_token": "x", "mode": "sandbox"}
        refused = await one.post("/console/partners/new", {**terms(Es256()), **token})
    assert 'name="jwks"' not in page.text
    assert refused.status_code == 403


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_the_pages_are_there_in_both_languages(shared_stage: Stage, language: str) -> None:
    async with reader(shared_stage, await colleague(shared_stage)) as one:
        page = await one.get("/console/partners", **{"accept-language": language})
    assert {"zh": "合作方", "en": "Partners"}[language] in page.text
