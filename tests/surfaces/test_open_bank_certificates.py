"""Mutual TLS at the open bank (RFC 8705): who a certificate proves, and what is bound to it.

The flow goes over real TLS through a proxy; what is refused is mostly shown without it, by what
such a proxy would have written.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2 as httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace

from tests.infra.signed_client import Reply, call
from tests.outsiders import node_with
from tests.stage import Stage, listen, staged
from tests.surfaces import test_open_bank
from tests.surfaces.partnering import ACCOUNTS, BACK, Es256, Partner, b64
from tests.surfaces.test_open_bank import MAY, Bank, error_of
from tests.surfaces.tls_proxy import DAY, Pair, tls_proxy
from tongbao.infra.certificates import CertificateRefused, NameKind
from tongbao.infra.client_certificates import presented, read_proxies
from tongbao.infra.db import Db
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.partners.certificates import check_proving
from tongbao.parties.partners.model import (
    AuthMethod,
    Changing,
    Kind,
    PartnerState,
    PartnerTermsInvalid,
    Proving,
    TakingOn,
)
from tongbao.parties.partners.partners import partner_with_id, propose_change, propose_partner
from tongbao_sandbox.launch import RunningSandbox

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".clients" / "openid_client"
DRIVE = ROOT / "tests" / "clients" / "openid_client" / "mutual_tls.mjs"
NAME = "CN=Ledger Lens,O=Lens Ltd,C=GB"
BY_NAME = Proving(AuthMethod.TLS_CLIENT_AUTH, NameKind.SUBJECT_DN, NAME, binds_certificate=True)
BY_OWN = Proving(AuthMethod.SELF_SIGNED, binds_certificate=True)
ALL = [each.value for each in Kind]

AUTHORITY = Pair("CN=Root of Partners", ca=True)
BETWEEN = Pair("CN=Authority in Between", AUTHORITY, ca=True)
NAMED = Pair(NAME, AUTHORITY)
OWN = Pair("CN=Nobody vouches")
STRANGER = Pair("CN=Another Root", ca=True)

the_bank = test_open_bank.the_bank
bank = test_open_bank.bank


class TlsPartner(Partner):
    """A partner's program that reaches us through a proxy which writes what it has seen."""

    def __init__(self, stage: Stage, client_id: str, shown: Pair | None, *chain: Pair) -> None:
        super().__init__(stage, client_id, Es256())
        self.shown, self.chain = shown, chain
        self.headers: dict[str, str] = {}

    def seen(self) -> dict[str, str]:
        found = {"client-cert": self.shown.header} if self.shown else {}
        if self.chain:
            found["client-cert-chain"] = ", ".join(each.header for each in self.chain)
        return {**found, **self.headers}

    async def form(
        self, path: str, fields: dict[str, str], *, proof: str | None = None, **more: Any
    ) -> Reply:
        sent = {"client_id": self.client_id, **fields, **more}
        sent = {name: value for name, value in sent.items() if value is not None}
        headers = {"content-type": "application/x-www-form-urlencoded", **self.seen()}
        headers |= {"dpop": proof} if proof else {}
        return await call(self.stage.app, "POST", path, headers, [urlencode(sent).encode()])

    async def exchange(self, code: str, *, proof: str | None = None, **more: Any) -> Reply:
        return await super().exchange(code, proof=proof or "", **more)

    async def see(self, path: str, token: str, *, scheme: str = "Bearer", **headers: str) -> Reply:
        said = {"authorization": f"{scheme} {token}", **self.seen(), **headers}
        return await call(self.stage.app, "GET", path, said, [b""])


class Tls:
    """Where certificates are asked for, and partners of each kind."""

    stage: Stage
    url: str
    anchors: Path
    folder: Path


@pytest.fixture(scope="module")
async def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    made = Tls()
    made.folder = tmp_path_factory.mktemp("tls")
    made.anchors = made.folder / "anchors.pem"
    made.anchors.write_bytes(AUTHORITY.pem)
    return made


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox, tls: Tls
) -> AsyncIterator[Stage]:
    listening: socket.socket = listen()
    tls.url = f"https://localhost:{listening.getsockname()[1]}"
    changes: dict[str, Any] = {
        "certificate_proxies": "127.0.0.1, 10.0.0.0/8",
        "mtls_url": tls.url,
        "partner_anchors_file": tls.anchors,
    }
    folder = tmp_path_factory.mktemp("platform")
    async with staged(module_db, folder, sandbox, **changes) as ready:
        port = ready.platform.settings.port
        async with tls_proxy(listening, tls.folder, AUTHORITY, [OWN], port):
            yield ready


