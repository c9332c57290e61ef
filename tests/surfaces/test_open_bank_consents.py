"""Consents as their two sides see them later: notices to partners, and a person's own pages."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.dying import dying
from tests.infra.signed_client import Reply
from tests.parties.phones import PASSWORD, Phone
from tests.surfaces import test_open_bank
from tests.surfaces.partnering import ACCOUNTS, BACK, Browser, Es256, Partner, text
from tests.surfaces.receiver import Received, Receiver, receiving
from tests.surfaces.test_open_bank import MAY, Bank, error_of
from tests.surfaces.wallet_users import RETURN, TERMS, Visitor
from tongbao.kernel.ids import derived_id, new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.consent_visits.visits import prune_visits
from tongbao.parties.consents.consents import on_partner_moved, tell_expired
from tongbao.parties.consents.model import ConsentEvent
from tongbao.parties.partners.model import (
    Changing,
    Kind,
    PartnerMoved,
    PartnerState,
    PartnerTermsInvalid,
    TakingOn,
)
from tongbao.parties.partners.notices import TOLD, check_webhook, webhook_keys_of, webhook_of
from tongbao.parties.partners.partners import (
    partner_with_id,
    propose_change,
    propose_partner,
    suspend_partner,
)
from tongbao.parties.people.dossier import set_suspended

ALL = [each.value for each in Kind]
the_bank = test_open_bank.the_bank
bank = test_open_bank.bank


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as ready:
        yield ready


async def told_partner(bank: Bank, receiver: Receiver, name: str) -> Partner:
    """A partner that is told of its consents."""
    key = Es256()
    jwks = [{**key.jwk, "kid": "k1"}]
    terms = TakingOn(name, Mode.SANDBOX, [BACK], jwks, ALL, webhook_url=receiver.url)
    async with bank.stage.db.begin("maker") as tx:
        asked = await propose_partner(tx, terms, reason="a fine firm", may=MAY)
    await bank.agree(asked)
    return Partner(bank.stage, show("ptn", derived_id(asked.id, "partner")), key)


async def tokens_of(bank: Bank, partner: Partner, details: Any = ACCOUNTS) -> dict[str, Any]:
    await bank.stage.db.fetch("delete from code_allowance", ())
    tokens = await partner.exchange(await bank.code(partner, details))
    assert tokens.status == 200, tokens.body
    found: dict[str, Any] = tokens.json
    return found


def notices(receiver: Receiver) -> list[tuple[str, str, str | None]]:
    """What was told: the event, how the consent stands, and who ended it."""
    bodies = [json.loads(each.body) for each in receiver.received]
    return [
        (each["type"], each["data"]["object"]["status"], each["data"]["object"]["ended_by"])
        for each in bodies
    ]


def check_signed(received: Received, keys: list[str]) -> None:
    """By the public key alone, as Standard Webhooks says."""
    at = received.headers
    signed = f"{at['webhook-id']}.{at['webhook-timestamp']}.".encode() + received.body
    [v1a] = [
        each.partition(",")[2]
        for each in at["webhook-signature"].split()
        if each.startswith("v1a,")
    ]
    [key] = keys
    public = Ed25519PublicKey.from_public_bytes(b64decode(key.removeprefix("whpk_")))
    public.verify(b64decode(v1a), signed)


async def me(bank: Bank) -> Any:
    return parse("per", (await bank.phone.get("/v1/me")).json["id"])


# What partners are told


async def test_a_partner_hears_how_its_consents_end_and_of_nobody(
    bank: Bank, receiver: Receiver
) -> None:
    stage, partner = bank.stage, await told_partner(bank, receiver, "Hears")
    tokens = await tokens_of(bank, partner)
    await stage.idle()
    consent = tokens["authorization_details"][0]["consent_id"]
    await bank.phone.post(f"/v1/me/open_consents/{consent}/revoke")
    second = await tokens_of(bank, partner)
    await partner.form("/oauth/revoke", {"token": second["refresh_token"]})
    code = await bank.code(partner)
    for status in (200, 400):
        assert (await partner.exchange(code)).status == status
    await stage.idle()

    told = notices(receiver)
    assert told.count(("consent.authorised", "authorised", None)) == 3
    for by in ("person", "partner", "security"):
        assert told.count(("consent.revoked", "revoked", by)) == 1
    assert len(told) == 6
    row = await partner_with_id(stage.db, parse("ptn", partner.client_id))
    webhook = await webhook_of(stage.db, row)
    assert webhook is not None
    person = show("per", await me(bank))
    for each in receiver.received:
        check_signed(each, await webhook_keys_of(stage.db, webhook))
        body = json.loads(each.body)
        assert set(body["data"]["object"]) == {
            "id",
            "object",
            "type",
            "status",
            "ended_by",
            "expires_at",
        }
        said = each.body.decode()
        assert not [word for word in ("张三", bank.wallet, "13700137", person) if word in said]


async def test_a_notice_that_did_not_arrive_is_sent_again_under_its_id(
    bank: Bank, receiver: Receiver
) -> None:
    partner = await told_partner(bank, receiver, "Deaf at first")
    receiver.statuses = [503]
    await tokens_of(bank, partner)
    await bank.stage.idle()
    await bank.stage.advance(minutes=2)
    await bank.stage.idle()

    first, again = receiver.received
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert first.body == again.body


async def test_an_end_by_time_is_told_once_whatever_dies(bank: Bank, receiver: Receiver) -> None:
    stage, partner = bank.stage, await told_partner(bank, receiver, "In time")
    end = (stage.db.clock.now() + timedelta(hours=1)).isoformat()
    await tokens_of(bank, partner, {**ACCOUNTS, "expires_at": end})
    await tell_expired(stage.db)
    await stage.advance(hours=2)
    with dying("consents.before_expiry_commit"):
        await tell_expired(stage.db)
    for _ in range(2):
        await tell_expired(stage.db)
    await stage.idle()

    assert notices(receiver) == [
        ("consent.authorised", "authorised", None),
        ("consent.expired", "expired", None),
    ]


async def test_what_is_suspended_is_told_and_what_comes_back(
    bank: Bank, receiver: Receiver
) -> None:
    stage, partner = bank.stage, await told_partner(bank, receiver, "Sleeps")
    tokens = await tokens_of(bank, partner)
    person, client = await me(bank), parse("ptn", partner.client_id)

    async def person_is(*, suspended: bool) -> None:
        async with stage.db.begin("operator") as tx:
            await set_suspended(tx, person, suspended=suspended, because="looked into")
        await stage.idle()

    await person_is(suspended=True)
    seen = await partner.ask("GET", "/open_bank/accounts", tokens["access_token"])
    assert error_of(seen) == "invalid_token"
    async with stage.db.begin("operator") as tx:
        await suspend_partner(tx, client, reason="asks too much")
    await stage.idle()
    await person_is(suspended=False)  # and the partner is still suspended
    row = await partner_with_id(stage.db, client)
    wanted = Changing(
        *(row.name, row.redirect_uris, row.jwks, row.kinds),
        state=PartnerState.ACTIVE,
        changed_at=row.changed_at,
        webhook_url=receiver.url,
    )
    async with stage.db.begin("maker") as tx:
        asked = await propose_change(tx, client, wanted, reason="all is well", may=MAY)
    await bank.agree(asked)
    await bank.phone.log_in(test_open_bank.NUMBER)

    told = [each for each, _, _ in notices(receiver)]
    assert told == ["consent.authorised", *["consent.suspended"] * 3, "consent.resumed"]


async def test_an_address_that_is_taken_away_hears_no_more(bank: Bank, receiver: Receiver) -> None:
    partner = await told_partner(bank, receiver, "Moves away")
    row = await partner_with_id(bank.stage.db, parse("ptn", partner.client_id))
    wanted = Changing(
        *(row.name, row.redirect_uris, row.jwks, row.kinds),
        state=PartnerState.ACTIVE,
        changed_at=row.changed_at,
    )
    async with bank.stage.db.begin("maker") as tx:
        asked = await propose_change(tx, row.id, wanted, reason="no notices", may=MAY)
    await bank.agree(asked)
    await tokens_of(bank, partner)
    await bank.stage.idle()
    assert receiver.received == []


def test_partners_are_told_of_what_there_is_and_only_where_they_may_be() -> None:
    events = {each.__struct_config__.tag for each in ConsentEvent.__args__}  # type: ignore[attr-defined]
    assert events == TOLD
    for url in ("http://partner.example/h", "https://10.0.0.1/h", "https://u:p@partner.example/"):
        with pytest.raises(PartnerTermsInvalid):
            check_webhook(url, Mode.SANDBOX)
    with pytest.raises(PartnerTermsInvalid):
        check_webhook("http://127.0.0.1:1/h", Mode.LIVE)


async def test_a_suspension_is_told_once_though_its_telling_dies(
    bank: Bank, receiver: Receiver
) -> None:
    stage, partner = bank.stage, await told_partner(bank, receiver, "Dies")
    await tokens_of(bank, partner)
    client = parse("ptn", partner.client_id)
    async with stage.db.begin("operator") as tx:
        await suspend_partner(tx, client, reason="asks too much")
    query = "select id from event where type = 'partner.moved' and merchant_id = $1"
    [moved] = await stage.db.fetch(query, (client,))
    event = PartnerMoved(merchant_id=client, mode=Mode.SANDBOX, resource_id=partner.client_id)
    with dying("consents.before_told_commit"):
        await on_partner_moved(stage.db, event, moved["id"])
    await on_partner_moved(stage.db, event, moved["id"])
    await stage.idle()  # the task of the event does it once more
    told = sorted(each for each, _, _ in notices(receiver))  # they come in no order
    assert told == ["consent.authorised", "consent.suspended"]


# What a person sees


class Reader(Browser):
    """A browser at the pages of one's own consents."""

    async def at(self, step: str, fields: dict[str, str] | None = None, **more: str) -> Reply:
        method = "GET" if fields is None else "POST"
        return await self.send(method, f"/my_consents{step}", fields, **more)

    async def log_in(self, password: str = PASSWORD) -> Reply:
        fields = {"mode": "sandbox", "contact": self.contact, "password": password}
        return await self.at("/log_in", fields)

    async def enter(self) -> Reply:
        await self.stage.db.fetch("delete from code_allowance", ())
        await self.phone.post_office.wait()
        assert (await self.log_in()).status == 200
        return await self.at("/code", {"code": await self.code()})


