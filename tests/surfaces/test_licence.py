"""An aggregator takes payments and never holds money: what needs a licence is not there at all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import tongbao
from tests.conftest import MakeDb
from tests.infra.signed_client import SignedClient
from tests.stage import Stage, staged
from tests.surfaces.visitors import hire, reader
from tongbao.kernel.licence import Licence
from tongbao.ledger.verify import verify
from tongbao.parties.identity.model import scopes_under
from tongbao.surfaces.open_bank.app import INTERFACES
from tongbao.surfaces.uk_open_banking.app import UK_INTERFACES
from tongbao.wiring import routes
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused

LICENSED = {
    "/v1/wallets",
    "/v1/wallets/{wallet_id:str}",
    "/v1/wallets/{wallet_id:str}/payment_codes",
    "/v1/wallets/{wallet_id:str}/offline_keys",
    "/v1/wallets/{wallet_id:str}/scans",
    "/v1/wallets/{wallet_id:str}/payments",
    "/v1/wallets/{wallet_id:str}/agreement_scans",
    "/v1/wallets/{wallet_id:str}/agreements",
    "/v1/wallet_agreements/{agreement_id:str}/end",
    "/v1/offline_keys/{offline_key_id:str}/revoke",
    "/v1/wallets/{wallet_id:str}/freeze",
    "/v1/wallets/{wallet_id:str}/unfreeze",
    "/v1/test_helpers/wallets/{wallet_id:str}/top_up",
    "/v1/vault/cards",
    "/v1/vault/cards/{card_id:str}",
    "/v1/vault/cards/{card_id:str}/reissue",
    "/v1/vault/cards/{card_id:str}/delete",
    "/v1/vault/cards/{card_id:str}/tokens",
    "/v1/card_tokens",
    "/v1/card_tokens/{token_id:str}",
    "/v1/card_tokens/{token_id:str}/activate",
    "/v1/card_tokens/{token_id:str}/suspend",
    "/v1/card_tokens/{token_id:str}/resume",
    "/v1/card_tokens/{token_id:str}/delete",
    "/v1/card_tokens/{token_id:str}/replace",
    "/v1/card_tokens/{token_id:str}/keys",
    "/v1/wallet_programmes",
    "/v1/wallet_applications",
    "/v1/wallet_applications/{wallet_application_id:str}",
    "/v1/wallet_applications/{wallet_application_id:str}/links",
    "/v1/wallet_applications/{wallet_application_id:str}/balance",
    "/v1/wallet_applications/{wallet_application_id:str}/lines",
    "/v1/wallet_proposals",
    "/v1/wallet_proposals/{wallet_proposal_id:str}",
    "/v1/wallet_proposals/{wallet_proposal_id:str}/links",
    "/v1/red_packets",
    "/v1/red_packets/{red_packet_id:str}",
    "/v1/red_packets/{red_packet_id:str}/grabs",
    "/v1/wallets/{wallet_id:str}/red_packet_grabs",
    "/v1/disputes",
    "/v1/disputes/{dispute_id:str}",
    "/v1/disputes/{dispute_id:str}/answer",
    "/v1/test_helpers/payments/{payment_id:str}/dispute",
    "/v1/disputes/{dispute_id:str}/accept",
    "/v1/disputes/{dispute_id:str}/files",
    "/v1/settlements",
    "/v1/settlements/{settlement_id:str}",
    "/v1/settlements/{settlement_id:str}/lines",
    "/v1/settlements/{settlement_id:str}/statement",
    "/v1/settlements/quick",
    "/v1/test_helpers/settlements",
    "/v1/payouts",
    "/v1/payouts/{payout_id:str}",
    "/v1/payouts/{payout_id:str}/receipt",
    "/v1/transfer-batches",
    "/v1/transfer-batches/{transfer_batch_id:str}",
    "/v1/transfer-batches/{transfer_batch_id:str}/transfers",
    "/v1/transfer-batches/{transfer_batch_id:str}/drop",
    "/v1/transfers/{transfer_id:str}/take_back",
    "/v1/balance",
    "/v1/commissions",
    "/v1/commissions/{commission_id:str}/lines",
    "/v1/merchant_terms",
    "/v1/applications/{application_id:str}/signatures",
}
"""What only a firm that may hold funds has."""
MOUNTED = {
    *("/v1/me", "/v1/me/openapi.json", "/my_consents", "/hosted_wallet"),
    *("/oauth", "/.well-known/oauth-authorization-server", "/open_bank"),
}
"""What its people and partners reach, who are nobody elsewhere."""
ROOMS = {
    *(
        "people",
        "e_accounts",
        "user_wallets",
        "partners",
        "reserve",
        "adjustments",
        "suspense",
        "returned_money",
    ),
    *("settlements", "settlement-batches", "settlement-terms", "settlement-holds", "debts"),
    *("payout-files", "transfer-batches", "disputes", "returned_money"),
}
"""Where its operators go in the console, and nobody else."""
ACTS = {
    *(f"/applications/{{application_id}}/{each}" for each in ("open", "return", "decline")),
    "/differences/{break_id}/post",
}
"""What they do in rooms that others have too: to decide about a merchant, and to move money."""


def paths(licence: Licence) -> set[str]:
    handlers = routes(licence, allows_test_clock=True)
    return {path for handler in handlers for path in handler.paths}


@pytest.fixture
async def aggregator(
    make_db: MakeDb, tmp_path: Path, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    """The stage of a firm that may hold no funds."""
    db = await make_db(licence=Licence.AGGREGATOR)
    sandbox.delete("faults")
    async with staged(db, tmp_path, sandbox, licence=Licence.AGGREGATOR) as ready:
        yield ready


def test_routes_of_funds_exist_under_a_licence_only() -> None:
    assert paths(Licence.PAYMENT_INSTITUTION) - paths(Licence.AGGREGATOR) == LICENSED
    assert paths(Licence.AGGREGATOR) < paths(Licence.PAYMENT_INSTITUTION)
    assert paths(Licence.BANK) == paths(Licence.PAYMENT_INSTITUTION)


async def test_people_and_partners_of_ones_own_exist_under_a_licence_only(
    aggregator: Stage, shared_stage: Stage
) -> None:
    """From the lists of what is mounted beside the API; each of their routes is asked for, too."""
    licensed, plain = shared_stage.app._mounts, aggregator.app._mounts
    assert set(licensed) - set(plain) == MOUNTED
    assert set(plain) < set(licensed)
    of_people = [(each.method, each.path) for each in licensed["/v1/me"].operations]
    of_partners = [(each.method, each.path) for each in (*INTERFACES, *UK_INTERFACES)]
    assert min(len(of_people), len(of_partners)) > 20
    shop = aggregator.shop
    client = SignedClient(aggregator.app, shop.key_id, shop.secret.reveal())
    for method, path in (*of_people, *of_partners):
        reply = await client.send(method, re.sub(r"\{\w+\}", "x", path))
        assert (reply.status, reply.code) == (404, "request.not_found"), path


async def test_the_consoles_rooms_of_funds_exist_under_a_licence_only(
    aggregator: Stage, shared_stage: Stage
) -> None:
    """From the console's own list, with the pages that wiring hands in from every other room."""
    every, plain = (
        {(route.method, route.pattern) for route in each.app._mounts["/console"]._routes}
        for each in (shared_stage, aggregator)
    )
    assert plain < every
    assert not {room for _, pattern in plain if (room := room_of(pattern)) in ROOMS}
    more = every - plain
    assert {pattern for _, pattern in more if room_of(pattern) not in ROOMS} == ACTS
    assert {room_of(pattern) for _, pattern in more} >= ROOMS
    async with reader(aggregator, await hire(aggregator)) as one:
        for method, pattern in more:
            path = "/console" + re.sub(r"\{\w+\}", "x", pattern)
            asked = one.get(path) if method == "GET" else one.post(path, {"a": "b"})
            assert (await asked).status_code == 404, (method, pattern)


