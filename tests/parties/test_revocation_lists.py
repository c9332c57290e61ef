"""The lists of authorities in between are kept, the newest of each, and looked at."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from ssl import PEM_cert_to_DER_cert

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_crl

from tests.infra.test_certificates import DAY, NOW, ROOT, STRANGER, Authority, client
from tongbao.infra import audit, sm2
from tongbao.infra.certificates import CertificateRefused, read_certificate
from tongbao.infra.db import Db
from tongbao.kernel.clock import UTC, real_now
from tongbao.kernel.ids import new_id, show
from tongbao.parties.authentication.certificates import (
    ANCHOR_PREFIX,
    _believed,
    add_anchor,
    end_anchor,
    renew_crl,
    renew_crl_between,
)
from tongbao.parties.authentication.model import AuthenticatorNotFound


async def test_a_certificate_that_was_taken_back_in_between_is_refused(module_db: Db) -> None:
    db, between = module_db, Authority(issuer=ROOT)
    leaf = client(between)
    serial = read_certificate(leaf).parsed.serial_number
    async with db.begin("test") as tx:
        anchor = await add_anchor(tx, "root", ROOT.der)
        await _believed(tx, [leaf, between.der], NOW)
        await renew_crl_between(tx, anchor.id, between.der, between.crl(serial + 1))
        await _believed(tx, [leaf, between.der], NOW)
        until = await renew_crl_between(
            tx, anchor.id, between.der, between.crl(serial, until=DAY * 2)
        )

        with pytest.raises(CertificateRefused):
            await _believed(tx, [leaf, between.der], NOW)
        with pytest.raises(CertificateRefused):  # an older one does not let it in again
            await renew_crl_between(tx, anchor.id, between.der, between.crl(until=DAY))
    assert until == NOW + DAY * 2
    entries = await audit.entries_of_subject(db, show(ANCHOR_PREFIX, anchor.id))
    assert [each.action for each in entries].count("certificate.crl_renewed") == 2


async def test_whose_list_it_is_must_be_vouched_for(module_db: Db) -> None:
    between = Authority(issuer=STRANGER)
    async with module_db.begin("test") as tx:
        anchor = await add_anchor(tx, "root", ROOT.der)
        for authority, crl in (
            (between, between.crl()),
            (Authority(issuer=ROOT), STRANGER.crl()),
            (Authority(issuer=ROOT, ends=NOW - timedelta(hours=1)), b"none"),
        ):
            with pytest.raises(CertificateRefused):
                await renew_crl_between(tx, anchor.id, authority.der, crl)
        with pytest.raises(AuthenticatorNotFound):
            await renew_crl_between(tx, new_id(), between.der, between.crl())


SM2_FILES = Path(__file__).parents[1] / "vectors" / "sm2_revocation"


def certificate(which: str) -> bytes:
    return PEM_cert_to_DER_cert((SM2_FILES / f"{which}.pem").read_text())


def revoked(which: str) -> bytes:
    """A list that OpenSSL has signed."""
    read = load_pem_x509_crl((SM2_FILES / f"{which}.pem").read_bytes())
    return read.public_bytes(Encoding.DER)


@pytest.mark.skipif(sm2.provider() is None, reason="this machine's OpenSSL knows no SM2")
async def test_lists_that_an_sm2_authority_signs(module_db: Db) -> None:
    """What another implementation made: who was taken back is refused, and so are false lists."""
    db, good, gone = module_db, [certificate("good")], [certificate("revoked")]
    async with db.begin("test") as tx:
        anchor = await add_anchor(tx, "sm2", certificate("authority"))
        assert (await renew_crl(tx, anchor.id, revoked("nobody"))).year == 2124
        for chain in (good, gone):
            await _believed(tx, chain, real_now())

        for false, why in (("stale", "not of today"), ("forged", "not the anchor's")):
            with pytest.raises(CertificateRefused, match=why):
                await renew_crl(tx, anchor.id, revoked(false))
        changed = revoked("current").replace(
            b"SM2 test", b"SM2 best"
        )  # issuer, under its signature
        with pytest.raises(CertificateRefused, match="not the anchor's"):
            await renew_crl(tx, anchor.id, changed)
        await _believed(tx, gone, real_now())

        await renew_crl(tx, anchor.id, revoked("current"))
        await _believed(tx, good, real_now())
        with pytest.raises(CertificateRefused, match="revoked"):
            await _believed(tx, gone, real_now())
        with pytest.raises(CertificateRefused, match="newer"):
            await renew_crl(tx, anchor.id, revoked("nobody"))
        with pytest.raises(CertificateRefused, match="not of today"):  # nobody renewed it
            await _believed(tx, good, datetime(2125, 12, 31, 23, 59, 59, tzinfo=UTC))
        await end_anchor(tx, anchor.id)