async def taken_on(
    bank: Bank, name: str, proving: Proving, jwks: list[dict[str, Any]] | None = None
) -> str:
    terms = TakingOn(name, Mode.SANDBOX, [BACK], jwks or [], ALL, proving)
    async with bank.stage.db.begin("maker") as tx:
        asked = await propose_partner(tx, terms, reason="a fine firm", may=MAY)
    await bank.agree(asked)
    return show("ptn", derived_id(asked.id, "partner"))


@pytest.fixture(scope="module")
async def named(the_bank: Bank) -> TlsPartner:
    return TlsPartner(the_bank.stage, await taken_on(the_bank, "By Name", BY_NAME), NAMED)


@pytest.fixture(scope="module")
async def own(the_bank: Bank) -> TlsPartner:
    client_id = await taken_on(the_bank, "By Own", BY_OWN, [OWN.jwk])
    return TlsPartner(the_bank.stage, client_id, OWN)


async def tokens_of(bank: Bank, partner: Partner) -> dict[str, Any]:
    await bank.stage.db.fetch("delete from code_allowance", ())
    code = await bank.code(partner)
    reply = await partner.exchange(code)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json
    return found


AT = "/open_bank/accounts"


# The way through


async def test_a_named_certificate_goes_the_whole_way_over_real_tls(
    bank: Bank, tls: Tls, named: TlsPartner
) -> None:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    bare = httpx.Client(trust_env=False, verify=context, base_url=tls.url)
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.load_cert_chain(*NAMED.kept_in(tls.folder, "named"))
    client = httpx.Client(trust_env=False, verify=context, base_url=tls.url)
    about = (await bank.stage.call(client.get, "/.well-known/oauth-authorization-server")).json()
    assert about["tls_client_certificate_bound_access_tokens"] is True
    assert about["mtls_endpoint_aliases"]["token_endpoint"] == f"{tls.url}/oauth/token"
    assert set(about["token_endpoint_auth_methods_supported"]) == {
        each.value for each in AuthMethod
    }

    pushed = await named.push()
    told = await bank.browser().consent(named.client_id, pushed.json["request_uri"])
    fields = {
        "client_id": named.client_id,
        "grant_type": "authorization_code",
        "code": told["code"],
        "redirect_uri": BACK,
        "code_verifier": named.verifier,
    }
    forged = {"client-cert": NAMED.header}  # the proxy takes it away
    refused = await bank.stage.call(bare.post, "/oauth/token", data=fields, headers=forged)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    tokens = (await bank.stage.call(client.post, "/oauth/token", data=fields)).json()
    assert tokens["token_type"] == "Bearer"
    said = {"authorization": f"Bearer {tokens['access_token']}"}
    seen = await bank.stage.call(client.get, AT, headers=said)
    assert [each["id"] for each in seen.json()["items"]] == [bank.wallet]
    stolen = await bank.stage.call(bare.get, AT, headers={**said, **forged})
    assert (stolen.status_code, stolen.json()["error"]) == (401, "invalid_token")