def room_of(pattern: str) -> str:
    """The first part of an address, without what it is downloaded as."""
    return pattern.strip("/").partition("/")[0].partition(".")[0]


def test_a_device_gets_a_key_to_sign_with_and_no_key_for_pins_is_made_anywhere() -> None:
    """ADR 23: an activation hands out a credential; keys of PINs and cards are the acquirer's."""
    assert "/v1/terminals/{terminal_id:str}/activation_codes" in paths(Licence.AGGREGATOR)

    package = Path(tongbao.__file__).parent
    makers = re.compile(r"\b(token_[a-z]+|urandom|generate_[a-z_]*key|randbytes)\(")
    found = {
        (str(file.relative_to(package)), line.strip())
        for folder in ("rails/channels/cards", "parties/terminals", "payments/terminal_notices")
        for file in (package / folder).glob("*.py")
        for line in file.read_text().splitlines()
        if makers.search(line)
    }
    assert found == {("parties/terminals/devices.py", 'secret = f"tk_{secrets.token_urlsafe(32)}"')}


def test_scopes_of_funds_exist_under_a_licence_only() -> None:
    more = set(scopes_under(Licence.PAYMENT_INSTITUTION)) - set(scopes_under(Licence.AGGREGATOR))

    assert {"wallets:read", "wallets:write"} <= more


