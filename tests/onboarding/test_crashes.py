"""Whoever dies while a merchant is taken on is followed by somebody who finishes it, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import MakeDb
from tests.kernel.test_document_types import png
from tests.onboarding.applicants import PICTURES, Applicant
from tests.stage import Stage, staged
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.kernel.licence import Licence
from tongbao.parties.merchants.model import MerchantState
from tongbao.parties.merchants.queries import last_standing, merchant_with_id
from tongbao.parties.onboarding.documents import add_document
from tongbao.parties.onboarding.model import ApplicationState, DocumentKind
from tongbao.parties.onboarding.openings import OpeningTerms, open_approved
from tongbao.parties.onboarding.queries import documents_of
from tongbao.parties.standing.standing import (
    FinishExit,
    StandingTerms,
    run_finish_exit,
    set_standing,
)
from tongbao.payments.registrations.model import RegistrationState
from tongbao_sandbox.launch import RunningSandbox

NO_LEASE: Any = None


@contextmanager
def dying_at(place: str) -> Iterator[None]:
    failpoints.arm(f"{place}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            yield
    finally:
        failpoints.arm(None)


@pytest.mark.parametrize("place", ["onboarding.after_blob", "onboarding.before_document_commit"])
async def test_a_document_is_there_once(applicant: Applicant, stage: Stage, place: str) -> None:
    row = await applicant.row(await applicant.apply())
    add = (stage.db, stage.platform.blobs, row, DocumentKind.STORE_FRONT, png(7, 7))

    with dying_at(place):
        await add_document(*add, actor="test")
    assert await documents_of(stage.db, row.id) == []
    await add_document(*add, actor="test")

    assert len(await documents_of(stage.db, row.id)) == 1


async def test_a_merchant_is_opened_once(applicant: Applicant, stage: Stage) -> None:
    row = await applicant.row(made := await applicant.submitted())
    terms = msgspec.json.decode((await applicant.propose(made)).terms, type=OpeningTerms)
    platform = stage.platform

    async def open_it() -> None:
        async with stage.db.begin("test") as tx:
            licence = platform.settings.licence
            await open_approved(tx, platform.keyring, licence, terms, row.id)

    with dying_at("onboarding.before_opening_commit"):
        await open_it()
    assert (await applicant.row(made)).state is ApplicationState.SUBMITTED
    await open_it()

    opened = await applicant.row(made)
    assert opened.opened_merchant_id == derived_id(row.id, "merchant")


async def test_a_standing_and_an_exit_happen_once(stage: Stage) -> None:
    shop = await stage.open_shop()
    today = business_date(stage.db.clock.now())
    shown = show("mch", shop.merchant.id)
    terms = StandingTerms(shown, "x", MerchantState.ACTIVE, MerchantState.LEAVING, today)

    async def leave() -> None:
        async with stage.db.begin("test") as tx:
            await set_standing(tx, terms, "for a test")

    with dying_at("standing.before_commit"):
        await leave()
    await leave()
    last = await last_standing(stage.db, shop.merchant.id)
    assert last is not None
    assert last.version == 1

    stage.db.clock.offset += timedelta(days=1)
    task = FinishExit(shop.merchant.id, last.version)
    with dying_at("standing.before_exit_commit"):
        await run_finish_exit(stage.db, task, NO_LEASE)
    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.LEAVING
    await stage.platform.worker.run_until_idle(raise_failures=True)
    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.GONE


async def test_an_aggregator_only_collects_and_forwards(
    make_db: MakeDb, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    """No review, no terms, no commission: the channel decides, and its word is kept."""
    db = await make_db(licence=Licence.AGGREGATOR)
    sandbox.delete("faults")
    async with staged(db, tmp_path, sandbox, licence=Licence.AGGREGATOR) as stage:
        applicant = Applicant(stage)
        made = await applicant.apply()
        for kind, content in PICTURES.items():
            await applicant.add(made, kind, content)

        status, forwarded = await applicant.submit(made)
        await stage.platform.worker.run_until_idle(raise_failures=True)
        again = await applicant.submit(made)

        assert (status, forwarded["status"]) == (200, "forwarded")
        assert again[1]["merchant_id"] == forwarded["merchant_id"]
        found = await applicant.registration(made)
        assert found.state is RegistrationState.AUDITING
        assert "application.open" not in stage.platform.approvals.acts
        tables = await db.fetch(
            "select to_regclass('merchant_term') as a, to_regclass('commission') as b,"
            " to_regclass('term_signature') as c",
            (),
        )
        assert list(tables[0].values()) == [None, None, None]
        assert parse("mch", forwarded["merchant_id"])
        path = f"/v1/applications/{made['id']}/signatures"
        assert (await applicant.ask("POST", path, {}))[0] == 404