async def test_openid_client_completes_the_flow_by_mutual_tls(
    bank: Bank, tls: Tls, own: TlsPartner
) -> None:
    node = node_with(FOLDER, "openid-client")
    given = {
        "issuer": bank.stage.url,
        "client_id": own.client_id,
        "cert": OWN.pem.decode(),
        "key": OWN.private.decode(),
        "ca": AUTHORITY.pem.decode(),
        "redirect_uri": BACK,
        "details": ACCOUNTS,
    }
    pipe = asyncio.subprocess.PIPE
    run = await asyncio.create_subprocess_exec(
        *(node, str(DRIVE), str(FOLDER)), stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert run.stdin is not None
    assert run.stdout is not None
    assert run.stderr is not None
    try:
        run.stdin.write(json.dumps(given).encode() + b"\n")
        line = await asyncio.wait_for(run.stdout.readline(), 60)
        assert line, (await run.stderr.read()).decode()
        query = parse_qs(urlsplit(json.loads(line)["url"]).query)
        browser = bank.browser()
        await browser.consent(query["client_id"][0], query["request_uri"][0])
        run.stdin.write(json.dumps({"back": browser.sent_to}).encode() + b"\n")
        line = await asyncio.wait_for(run.stdout.readline(), 60)
        assert line, (await run.stderr.read()).decode()
        heard = json.loads(line)
    finally:
        if run.returncode is None:
            run.kill()
        await run.wait()
    assert heard["token_type"] == "bearer"
    assert [each["id"] for each in heard["accounts"]["items"]] == [bank.wallet]
    assert heard["refreshed"] == heard["accounts"]
    assert heard["revoked"] == "invalid_token"


# What is mixed up, by name


async def test_ensure_mtls_holder_of_key_required(
    bank: Bank, named: TlsPartner, own: TlsPartner
) -> None:
    token = (await tokens_of(bank, named))["access_token"]
    assert (await named.see(AT, token)).status == 200
    nobody = TlsPartner(bank.stage, named.client_id, None)
    renewed = TlsPartner(bank.stage, named.client_id, Pair(NAME, AUTHORITY))
    for thief in (nobody, own, renewed):  # a token is bound to a certificate, not to its name
        assert error_of(await thief.see(AT, token)) == "invalid_token"
    assert error_of(await named.see(AT, token, scheme="DPoP")) == "invalid_token"
    proof = named.proof("GET", AT, token=token)
    assert error_of(await nobody.see(AT, token, scheme="DPoP", dpop=proof)) == "invalid_token"
    await named.form("/oauth/revoke", {"token": token})
    assert error_of(await named.see(AT, token)) == "invalid_token"


async def test_a_token_of_a_dpop_key_is_not_opened_by_a_certificate(
    bank: Bank, named: TlsPartner
) -> None:
    token = await bank.token()
    assert error_of(await named.see(AT, token)) == "invalid_token"
    assert error_of(await named.see(AT, token, scheme="DPoP")) == "invalid_dpop_proof"
    assert (await bank.partner.ask("GET", AT, token)).status == 200


async def test_a_client_proves_itself_in_its_own_way_and_in_no_other(
    bank: Bank, named: TlsPartner, own: TlsPartner
) -> None:
    crossed = {
        "a signer with a certificate alone": TlsPartner(bank.stage, bank.partner.client_id, NAMED),
        "another's certificate": TlsPartner(bank.stage, named.client_id, OWN),
        "another's name": TlsPartner(bank.stage, own.client_id, NAMED),
        "client_id alone": TlsPartner(bank.stage, named.client_id, None),
        "nobody": TlsPartner(bank.stage, "ptn_nobody", NAMED),
    }
    for what, each in crossed.items():
        assert error_of(await each.push()) == "invalid_client", what
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/introspect"):
            assert error_of(await each.form(path, {"token": "x"})) == "invalid_client", what
    signed = Partner(bank.stage, own.client_id, Es256(OWN.key), "c1")
    assert error_of(await signed.push()) == "invalid_client"  # its keys sign no assertions
    both = await own.push(client_assertion=signed.assertion())
    assert error_of(both) == "invalid_client"
    assert error_of(await own.push(client_secret="s")) == "invalid_client"


async def test_what_tokens_are_bound_to_is_not_the_clients_choice_of_the_moment(
    bank: Bank, named: TlsPartner
) -> None:
    shown = named.proof("POST", "/oauth/par")
    assert error_of(await named.push(proof=shown)) == "invalid_request"
    assert error_of(await named.push(dpop_jkt=named.dpop.jkt)) == "invalid_request"
    code = await bank.code(named)
    proof = named.proof("POST", "/oauth/token")
    assert error_of(await named.exchange(code, proof=proof)) == "invalid_request"
    assert (await named.exchange(code)).status == 200
    code = await bank.code()
    assert error_of(await bank.partner.exchange(code, proof="")) == "invalid_dpop_proof"


LATE = Pair(NAME, AUTHORITY, ends=-DAY)
CHAINED = Pair(NAME, BETWEEN)
REVOKED = Pair(NAME, AUTHORITY)


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(LATE, id="EnsureExpiredCertificateFails"),
        pytest.param(Pair(NAME, STRANGER), id="EnsureCertificateOfAnUnknownAuthorityFails"),
        pytest.param(Pair(NAME), id="EnsureSelfSignedCertificateWithTheSameNameFails"),
        pytest.param(CHAINED, id="EnsureCertificateWithoutItsChainFails"),
        pytest.param(Pair("CN=Ledger Lens,O=Lens Ltd,C=FR", AUTHORITY), id="EnsureWrongDnFails"),
        pytest.param(Pair("CN=Ledger Lens", AUTHORITY), id="EnsurePartOfTheDnFails"),
        pytest.param(
            Pair(NAME, AUTHORITY, purpose=ExtendedKeyUsageOID.SERVER_AUTH),
            id="EnsureServerCertificateFails",
        ),
        pytest.param(Pair(NAME, AUTHORITY, ca=True), id="EnsureAuthorityAsClientFails"),
    ],
)
async def test_a_certificate_that_nobody_vouches_for_proves_nobody(
    bank: Bank, named: TlsPartner, shown: Pair
) -> None:
    reply = await TlsPartner(bank.stage, named.client_id, shown).push()
    assert (reply.status, error_of(reply)) == (401, "invalid_client")