async def test_an_aggregators_document_and_server_know_nothing_of_funds(
    aggregator: Stage,
) -> None:
    document = aggregator.platform.app().document
    licensed = ("wallet", "settlement", "offline", "red_packet", "payout", "transfer", "dispute")
    assert not [path for path in document["paths"] if any(word in path for word in licensed)]
    assert not {name for name in document["components"]["schemas"] if "Wallet" in name}

    for call in (aggregator.client.wallets.list, aggregator.client.settlements.list):
        with pytest.raises(Refused) as refused:
            await aggregator.call(lambda call=call: list(call()))
        assert refused.value.code == "request.not_found"


async def test_an_aggregator_lists_complaints_and_hands_answers_on(aggregator: Stage) -> None:
    payment = await aggregator.paid("wechat_pay", 1999)
    number = (await aggregator.attempt_of(payment)).number
    await aggregator.control("wechat/complain", number=number, detail="坏的")
    await aggregator.idle()
    [listed] = await aggregator.call(lambda: list(aggregator.client.complaints.list()))
    await aggregator.call(aggregator.client.complaints.reply, listed["id"], "已补发")
    await aggregator.idle()

    async with reader(aggregator, await hire(aggregator)) as page:
        start = (await page.get("/console/payments")).text
        shown = (await page.get("/console/complaints")).text
        disputes = await page.get("/console/disputes")

    said = await aggregator.call(aggregator.client.complaints.messages, listed["id"])
    assert [each["text"] for each in said] == ["坏的", "已补发"]
    assert 'href="/console/complaints"' in start
    assert listed["channel_ref"] in shown
    assert disputes.status_code == 404


async def test_a_wallet_code_is_nobodys_code(aggregator: Stage) -> None:
    with pytest.raises(Refused):
        await aggregator.scan_code("99" + "1" * 16)


async def test_an_aggregator_takes_payments_and_gives_back_without_owing_anybody(
    aggregator: Stage,
) -> None:
    """The money goes from the channel to the merchant; the book of an aggregator sees none."""
    for channel in ("wechat_pay", "alipay"):
        payment = await aggregator.paid(channel, 1999)
        assert payment["status"] == "succeeded"
        refund = await aggregator.refund(payment, 500)
        await aggregator.advance(seconds=60)
        assert (await aggregator.read(refund))["status"] == "succeeded"
        assert sum(await aggregator.given_back(payment)) == 500
    coded = await aggregator.scan_code(await aggregator.code("alipay"))
    assert coded["status"] == "succeeded"

    owed = await aggregator.db.fetch(
        "select kind from ledger_account where kind in"
        " ('merchant_payable', 'settlement_due', 'wallet')",
        (),
    )
    assert owed == []
    report = await verify(aggregator.db)
    assert report.is_sound, report.broken
