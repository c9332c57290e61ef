"""Client certificates (RSA, ECDSA, SM2) that people confirm acts with, and whom we believe.

The authority that issues to clients is the anchor, so that its list of revoked certificates
counts. A list that is not renewed in time stops everything it covers: nobody knows who is on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.certificates import (
    Anchor,
    Certificate,
    CertificateRefused,
    check_authority_of,
    check_chain,
    check_crl,
    read_certificate,
    verify_by_certificate,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.parties.authentication import _store as store
from tongbao.parties.authentication.model import (
    Act,
    AuthenticatorNotFound,
    CertificateAnchor,
    Challenge,
    ClientCertificate,
    ProofRefused,
)

PREFIX: Final = "crt"
ANCHOR_PREFIX: Final = "anc"


async def add_anchor(tx: Tx, name: str, der: bytes) -> CertificateAnchor:
    """Believe an authority from now on.

    Raises:
        CertificateRefused
    """
    certificate = read_certificate(der)
    digest = hashlib.sha256(der).digest()
    added = await store.INSERT_ANCHOR.one(tx, new_id(), name, digest, der, tx.now, tx.actor)
    facts = {"name": name, "subject": certificate.subject[:128], "fingerprint": digest.hex()}
    await audit.record(tx, "certificate.anchor_added", show(ANCHOR_PREFIX, added.id), facts)
    return added


async def renew_crl(tx: Tx, anchor_id: UUID, crl_der: bytes) -> datetime:
    """Take an authority's newer list of revoked certificates and return how long it counts.

    Raises:
        AuthenticatorNotFound, CertificateRefused
    """
    anchor = next((each for each in await anchors(tx) if each.id == anchor_id), None)
    if anchor is None:
        raise AuthenticatorNotFound
    until = check_crl(crl_der, read_certificate(anchor.der), real_now())
    if not await store.SET_CRL.run(tx, anchor_id, crl_der, until):
        raise CertificateRefused(reason="a newer list is known")
    await audit.record(tx, "certificate.crl_renewed", show(ANCHOR_PREFIX, anchor_id), {})
    return until


async def renew_crl_between(
    tx: Tx, anchor_id: UUID, authority_der: bytes, crl_der: bytes
) -> datetime:
    """Take the newer list of an authority that an anchor vouches for; return how long it counts.

    Raises:
        AuthenticatorNotFound, CertificateRefused
    """
    anchor = next((each for each in await anchors(tx) if each.id == anchor_id), None)
    if anchor is None:
        raise AuthenticatorNotFound
    authority, now = read_certificate(authority_der), real_now()
    check_authority_of(authority, [Anchor(read_certificate(anchor.der), anchor.crl_der)], now)
    until = check_crl(crl_der, authority, now)
    digest = hashlib.sha256(authority_der).digest()
    if not await store.SET_LIST.run(tx, digest, anchor_id, crl_der, until, tx.now, tx.actor):
        raise CertificateRefused(reason="a newer list is known")
    facts: dict[str, Fact] = {"of": authority.subject[:128], "fingerprint": digest.hex()}
    await audit.record(tx, "certificate.crl_renewed", show(ANCHOR_PREFIX, anchor_id), facts)
    return until


async def end_anchor(tx: Tx, anchor_id: UUID) -> None:
    """Believe an authority no more.

    Raises:
        AuthenticatorNotFound
    """
    if not await store.END_ANCHOR.run(tx, anchor_id, tx.now):
        raise AuthenticatorNotFound
    await audit.record(tx, "certificate.anchor_ended", show(ANCHOR_PREFIX, anchor_id), {})


async def anchors(on: Db | Tx) -> list[CertificateAnchor]:
    """Return the authorities that are believed."""
    return await store.ANCHORS.all(on)


def signed_text(challenge: Challenge, act: Act | None = None) -> bytes:
    """Return what a certificate signs: the act in words and figures, then the fresh challenge."""
    lines = ["tongbao confirmation v1"]
    if act is not None:
        lines += [act.kind, act.subject, str(act.amount), act.currency, act.payee]
    return "\n".join([*lines, challenge.signed.hex(), ""]).encode()


async def bind_certificate(
    tx: Tx, owner_id: UUID, chain: Sequence[bytes], challenge: Challenge, signature: bytes
) -> ClientCertificate:
    """Keep a certificate whose key has signed the challenge; one is one person's.

    Raises:
        CertificateRefused, ProofRefused
    """
    leaf = await _believed(tx, chain, real_now())
    if not verify_by_certificate(leaf, signed_text(challenge), signature):
        raise ProofRefused
    digest = hashlib.sha256(leaf.der).digest()
    kept = await store.INSERT_CERTIFICATE.first(
        tx, new_id(), owner_id, digest, list(chain), leaf.serial, leaf.not_after, tx.now
    )
    if kept is None:
        raise ProofRefused
    facts = {"certificate": show(PREFIX, kept.id), "serial": leaf.serial}
    await audit.record(tx, "certificate.bound", tx.actor, facts)
    return kept


async def certificate_proves(
    db: Db, owner_id: UUID, challenge: Challenge, *, act: Act, signature: bytes
) -> bool:
    """Tell whether a certificate of the owner's, still good, has signed the act.

    Raises:
        CertificateRefused: it has, and is expired or revoked by now.
    """
    text = signed_text(challenge, act)
    for kept in await certificates_of(db, owner_id):
        leaf = read_certificate(kept.chain[0])
        if verify_by_certificate(leaf, text, signature):
            await _believed(db, kept.chain, real_now())
            return True
    return False


async def certificates_of(on: Db | Tx, owner_id: UUID) -> list[ClientCertificate]:
    """Return somebody's certificates."""
    return await store.CERTIFICATES.all(on, owner_id)


async def end_certificate(tx: Tx, owner_id: UUID, certificate_id: UUID) -> None:
    """Take a certificate no more.

    Raises:
        AuthenticatorNotFound
    """
    if not await store.END_CERTIFICATE.run(tx, certificate_id, owner_id):
        raise AuthenticatorNotFound
    facts = {"certificate": show(PREFIX, certificate_id)}
    await audit.record(tx, "certificate.ended", tx.actor, facts)


async def forget_certificates(tx: Tx, owner_id: UUID) -> None:
    """Forget every certificate somebody had."""
    await store.FORGET_CERTIFICATES.run(tx, owner_id)


async def _believed(on: Db | Tx, chain: Sequence[bytes], now: datetime) -> Certificate:
    leaf, *between = [read_certificate(der) for der in chain]
    known = [Anchor(read_certificate(each.der), each.crl_der) for each in await anchors(on)]
    lists = {each.authority: each.crl_der for each in await store.LISTS.all(on)}
    check_chain(leaf, between, known, now, lists)
    return leaf