async def test_a_chain_leads_to_the_anchor_and_a_revoked_certificate_nowhere(
    bank: Bank, tls: Tls, named: TlsPartner
) -> None:
    chained = TlsPartner(bank.stage, named.client_id, CHAINED, BETWEEN)
    revoked = TlsPartner(bank.stage, named.client_id, REVOKED)
    assert (await chained.push()).status == 201
    assert (await revoked.push()).status == 201
    try:
        tls.anchors.write_bytes(AUTHORITY.pem + AUTHORITY.crl(REVOKED))  # read without a restart
        assert error_of(await revoked.push()) == "invalid_client"
        assert (await named.push()).status == 201
        tls.anchors.write_bytes(AUTHORITY.pem + AUTHORITY.crl(until=-timedelta(hours=1)))
        assert error_of(await named.push()) == "invalid_client"  # a list of yesterday tells nothing
    finally:
        tls.anchors.write_bytes(AUTHORITY.pem)


@pytest.mark.parametrize(
    ("kind", "name", "good", "bad"),
    [
        (
            *(NameKind.SAN_DNS, "api.lens.example"),
            *(x509.DNSName("API.lens.example"), x509.DNSName("*.lens.example")),
        ),
        (
            *(NameKind.SAN_URI, "spiffe://lens/api"),
            *(
                x509.UniformResourceIdentifier("spiffe://lens/api"),
                x509.UniformResourceIdentifier("spiffe://lens/api2"),
            ),
        ),
        (
            *(NameKind.SAN_IP, "2001:db8::1"),
            *(
                x509.IPAddress(ipaddress.ip_address("2001:db8:0::1")),
                x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
            ),
        ),
        (
            *(NameKind.SAN_EMAIL, "api@lens.example"),
            *(x509.RFC822Name("api@LENS.example"), x509.RFC822Name("API@lens.example")),
        ),
    ],
)
async def test_the_registered_name_is_looked_for_in_its_own_place(
    bank: Bank, kind: NameKind, name: str, good: Any, bad: Any
) -> None:
    proving = Proving(AuthMethod.TLS_CLIENT_AUTH, kind, name, binds_certificate=True)
    client_id = await taken_on(bank, f"By {kind}", proving)
    at = bank.stage
    assert (
        await TlsPartner(at, client_id, Pair("CN=x", AUTHORITY, names=[good])).push()
    ).status == 201
    subject = Pair(f"CN={name}", AUTHORITY)
    for wrong in (Pair("CN=x", AUTHORITY, names=[bad]), subject):
        assert error_of(await TlsPartner(at, client_id, wrong).push()) == "invalid_client"


# The header