@pytest.fixture
def reader(bank: Bank) -> Reader:
    return Reader(bank.stage, bank.phone, test_open_bank.NUMBER)


async def test_a_log_in_that_died_leaves_no_visit(bank: Bank, reader: Reader) -> None:
    await reader.phone.post_office.wait()
    with dying("consents.before_visit_commit"):
        await reader.log_in()
    assert (await reader.at("/code", {"code": "123456"})).status != 200
    assert (await reader.enter()).status == 200


def shown_ids(page: Reply) -> list[str]:
    return re.findall(r'<section class="held" id="(\w+)"', text(page))


async def test_a_person_sees_who_may_what_and_ends_one_at_once(bank: Bank, reader: Reader) -> None:
    tokens = await tokens_of(bank, bank.partner)
    consent, token = tokens["authorization_details"][0]["consent_id"], tokens["access_token"]
    page = await reader.enter()
    shown = text(page)
    assert consent in shown_ids(page)
    assert "Ledger Lens" in shown
    assert "See the balances of these accounts" in shown
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self';" in policy
    assert "<script" not in shown
    assert page.headers["cache-control"] == "no-store"
    one = text(await reader.at(f"/one?id={consent}"))
    assert "never" in one
    assert (await bank.partner.ask("GET", "/open_bank/accounts", token)).status == 200
    assert "never" not in text(await reader.at(f"/one?id={consent}"))  # when it was used

    for _ in range(2):  # pressed twice
        done = await reader.at("/revoke", {"id": consent})
        assert "It has ended." in text(done)
        assert consent not in shown_ids(done)
    denied = await bank.partner.ask("GET", "/open_bank/accounts", token)
    assert error_of(denied) == "invalid_token"
    assert error_of(await bank.partner.refresh(tokens["refresh_token"])) == "invalid_grant"
    said = "select facts from audit_entry where action = 'consent.revoked' and subject = $1"
    [entry] = await bank.stage.db.fetch(said, (consent,))
    assert "person" in str(entry["facts"])
    reader.language = "zh"
    assert "授权管理" in text(await reader.at(""))


