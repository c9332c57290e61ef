"""The lists of authorities in between are kept, the newest of each, and looked at."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.infra.test_certificates import DAY, NOW, ROOT, STRANGER, Authority, client
from tongbao.infra import audit
from tongbao.infra.certificates import CertificateRefused, read_certificate
from tongbao.infra.db import Db
from tongbao.kernel.ids import new_id, show
from tongbao.parties.authentication.certificates import (
    ANCHOR_PREFIX,
    _believed,
    add_anchor,
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
