"""Terms that merchants agree to: published in versions, signed by their hash, signed again.

What is signed is a version and the SHA-256 of its text: whoever doubts a signature hashes the text
that is published under the version. Only a licensed firm has terms of its own; an aggregator's
merchants agree with the institution that settles (银发〔2017〕45号).
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Final, Literal
from uuid import UUID

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.errors import Conflict, Fact, NotFound, Rejected
from tongbao.kernel.ids import parse, show
from tongbao.parties.onboarding import _store as store
from tongbao.parties.onboarding._store import MerchantTerms, Signature
from tongbao.parties.onboarding.model import (
    PREFIX,
    Application,
    ApplicationNotFound,
    mask_name,
)
from tongbao.parties.onboarding.queries import application_of_caller

_SIGNER: Final = "term.signer"
EVIDENCE_MAX: Final = 200


class TermsNotPublished(NotFound):
    """No terms are in force that could be signed."""

    code = "terms.not_published"
    advice = "Nothing has to be signed at present."
    advice_zh = "目前没有需要签署的协议。"


class TermsNotThese(Conflict):
    """Another version of the terms is in force, or its text is another."""

    code = "terms.not_these"
    advice = "Read the terms in force again and sign their version and sha256."
    advice_zh = "协议已更新，请重新阅读现行版本，并按其版本号与 sha256 签署。"


class TermsUnsigned(Rejected):
    """The terms in force are not signed."""

    code = "terms.unsigned"
    advice = "Sign the version that is in force; a new version is signed anew."
    advice_zh = "请先签署现行版本的协议；协议更新后须重新签署。"


class Evidence(Struct, frozen=True):
    """How a signature came about, as the program that sent it says."""

    method: str  # "sms_code", "face", "paper", "click"
    reference: str = ""  # of the proof, at whoever keeps it
    address: str = ""  # from where


async def publish_terms(
    tx: Tx, *, title: str, content: str, in_force_from: datetime | None = None
) -> MerchantTerms:
    """Publish the next version; the same text again is refused.

    Raises:
        TermsNotThese
    """
    version = 1 + await store.LAST_TERMS.one(tx)
    digest = sha256(content.encode()).digest()
    made = await store.INSERT_TERMS.first(
        tx, version, title, digest, content, in_force_from or tx.now, tx.actor, tx.now
    )
    if made is None:
        raise TermsNotThese(version=version)
    facts = {"title": title, "sha256": digest.hex()}
    await audit.record(tx, "terms.published", f"terms/{version}", facts)
    return made


async def terms_in_force(on: Db | Tx, at: datetime) -> MerchantTerms:
    """Return the terms to be signed at a moment.

    Raises:
        TermsNotPublished
    """
    found = await store.TERMS_AT.first(on, at)
    if found is None:
        raise TermsNotPublished
    return found


async def sign_terms(
    tx: Tx,
    keyring: Keyring,
    application: Application,
    *,
    version: int,
    digest: str,
    signer: str,
    evidence: Evidence,
) -> Signature:
    """Write down who agreed to which text; the same version again changes nothing.

    Raises:
        TermsNotPublished, TermsNotThese
    """
    terms = await terms_in_force(tx, tx.now)
    if (terms.version, terms.sha256.hex()) != (version, digest.lower()):
        raise TermsNotThese(version=terms.version, sha256=terms.sha256.hex())
    place = bind("term_signature", "signer_sealed", application.id, str(version))
    signed = await store.SIGN.first(
        tx,
        application.id,
        version,
        application.opened_merchant_id or application.merchant_id,
        application.mode,
        terms.sha256,
        mask_name(signer),
        keyring.seal(_SIGNER, signer.encode(), place),
        evidence,
        tx.actor,
        tx.now,
    )
    if signed is None:
        known = await store.SIGNATURES.all(tx, application.id)
        return next(each for each in known if each.version == version)
    facts: dict[str, Fact] = {
        "version": version,
        "sha256": digest.lower(),
        "method": evidence.method,
    }
    await audit.record(tx, "terms.signed", show(PREFIX, application.id), facts)
    return signed


async def check_signed(on: Db | Tx, application_id: UUID, at: datetime) -> None:
    """Raise unless the terms in force, where there are any, are signed.

    Raises:
        TermsUnsigned
    """
    terms = await store.TERMS_AT.first(on, at)
    if terms is None:
        return
    signatures = await store.SIGNATURES.all(on, application_id)
    if not any((each.version, each.sha256) == (terms.version, terms.sha256) for each in signatures):
        raise TermsUnsigned(version=terms.version)


# --- the routes; the others of applications are in `api` ---------------------------------------


class SignTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """Agree to the terms in force, named by version and hash, in the name of ``signer``."""

    version: int
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}(?!\n)$")]
    signer: Annotated[str, Meta(min_length=2, max_length=64)]
    method: Literal["click", "sms_code", "face", "paper"]
    reference: Annotated[str, Meta(max_length=200)] = ""
    address: Annotated[str, Meta(max_length=64)] = ""

    def __repr__(self) -> str:
        return f"SignTerms({self.version})"


class TermsView(Struct, frozen=True):
    """The terms in force; ``sha256`` is of ``content`` in UTF-8."""

    object: Literal["merchant_terms"]
    version: int
    title: str
    sha256: str
    content: str
    in_force_from: datetime


class TermsInForce(Struct, frozen=True):
    """The terms in force, at most one version of them."""

    items: list[TermsView]


class SignatureView(Struct, frozen=True):
    """One version that was agreed to."""

    version: int
    sha256: str
    signer: str
    signed_at: datetime


@get("/v1/merchant_terms", opt=needs("applications:read"))
async def get_merchant_terms(db: Db) -> TermsInForce:
    """Return the terms that are in force, to be read and signed; none: nothing is to be signed."""
    terms = await store.TERMS_AT.first(db, db.clock.now())
    if terms is None:
        return TermsInForce([])
    view = TermsView(
        object="merchant_terms",
        version=terms.version,
        title=terms.title,
        sha256=terms.sha256.hex(),
        content=terms.content,
        in_force_from=terms.in_force_from,
    )
    return TermsInForce([view])


@post(
    "/v1/applications/{application_id:str}/signatures",
    status_code=200,
    opt=needs(
        "applications:write",
        refuses=[ApplicationNotFound, TermsNotPublished, TermsNotThese],
        request_example=SignTerms(1, sha256(b"").hexdigest(), "张三丰", "click"),
    ),
)
async def sign_merchant_terms(
    application_id: str, data: SignTerms, *, db: Db, keyring: Keyring, caller: Caller
) -> SignatureView:
    """Agree to the terms in force; of the same version a second time changes nothing."""
    found = await application_of_caller(db, caller, parse(PREFIX, application_id))
    async with db.begin(caller.actor) as tx:
        signed = await sign_terms(
            tx,
            keyring,
            found,
            version=data.version,
            digest=data.sha256,
            signer=data.signer,
            evidence=Evidence(data.method, data.reference, data.address),
        )
    return SignatureView(
        signed.version, signed.sha256.hex(), signed.signer_masked, signed.signed_at
    )


TERMS_ROUTES: Final[list[HTTPRouteHandler]] = [get_merchant_terms, sign_merchant_terms]