async def test_shops_that_hold_a_wallet_are_there_too(bank: Bank) -> None:
    visitor = Visitor(bank.stage, "13700137044")
    client = bank.stage.client
    await bank.stage.call(client.wallet_programmes.set, **TERMS)
    async with bank.stage.db.begin("test") as tx:
        await tx.execute("update wallet_programme set state = 'active'", ())
    made = await bank.stage.call(client.wallet_applications.create, "user-44")
    link = await bank.stage.call(client.wallet_applications.link, made["id"], RETURN)
    await bank.stage.db.fetch("delete from code_allowance", ())
    await visitor.open(link["url"])
    reader = Reader(bank.stage, bank.phone, "13700137044")
    page = await reader.enter()
    assert shown_ids(page) == [made["id"]]
    assert "Propose payments to you" in text(page)
    ended = await reader.at("/revoke", {"id": made["id"]})
    assert "You let nobody" in text(ended)
    found = await bank.stage.call(client.wallet_applications.get, made["id"])
    assert found["status"] != "opened"


async def test_nothing_is_shown_before_both_factors_or_of_anybody_else(
    bank: Bank, reader: Reader
) -> None:
    tokens = await tokens_of(bank, bank.partner)
    consent = tokens["authorization_details"][0]["consent_id"]
    stranger = Reader(bank.stage, bank.phone, "13700137045")
    wrong = await reader.log_in("not the password")
    nobody = await stranger.log_in()
    assert (wrong.status, nobody.status) == (422, 422)
    assert text(wrong).partition("<main")[2] == text(nobody).partition("<main")[2]

    await bank.phone.post_office.wait()
    assert (await reader.log_in()).status == 200
    for step, fields in (("/revoke", {"id": consent}), (f"/one?id={consent}", None)):
        assert (await reader.at(step, fields)).status == 409  # a password alone shows nothing
    assert consent not in text(await reader.at(""))
    assert (await reader.at("/code", {"code": "12345x"})).status == 422
    code = await reader.code()
    thief = Reader(bank.stage, bank.phone, test_open_bank.NUMBER)
    await bank.phone.post_office.wait()
    await thief.log_in()
    assert (await thief.at("/code", {"code": code})).status == 422  # another browser's
    assert consent in shown_ids(await reader.at("/code", {"code": code}))
    forged = await reader.at("/revoke", {"id": consent}, **{"sec-fetch-site": "cross-site"})
    assert forged.status == 403
    for made_up in (show("cns", new_id()), "nonsense", f"uwa_{'0' * 26}"):
        assert (await reader.at("/revoke", {"id": made_up})).status == 404

    other = Phone(bank.stage.app, bank.phone.post_office)
    other.mode = bank.phone.mode
    assert (await other.register("13700137046")).status == 201
    intruder = Reader(bank.stage, other, "13700137046")
    assert shown_ids(await intruder.enter()) == []
    assert (await intruder.at("/revoke", {"id": consent})).status == 404
    await bank.stage.db.fetch("update consent_visit set expires_at = now()", ())
    assert (await reader.at("/revoke", {"id": consent})).status == 409
    assert (
        await bank.partner.ask("GET", "/open_bank/accounts", tokens["access_token"])
    ).status == 200
    assert "Log in" in text(await intruder.at("/log_out", {}))
    await prune_visits(bank.stage.db)
    assert await bank.stage.db.fetch("select 1 as one from consent_visit", ()) == []