async def test_only_a_trusted_proxy_is_believed(bank: Bank, named: TlsPartner) -> None:
    """The peer counts, not whom it says that it forwards for."""

    def from_(peer: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["state"]["peer"] = peer
            await bank.stage.app(scope, receive, send)

        return app

    body = [urlencode({"client_id": named.client_id, "token": "x"}).encode()]
    said = {"content-type": "application/x-www-form-urlencoded", "client-cert": NAMED.header}
    for peer, status in (
        ("10.9.8.7", 200),
        ("203.0.113.9", 401),
        ("::ffff:10.0.0.1", 200),
        ("", 200),
    ):
        reply = await call(from_(peer), "POST", "/oauth/revoke", dict(said), body)
        assert reply.status == status, peer
    for header in ("x", ":AAAA:", f"{NAMED.header}, {NAMED.header}", NAMED.header.strip(":")):
        wrong = {**said, "client-cert": header}
        assert error_of(await call(from_("10.0.0.1"), "POST", "/oauth/revoke", wrong, body))
    alone = {**said, "client-cert-chain": said["client-cert"]}
    del alone["client-cert"]
    refused = await call(from_("10.0.0.1"), "POST", "/oauth/revoke", alone, body)
    assert error_of(refused) == "invalid_client"


def test_without_trusted_proxies_a_header_is_nothing() -> None:
    headers = [("client-cert", NAMED.header)]
    assert presented(headers, "127.0.0.1", read_proxies(None)) is None
    assert presented(headers, None, read_proxies("0.0.0.0/0")) is None
    found = presented(headers, "127.0.0.1", read_proxies("127.0.0.0/8"))
    assert found is not None
    assert found.leaf.der == NAMED.der
    with pytest.raises(CertificateRefused):
        presented([*headers, *headers], "127.0.0.1", read_proxies("127.0.0.1"))


# Who partners are


@pytest.mark.parametrize(
    ("proving", "jwks"),
    [
        (Proving(AuthMethod.TLS_CLIENT_AUTH), []),
        (replace(BY_NAME, name_kind=NameKind.SAN_DNS, name="*.lens.example"), []),
        (replace(BY_NAME, name="nonsense"), []),
        (replace(BY_NAME, method=AuthMethod.SELF_SIGNED), [OWN.jwk]),
        (BY_OWN, [{**Es256().jwk, "kid": "k"}]),
        (BY_OWN, [{**Es256().jwk, "kid": "k", "x5c": OWN.jwk["x5c"]}]),
        (BY_OWN, [{**OWN.jwk, "x5c": ["AAAA"]}]),
    ],
)
def test_terms_that_prove_nobody_are_refused(proving: Proving, jwks: list[Any]) -> None:
    with pytest.raises(PartnerTermsInvalid):
        check_proving(proving, jwks)


async def test_a_renewed_certificate_goes_on_with_the_consent_and_the_old_token_does_not(
    bank: Bank,
) -> None:
    client_id = await taken_on(bank, "Renews", BY_OWN, [OWN.jwk])
    own = TlsPartner(bank.stage, client_id, OWN)
    tokens = await tokens_of(bank, own)
    renewed = Pair("CN=Nobody vouches", key=Es256().key)
    row = await partner_with_id(bank.stage.db, parse("ptn", own.client_id))
    keys = [{**renewed.jwk, "kid": "c2"}]
    wanted = Changing(
        *(row.name, row.redirect_uris, keys, row.kinds),
        state=PartnerState.ACTIVE,
        changed_at=row.changed_at,
        proving=BY_OWN,
    )
    async with bank.stage.db.begin("maker") as tx:
        asked = await propose_change(tx, row.id, wanted, reason="a new certificate", may=MAY)
    await bank.agree(asked)
    assert error_of(await own.push()) == "invalid_client"
    later = TlsPartner(bank.stage, own.client_id, renewed)
    fields = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    again = await later.form("/oauth/token", fields)
    assert again.status == 200, again.body
    assert (await later.see(AT, again.json["access_token"])).status == 200
    assert error_of(await later.see(AT, tokens["access_token"])) == "invalid_token"


async def test_introspection_tells_a_partner_of_its_own_tokens_only(
    bank: Bank, named: TlsPartner
) -> None:
    token = (await tokens_of(bank, named))["access_token"]
    told = (await named.form("/oauth/introspect", {"token": token})).json
    assert told["active"] is True
    assert told["cnf"] == {"x5t#S256": b64(hashlib.sha256(NAMED.der).digest())}
    assert told["authorization_details"][0]["permissions"] == ACCOUNTS["permissions"]
    mine = await bank.token()
    told = (await bank.partner.form("/oauth/introspect", {"token": mine})).json
    assert told["cnf"] == {"jkt": bank.partner.dpop.jkt}
    for other in (mine, "unknown"):
        assert (await named.form("/oauth/introspect", {"token": other})).json == {"active": False}
