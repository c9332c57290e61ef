"""The API keeps what its own document promises, under data nobody thought of."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import os
import re
import secrets
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import requests
import schemathesis
from schemathesis.engine import events, from_schema

from tests.infra.signed_client import SignedClient
from tests.stage import Stage, new_number, staged
from tests.surfaces.crawl import ID
from tests.surfaces.everything import (
    have_terminal,
    keep_card,
    object_to,
    pay_by_wallet,
    sell,
    share,
    something_of_everything,
)
from tests.surfaces.receiver import receiving
from tests.surfaces.wallet_users import RETURN
from tongbao.infra import test_clock
from tongbao.infra.db import Db
from tongbao.kernel.ids import new_id, show
from tongbao.ledger.verify import verify
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk.signing import authorization

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
)
METHODS = {"GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "QUERY"}
CAMPAIGN = int(os.environ.get("TONGBAO_CAMPAIGN", "1"))
EXAMPLES = 2 * CAMPAIGN
SEED = 20261121 if CAMPAIGN == 1 else secrets.randbelow(2**32)


@pytest.fixture
async def stage(db: Db, tmp_path: Path, sandbox: RunningSandbox) -> AsyncIterator[Stage]:
    async with staged(db, tmp_path, sandbox, test_clock_shared=True) as ready:
        yield ready


class Signer(requests.auth.AuthBase):
    """Signs what is about to be sent, as the SDK would.

    It does not let its own key be ended; and where a route ends a thing that others need alive, the
    route gets a spare one instead, or is asked by another merchant.

    Every other idempotency key is made new, or chance, which likes short texts, would repeat them.
    """

    def __init__(self, key_id: str, secret: str) -> None:
        self._key_id = key_id
        self._secret = secret
        self._calls = 0
        self.spares: dict[str, Sequence[str]] = {}  # by the last word of the path
        self.others: dict[str, Signer] = {}  # by the path

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert request.url is not None
        assert request.method is not None
        if other := self.others.get(urlsplit(request.url).path):
            return other(request)
        if request.url.endswith(("/revoke", "/roll")):
            request.url = request.url.replace(self._key_id, show("key", new_id()))
        for spare in self.spares.get(urlsplit(request.url).path.rpartition("/")[2], ()):
            request.url = re.sub(spare[:4] + "[0-9a-z]{26}", spare, request.url)
        self._calls += 1
        key = request.headers.get("Idempotency-Key", "")
        if self._calls % 2 and 0 < len(key) < 200:
            request.headers["Idempotency-Key"] = f"{key}-{uuid4()}"
        body = request.body or b""
        told = request.headers.get("Content-Digest", "")
        if re.fullmatch("sha-256=:[A-Za-z0-9+/]{43}=:", told) and isinstance(body, bytes):
            digest = b64encode(hashlib.sha256(body).digest()).decode()
            request.headers["Content-Digest"] = f"sha-256=:{digest}:"
        request.headers["Authorization"] = authorization(
            self._key_id,
            self._secret,
            method=request.method,
            target=urlsplit(request.url)._replace(scheme="", netloc="").geturl(),
            body=body.encode() if isinstance(body, str) else body,
        )
        return request


class Findings:
    """What a run met."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()  # by operation and status
        self.wrong: dict[str, str] = {}

    def note(self, event: Any) -> None:
        if isinstance(event, events.ScenarioFinished):
            for case_id, interaction in event.recorder.interactions.items():
                label = event.recorder.cases[case_id].value.operation.label
                status = interaction.response.status_code if interaction.response else 0
                self.answers[label, status] += 1
            for case_id, checks in event.recorder.checks.items():
                label = event.recorder.cases[case_id].value.operation.label
                for check in checks:
                    if (found := check.failure_info) is not None:
                        title = f"{label}: {check.name}: {found.failure.title}"
                        text = f"{title}\n{found.failure.message}\n{found.code_sample}"
                        self.wrong.setdefault(title, text)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            self.wrong.setdefault(repr(event), repr(event))

    def never_done(self, document: dict[str, Any]) -> set[str]:
        """Operations of the document that never succeeded."""
        done = {label for label, status in self.answers if 200 <= status < 300}
        return {f"{verb} {path}" for verb, path in operations(document)} - done


def operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs]


def explore(
    document: dict[str, Any], url: str, signer: requests.auth.AuthBase, **phases: Any
) -> Findings:
    """Try the documented examples, every boundary, and chance; follow one answer to the next."""
    config = schemathesis.Config.from_dict(
        {
            "base-url": url,
            "seed": SEED,
            "generation": {
                "max-examples": EXAMPLES,
                "database": "none",
                "with-security-parameters": False,
            },
            "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
            "phases": phases,
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.auth.set_from_requests(signer)
    findings = Findings()
    for event in from_schema(schema).execute():
        findings.note(event)
    return findings


def with_examples(document: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """Give every path parameter a real id for its example, so that chance need not find one.

    Ids in the examples of bodies become real ones of the same kind.
    """
    document = copy.deepcopy(document)
    real = {each[:3]: each for each in known.values()}
    for verbs in document["paths"].values():
        for operation in verbs.values():
            for parameter in operation.get("parameters", ()):
                if parameter.get("in") == "path":
                    parameter["example"] = known[parameter["name"]]
            content = operation.get("requestBody", {}).get("content", {})
            for media in content.values():
                if "example" in media:
                    said = ID.sub(
                        lambda found: real.get(found[0][:3], found[0]), json.dumps(media["example"])
                    )
                    media["example"] = json.loads(said)
    return document


def give(document: dict[str, Any], route: str, *, body: Any = None, **values: Any) -> None:
    """Give parameters and the body of one route examples of its own."""
    verb, _, path = route.partition(" ")
    operation = document["paths"][path][verb.lower()]
    operation["parameters"] = [
        {**each, "example": values[each["name"]]} if each.get("name") in values else each
        for each in operation["parameters"]  # which other operations may share
    ]
    if body is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = body


async def told_apart(
    stage: Stage, document: dict[str, Any], wallet_id: str
) -> dict[str, Sequence[str]]:
    """Give routes what they need for themselves; return spares for those that end a thing."""
    client = stage.client
    wallet = await stage.call(client.wallets.open, holder_name="李四")
    await stage.call(client.wallets.top_up, wallet_id, amount=100_000)
    shared = await share(stage, client, wallet_id)
    objected = await object_to(stage, client)
    give(document, "POST /v1/terminals/{terminal_id}/parameters/roll_back", body={"version": 1})
    whom = {"merchant_id": show("mch", new_id())}
    for route in ("POST /v1/combining_consents", "POST /v1/combining_consents/withdraw"):
        give(document, route, body=whom)
    part = {"receiver_id": shared["receiver_id"], "amount": 10}
    split = {"merchant_split_no": new_number(), "shares": [part]}
    paid = await pay_by_wallet(stage, client, wallet_id)
    route = "POST /v1/payments/{payment_id}/splits"
    give(document, route, payment_id=paid["id"], body=split)
    paid = await pay_by_wallet(stage, client, wallet_id)
    given = await stage.call(
        client.splits.create, paid["id"], **{**split, "merchant_split_no": "G"}
    )
    back = {**part, "amount": 1, "merchant_return_no": "R"}
    give(document, "POST /v1/splits/{split_id}/returns", split_id=given["id"], body=back)
    shown = await stage.call(client.wallets.payment_code, wallet_id)
    order = await stage.call(
        client.orders.sell_at_counter,
        merchant_order_no=new_number(),
        amount=100,
        auth_code=shown["code"],
    )
    give(document, "POST /v1/orders/{order_id}/review", order_id=order["id"])
    tab_id = (await sell(stage, client, wallet_id))["tab_id"]
    give(document, "POST /v1/tabs/{tab_id}/close", tab_id=tab_id)
    back = {"return_url": RETURN, "purpose": "manage"}
    give(document, "POST /v1/wallet_applications/{wallet_application_id}/links", body=back)
    price = {"channel": "wechat_pay", "pay_mode": "qr", "amount": 1000}
    give(document, "GET /v1/price-quote", **price)
    kept = [await keep_card(stage, client) for _ in range(5)]
    give(document, "POST /v1/vault/cards/{card_id}/delete", card_id=kept[0]["card_id"])
    unbound = await stage.call(client.splits.bind, kind="wallet", account=wallet["id"])
    third = await stage.call(client.wallets.open, holder_name="王五")
    give(document, "POST /v1/split_receivers", body={"kind": "wallet", "account": third["id"]})
    bought = await sell(stage, client, wallet_id)
    return {
        "freeze": [wallet["id"]],
        "report_stolen": [await have_terminal(stage, stage.shop)],
        "accept": [objected["dispute_id"]],
        "dispute": [(await stage.paid("alipay"))["id"]],
        "cancel": [shared["split_id"]],
        "release": [(await share(stage, client, wallet_id))["split_id"]],
        "close": [(await stage.show_qr("wechat_pay"))["id"]],
        "finish_splits": [(await pay_by_wallet(stage, client, wallet_id))["id"]],
        "refunds": [(await pay_by_wallet(stage, client, wallet_id))["id"], bought["order_id"]],
        "unbind": [unbound["id"]],
        "reissue": [kept[1]["card_id"]],
        "suspend": [kept[2]["token_id"]],
        "replace": [kept[3]["token_id"]],
        "delete": [kept[4]["token_id"]],
    }


async def who_can_be_settled(stage: Stage) -> Signer:
    """Another merchant, of whose payments none is given back or shared any more."""
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    wallet = await stage.call(client.wallets.open, holder_name="赵六")
    await stage.call(client.wallets.top_up, wallet["id"], amount=10_000)
    await pay_by_wallet(stage, client, wallet["id"])
    return Signer(shop.key_id, shop.secret.reveal())


async def shown_to(stage: Stage, document: dict[str, Any], wallet_id: str) -> None:
    """Give the routes of a wallet what merchants show it."""

    async def offered() -> Any:
        terms = {"plan": "tea", "display_name": "tea", "merchant_agreement_no": new_number()}
        return await stage.call(stage.client.agreements.create, channel="wallet", **terms)

    def path(of: str, name: str, value: str) -> None:
        operation = document["paths"][of]["post"]
        operation["parameters"] = [
            {**each, "example": value} if each.get("name") == name else each
            for each in operation["parameters"]  # which other operations may share
        ]

    payment, to_sign, signed = await stage.show_qr("wallet", 100), await offered(), await offered()
    await stage.call(stage.client.wallets.sign, wallet_id, signed["next_action"]["code_url"])
    path("/v1/wallet_agreements/{agreement_id}/end", "agreement_id", signed["id"])
    for shown, routes in (
        (payment, ("scans", "payments")),
        (to_sign, ("agreement_scans", "agreements")),
    ):
        for route in routes:
            operation = document["paths"][f"/v1/wallets/{{wallet_id}}/{route}"]["post"]
            content: Any = operation["requestBody"]["content"]["application/json"]
            content["example"] = {"code": shown["next_action"]["code_url"]}


NEVER_DONE = {
    "POST /v1/api_keys/{key_id}/roll",  # it was revoked
    "POST /v1/card_balances",  # the shop has no account for cards
    "POST /v1/refunds/{refund_id}/redirection",  # no refund is stuck
    "POST /v1/parking_visits/{visit_id}/charge",  # nobody agreed for the plate
    "POST /v1/parking_plates/look_up",  # the shop's account is no sub-merchant's
    "POST /v1/transfers/{transfer_id}/take_back",  # it was not let go
    "POST /v1/agreements/{agreement_id}/announcements",  # its channel announces nothing
    "POST /v1/payments/{payment_id}/unsplit_money",  # its channel shares nothing
    "GET /v1/refunds/{refund_id}/redirection",
    "POST /v1/payments/{payment_id}/capture",  # nothing is set aside at the shop's channels
    "POST /v1/payments/{payment_id}/void",
    "GET /v1/payouts/{payout_id}/receipt",  # the payout is on its way
    "POST /v1/applications/{application_id}/signatures",  # no terms are published
    "POST /v1/registrations/{registration_id}/send_again",  # the channel has not rejected it
    "POST /v1/settlements/quick",  # it was not agreed with the shop
}


@pytest.mark.timeout(900)  # a minute alone, and many where others work too
async def test_the_api_keeps_what_its_document_promises(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before each of thousands of requests the whole environment would be read for proxies.
    monkeypatch.setattr(requests.sessions, "get_environ_proxies", lambda *_, **__: {})
    await test_clock.load_offset(stage.db, allowed=True)
    signer = Signer(stage.shop.key_id, stage.shop.secret.reveal())
    async with receiving() as receiver:
        known = await something_of_everything(stage, stage.shop, receiver.url)
        document = with_examples(stage.app.document, known)
        await shown_to(stage, document, known["wallet_id"])
        signer.spares = await told_apart(stage, document, known["wallet_id"])
        signer.others = {"/v1/test_helpers/settlements": await who_can_be_settled(stage)}

        # A thousand requests less over the wire: other methods are tried by the next test.
        coverage = {"unexpected-methods": []}
        found = await asyncio.to_thread(
            partial(explore, document, stage.url, signer, coverage=coverage)
        )

    assert not found.wrong, "\n\n".join([f"seed {SEED}", *found.wrong.values()])
    assert found.never_done(document) <= NEVER_DONE
    report = await verify(stage.db)
    assert report.is_sound, report.broken


async def test_a_method_that_is_not_documented_is_refused_with_those_that_are(
    stage: Stage,
) -> None:
    merchant = SignedClient(stage.app, stage.shop.key_id, stage.shop.secret.reveal())
    refused = 0
    for path, verbs in stage.app.document["paths"].items():
        documented = {verb.upper() for verb in verbs}
        for method in METHODS - documented:
            reply = await merchant.send(method, re.sub(r"\{\w+\}", "x", path))

            assert reply.status == 405, (method, path)
            assert documented == set(reply.headers["allow"].split(", ")), (method, path)
            refused += 1
    assert refused > 500


@pytest.mark.parametrize("how", ["unsigned", "garbage", "unknown_key", "wrong_secret"])
async def test_no_route_answers_who_is_not_proved(stage: Stage, how: str) -> None:
    """Whatever the route and whatever else is wrong with the request, the proof comes first."""
    app = stage.app
    stranger = SignedClient(app, stage.shop.key_id, "sk_sandbox_wrong")
    if how == "unknown_key":
        stranger.key_id = show("key", new_id())
    codes = {
        "unsigned": "auth.header_missing",
        "garbage": "auth.header_malformed",
        "unknown_key": "auth.key_unknown",
        "wrong_secret": "auth.signature_invalid",
    }

    for verb, path in [*operations(app.document), ("GET", "/v1/nothing"), ("PUT", "/v1/payments")]:
        target = path.replace("{", "").replace("}", "")
        reply = await stranger.send(
            verb,
            target,
            body=b"{",
            signed=how != "unsigned",
            authorization="Basic c2hvcDpzZWNyZXQ=" if how == "garbage" else None,
        )

        assert (reply.status, reply.code) == (401, codes[how]), target
        assert reply.headers["www-authenticate"] == "TONGBAO-HMAC-SHA256"
