"""Who applied and never became a merchant is forgotten by rule; who became one is not."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.dying import dying
from tests.onboarding.applicants import PICTURES, Applicant, body
from tests.stage import Stage, new_number
from tongbao.controls.retention import sweeping
from tongbao.infra import audit
from tongbao.infra.blob_uploads.uploads import clean_uploads
from tongbao.infra.blobs.model import BlobNotFound
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence
from tongbao.parties.onboarding import _store as store
from tongbao.parties.onboarding.documents import read_document
from tongbao.parties.onboarding.queries import documents_of
from tongbao.surfaces.retention.kinds import erase_what_is_old


@pytest.fixture
def years_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """To whoever sweeps it is three years and a day later."""
    monkeypatch.setattr(sweeping, "real_now", lambda: real_now() + timedelta(days=1097))


async def swept(stage: Stage) -> None:
    await stage.db.execute("update retention_progress set looked_at = 'epoch'", ())
    while await erase_what_is_old(stage.db, Licence.BANK):
        pass


async def ended(stage: Stage, made: dict[str, Any], state: str, at: datetime) -> None:
    row = "update application set state = $2, ended_at = $3, note = '张三' where id = $1"
    await stage.db.execute(row, (parse("app", made["id"]), state, at))


async def persons_of(stage: Stage, made: dict[str, Any]) -> dict[str, Any]:
    """All that a row and its papers say of persons."""
    application_id: UUID = parse("app", made["id"])
    row = await store.GET_APPLICATION.one(stage.db, application_id)
    return {
        "row": (row.personal_sealed, row.masked, row.person_blind, row.account_blind, row.note),
        "papers": [each.blob_key for each in await documents_of(stage.db, application_id)],
    }


@pytest.mark.usefixtures("years_later")
async def test_persons_papers_and_signatures_go_and_the_firm_and_the_verdict_stay(
    applicant: Applicant, stage: Stage
) -> None:
    declined, draft, late = (
        await applicant.submitted(),
        await applicant.apply(),
        await applicant.submitted(),
    )
    opened = await applicant.opened()
    await applicant.add(draft, "legal_id_front", PICTURES["legal_id_front"])
    now = real_now()
    await ended(stage, declined, "declined", now)
    await ended(stage, late, "withdrawn", now + timedelta(days=400))
    row = parse("app", declined["id"])
    papers = await documents_of(stage.db, row)
    assert await read_document(stage.platform.blobs, papers[0])
    kept = {made["id"]: await persons_of(stage, made) for made in (late, opened)}
    before = await store.GET_APPLICATION.one(stage.db, row)

    with dying("retention.before_progress"):
        await swept(stage)
    assert (await store.GET_APPLICATION.one(stage.db, row)).note == "张三"
    await swept(stage)

    after = await store.GET_APPLICATION.one(stage.db, row)
    assert (after.form, after.state, after.ended_at) == (before.form, "declined", before.ended_at)
    assert set(vars_of(after.masked)) == {"erased"}
    assert after.note == "erased"
    assert len(after.personal_sealed) == 32
    assert {after.person_blind, after.account_blind}.isdisjoint(
        {before.person_blind, before.account_blind}
    )
    assert {each.blob_key for each in await documents_of(stage.db, row)} == {"erased"}
    assert [each.sha256 for each in await documents_of(stage.db, row)] == [
        each.sha256 for each in papers
    ]
    await clean_uploads(stage.db, stage.platform.blobs)
    for paper in papers:
        with pytest.raises(BlobNotFound):
            await read_document(stage.platform.blobs, paper)
    for each in await store.SIGNATURES.all(stage.db, row):
        assert (each.signer_masked, len(each.signer_sealed)) == ("erased", 32)
        assert set(each.evidence) == {"erased_sha256"}
    assert {made["id"]: await persons_of(stage, made) for made in (late, opened)} == kept
    shown = await applicant.read(draft)
    assert (shown["status"], shown["personal"]["legal_name"]) == ("withdrawn", "erased")

    entries = await audit.entries_of_subject(stage.db, "application")
    assert [each.facts["rows"] for each in entries][-1] == 2
    await swept(stage)
    assert await audit.entries_of_subject(stage.db, "application") == entries


@pytest.mark.usefixtures("years_later")
async def test_the_number_of_a_forgotten_application_stays_used(
    applicant: Applicant, stage: Stage
) -> None:
    said = body() | {"application_no": new_number()}
    status, made = await applicant.ask("POST", "/v1/applications", said)
    assert status == 201
    await swept(stage)
    status, refused = await applicant.ask("POST", "/v1/applications", said)
    assert (status, refused["code"]) == (409, "application.number_used"), refused
    status, refused = await applicant.submit(made)
    assert (status, refused["code"]) == (409, "application.wrong_state"), refused


def vars_of(masked: Any) -> list[str]:
    return [getattr(masked, name) for name in masked.__struct_fields__]
