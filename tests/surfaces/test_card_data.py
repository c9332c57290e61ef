"""Card data is refused at every door that people and programs come in by, and kept by none."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from tests.infra.signed_client import call
from tests.stage import Stage
from tongbao.infra.card_watch import FREE, scan

CARD = "4929 4205 7359 5709"  # Luhn-valid, of a documented test range
FORM = {"content-type": "application/x-www-form-urlencoded", "accept-language": "en"}
JSON = {"content-type": "application/json", "accept-language": "en"}
PAGES = (
    "/console/login",
    "/pay/c/unknown",
    "/table/unknown",
    "/hosted_wallet/sign",
    "/my_consents/login",
    "/oauth/authorize/login",
)
PROGRAMS = ("/v1/payments", "/v1/me/sessions", "/oauth/par")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("field", ["reason", "cvn"])
async def test_a_page_takes_none_in_a_form_or_its_address(
    shared_stage: Stage, path: str, field: str
) -> None:
    said = CARD if field == "reason" else "123"
    form = urlencode({field: said}).encode()
    for method, target, body in (("POST", path, form), ("GET", f"{path}?{form.decode()}", b"")):
        reply = await call(shared_stage.app, method, target, FORM, [body])
        assert reply.status == 400, target
        assert b"card_number." in reply.body, target
        assert CARD.encode() not in reply.body


@pytest.mark.parametrize("path", PROGRAMS)
async def test_a_programs_door_takes_none(shared_stage: Stage, path: str) -> None:
    is_form = path == "/oauth/par"
    said = {"note": CARD}
    body = urlencode(said).encode() if is_form else json.dumps(said).encode()
    reply = await call(shared_stage.app, "POST", path, FORM if is_form else JSON, [body])
    assert b"card number" in reply.body
    assert CARD.encode() not in reply.body


async def test_what_nobody_signed_is_kept_without_its_card_number(shared_stage: Stage) -> None:
    [account] = await shared_stage.db.fetch(
        "select notify_token from channel_account where channel = 'wechat_pay'", ()
    )
    address = f"/callbacks/wechat_pay/{account['notify_token']}"
    await call(shared_stage.app, "POST", address, JSON, [json.dumps({"note": CARD}).encode()])
    kept = await shared_stage.db.fetch("select body from inbound_callback", ())
    assert [b"492942******5709" in row["body"] for row in kept] == [True]
    assert [spot async for spot in scan(shared_stage.db)] == []


async def test_wherever_a_sender_names_things_no_name_makes_room_for_a_number(
    shared_stage: Stage,
) -> None:
    document = shared_stage.app.document
    schemas = document["components"]["schemas"]
    waiting = [
        ("", verb["requestBody"])
        for path in document["paths"].values()
        for verb in path.values()
        if "requestBody" in verb
    ]
    free, seen = set(), set()
    while waiting:
        name, found = waiting.pop()
        match found:
            case {"$ref": str(ref)} if ref not in seen:
                seen.add(ref)
                waiting.append((name, schemas[ref.rpartition("/")[2]]))
            case dict():
                if found.get("additionalProperties", False) is not False:
                    free.add(name)
                for key, inside in found.get("properties", {}).items():
                    waiting.append((key, inside))
                waiting += [
                    (name, inside)
                    for key, inside in found.items()
                    if key not in {"properties", "examples"}
                ]
            case list():
                waiting += [(name, inside) for inside in found]

    assert len(seen) > 50
    assert free == FREE
