"""What channels said is erased when its term is over, its digest stays, and money is as before."""

from __future__ import annotations

import hashlib
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.conftest import on_database
from tests.controls.test_audit_log import judged
from tests.stage import Stage
from tests.surfaces.commands import command_line
from tests.surfaces.visitors import hire, reader
from tests.surfaces.wallet_users import RETURN, wallet_of_user
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approval, Approvals, acts_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.controls.audit_log.checkpoints import prove_growth, sign_checkpoint, verify_log
from tongbao.controls.dated_rows.rows import bound_rows, propose_row
from tongbao.controls.retention import sweeping
from tongbao.controls.retention.model import (
    EvidenceNeeded,
    RetentionTerm,
    RetentionTermThere,
    RetentionTermWrong,
    term_at,
)
from tongbao.controls.retention.terms import TERMS, every_term
from tongbao.infra import audit
from tongbao.infra.audit_tree import place_entries
from tongbao.infra.db import Db
from tongbao.infra.embedded import EmbeddedServer
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import first_id_at, new_id, parse
from tongbao.kernel.licence import Licence
from tongbao.ledger.proofs.checkpoints import prove_now
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.verify import verify
from tongbao.payments.callbacks.inbox import BelieveCallback, believe_callback
from tongbao.surfaces.retention import asked
from tongbao.surfaces.retention.kinds import KINDS, erase_what_is_old, held
from tongbao_sdk import Refused

LICENCE = Licence.PAYMENT_INSTITUTION
MAY = ("deployment_act",)


class Raw(Struct):
    """What is kept of one payment's talks, by id."""

    told: dict[Any, tuple[Any, bytes, str]]  # headers, body, as read
    asked: dict[Any, tuple[str, str]]


@pytest.fixture
def years_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """To whoever sweeps it is three years and a day later."""
    monkeypatch.setattr(sweeping, "real_now", lambda: real_now() + timedelta(days=1097))


async def raw_of(stage: Stage, payment: Any) -> Raw:
    row, attempt = await stage.row_of(payment), await stage.attempt_of(payment)
    told = await stage.db.fetch(
        "select id, headers, body, callback::text from inbound_callback where number = $1",
        (attempt.number,),
    )
    asked = await stage.db.fetch(
        "select id, request, reply from exchange where book = $1 and payment_id = $2",
        (row.book, row.id),
    )
    return Raw({each[0]: tuple(each)[1:] for each in told}, {e[0]: (e[1], e[2]) for e in asked})


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
async def paid(shared_stage: Stage) -> Any:
    payment = await shared_stage.paid("alipay", 2_000)
    await shared_stage.idle()
    return payment


async def swept(db: Db) -> int:
    """Sweep until there is nothing left, as rounds an hour apart do."""
    total = 0
    await db.execute("update retention_progress set looked_at = 'epoch'", ())
    while count := await erase_what_is_old(db, LICENCE):
        total += count
    return total


async def test_what_is_young_stays_as_it_came(shared_stage: Stage, paid: Any) -> None:
    before = await raw_of(shared_stage, paid)
    assert before.told
    assert before.asked

    assert await swept(shared_stage.db) == 0

    assert await raw_of(shared_stage, paid) == before


@pytest.mark.usefixtures("years_later")
async def test_what_is_old_is_erased_and_its_digest_stays(
    shared_stage: Stage, paid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 2)
    stage, db = shared_stage, shared_stage.db
    before, payment = await raw_of(stage, paid), await stage.row_of(paid)

    assert await swept(db) >= len(before.told) + len(before.asked)

    after = await raw_of(stage, paid)
    for each, (headers, body, read) in before.told.items():
        now_headers, now_body, now_read = after.told[each]
        assert now_headers[":sha256"] == digest(body)
        assert set(now_headers) == {":erased", ":sha256"} != set(headers)
        assert now_body == b""
        assert '"content": ""' in now_read
        assert '"content": ""' not in read
    for each, (request, reply) in before.asked.items():
        assert after.asked[each][0].endswith(f" sha256={digest(request.encode())}")
        assert after.asked[each][1].endswith(f" sha256={digest(reply.encode())}")
    assert await stage.row_of(paid) == payment
    entries = await audit.entries_of_subject(db, "exchange")
    assert [each.action for each in entries][-1] == "retention.erased"
    assert await swept(db) == 0, "a digest is not erased again"
    assert await raw_of(stage, paid) == after


@pytest.mark.usefixtures("years_later")
async def test_who_never_opened_a_wallet_is_forgotten_and_may_apply_anew(
    shared_stage: Stage,
) -> None:
    stage, client = shared_stage, shared_stage.client
    opened = await wallet_of_user(stage, client, "kept-1")
    never, waiting, late = [
        await stage.call(client.wallet_applications.create, f"{name}-1")
        for name in ("never", "waiting", "late")
    ]
    over = "update wallet_application set state = 'expired', expires_at = $2 where id = $1"
    began = stage.db.clock.now()
    for made, ends in ((never, began), (late, began + timedelta(days=400))):
        await stage.db.execute(over, (parse("wap", made["id"]), ends))

    await swept(stage.db)

    shown = [
        (await stage.call(client.wallet_applications.get, made["id"]))["user_id"]
        for made in (never, opened, waiting, late)
    ]
    assert shown == [f"erased:{digest(b'never-1')[:57]}", "kept-1", "waiting-1", "late-1"]
    with pytest.raises(Refused) as refused:
        await stage.call(client.wallet_applications.link, never["id"], RETURN)
    assert refused.value.code == "wallet_application.state_wrong"
    anew = await stage.call(client.wallet_applications.create, "never-1")
    assert anew["id"] != never["id"]
    entries = await audit.entries_of_subject(stage.db, "wallet_application")
    assert [each.facts["rows"] for each in entries] == [1]
    await swept(stage.db)
    assert len(await audit.entries_of_subject(stage.db, "wallet_application")) == 1


@pytest.mark.usefixtures("years_later")
async def test_what_was_proved_before_is_proved_after(
    shared_stage: Stage, paid: Any, tmp_path: Path
) -> None:
    """The receipt, the ledger, and an audit log that has only grown: by what erasing says of it."""
    stage, db = shared_stage, shared_stage.db
    proofs = Proofs(db, stage.platform.keyring)
    await prove_now(proofs)
    receipt = await stage.call(stage.client.payments.receipt, paid["id"])
    await place_entries(db)
    before = await sign_checkpoint(proofs)

    assert await swept(db) > 0
    await place_entries(db)
    after = await sign_checkpoint(proofs)
    assert before is not None
    assert after is not None
    assert after.size > before.size
    for proof in (
        json.dumps(receipt).encode(),
        await prove_growth(db, before.number, after.number),
    ):
        told = await judged(db, tmp_path, proof)
        assert told.returncode == 0, told.stderr
    again = await stage.call(stage.client.payments.receipt, paid["id"])
    assert again["transfers"] == receipt["transfers"]
    assert (await verify_log(db)).breaches == 0
    assert (await verify(db)).broken == ()


@pytest.mark.usefixtures("years_later")
async def test_an_erased_callback_is_still_taken_once(shared_stage: Stage, paid: Any) -> None:
    stage = shared_stage
    await swept(stage.db)
    [(told, *_)] = (await raw_of(stage, paid)).told.items()
    payment = await stage.row_of(paid)

    await believe_callback(stage.platform.flow, {}, BelieveCallback(told), Lease(new_id(), 1))

    assert await stage.row_of(paid) == payment


@pytest.mark.usefixtures("years_later")
async def test_a_death_in_between_erases_nothing_and_the_next_round_does(
    shared_stage: Stage, paid: Any
) -> None:
    before = await raw_of(shared_stage, paid)
    await shared_stage.db.execute("update retention_progress set looked_at = 'epoch'", ())
    arm("retention.before_progress:raise")
    with pytest.raises(SimulatedCrash):
        await erase_what_is_old(shared_stage.db, LICENCE)
    arm(None)
    assert await raw_of(shared_stage, paid) == before

    await swept(shared_stage.db)

    assert (await raw_of(shared_stage, paid)).told != before.told


@pytest.mark.usefixtures("years_later")
async def test_of_two_processes_one_erases(shared_stage: Stage, paid: Any) -> None:
    db = shared_stage.db
    before = await raw_of(shared_stage, paid)
    await swept(db)
    await db.execute(
        "update retention_progress set looked_at = 'epoch', after_id = $1", (new_id(),)
    )
    async with db.begin("other") as tx:
        await tx.fetch("select 1 from retention_progress for update", ())

        assert await erase_what_is_old(db, LICENCE) == 0, "and waits for nobody"

    assert before.told


async def test_one_payments_talks_are_erased_when_somebody_asks(
    shared_stage: Stage, paid: Any, tmp_path: Path, server: EmbeddedServer
) -> None:
    stage, other = shared_stage, await shared_stage.paid("alipay", 2_001)
    await stage.idle()
    before, untouched = await raw_of(stage, paid), await raw_of(stage, other)
    [[name]] = await stage.db.fetch("select current_database()::text", ())
    environment = {
        "TONGBAO_DSN": on_database(server.dsn, name),
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": LICENCE.value,
        "TONGBAO_LOG_LEVEL": "warning",
    }
    with command_line(environment) as cli:
        why = ("--because", "the payer asked", "--reason", "they may")
        made = (await cli("--json", "retention", "erase", paid["id"], *why)).json
        assert await raw_of(stage, paid) == before, "one person alone erases nothing"
        await erased_by_two(stage, await approval_with_id(stage.db, parse("apv", made["approval"])))
        listed = (await cli("--json", "retention", "list")).json

    after = await raw_of(stage, paid)
    assert all(body == b"" for _, body, _ in after.told.values())
    assert all(" sha256=" in request for request, _ in after.asked.values())
    assert await raw_of(stage, other) == untouched
    assert {each["kind"] for each in listed} >= {each.kind for each in KINDS}
    entries = await audit.entries_of_subject(stage.db, paid["id"])
    [done] = [each for each in entries if each.action == "retention.payment_erased"]
    assert (done.facts["callbacks"], done.facts["exchanges"]) == (
        len(before.told),
        len(before.asked),
    )


async def erased_by_two(stage: Stage, made: Approval) -> str:
    """Have another person agree to an erasure; return how it ended."""
    desk = Approvals(stage.db, acts_of(*asked.bound_acts(stage.db)))
    async with stage.db.begin("checker") as tx:
        await approve(tx, desk.acts, made.id, digest=made.digest.hex(), may=MAY)
    await run_apply(desk, ApplyApproval(made.id), Lease(new_id(), 1))
    return (await approval_with_id(stage.db, made.id)).state.value


async def test_what_somebody_may_need_yet_is_not_erased(shared_stage: Stage) -> None:
    stage = shared_stage
    waits, paid = await stage.show_qr("alipay", 2_000), await stage.paid("alipay", 2_002)
    row = await stage.row_of(paid)

    async def proposed(payment: Any) -> Approval:
        async with stage.db.begin("maker") as tx:
            terms = asked.EraseTerms(payment["id"], "asked")
            return await asked.propose_erasure(tx, terms, reason="they may", may=MAY)

    async def refused(payment: Any) -> object:
        before = await raw_of(stage, payment)
        with pytest.raises(EvidenceNeeded) as needed:
            await proposed(payment)
        assert await raw_of(stage, payment) == before
        return needed.value.facts["needed_for"]

    assert await refused(waits) == "payment"
    case = new_id()

    async def opened_case() -> None:
        await stage.db.execute(
            "insert into payment_case (book, id, payment_id, merchant_id, mode, kind, detail,"
            " opened_at) values ($1, $2, $3, $4, $5, 'amount_differs', '', $6)",
            (row.book, case, row.id, row.merchant_id, row.mode.value, row.created_at),
        )

    await opened_case()
    assert await refused(paid) == "case"
    await stage.db.execute("delete from payment_case where id = $1", (case,))
    made, before = await proposed(paid), await raw_of(stage, paid)
    await opened_case()
    assert await erased_by_two(stage, made) == "failed", "something hangs on it by now"
    assert await raw_of(stage, paid) == before
    await stage.db.execute("delete from payment_case where id = $1", (case,))
    assert await erased_by_two(stage, await proposed(paid)) == "applied"
    assert await raw_of(stage, paid) != before


async def test_a_term_is_changed_by_two_people_and_counts_from_its_day(db: Db) -> None:
    desk = Approvals(db, acts_of(*bound_rows(db, TERMS)))
    asked = RetentionTerm("callback", date(2099, 1, 1), 400, "a new rule, article 1")
    async with db.begin("maker") as tx:
        made = await propose_row(tx, TERMS, asked, reason="the rule has changed", may=MAY)
    shown = await changes_of(desk, await approval_with_id(db, made.id))
    assert ("1096", "400") in [(each.before, each.after) for each in shown]
    async with db.begin("checker") as tx:
        await approve(tx, desk.acts, made.id, digest=made.digest.hex(), may=MAY)
    for crash in (True, False):
        arm("dated_rows.before_commit:raise" if crash else None)
        if crash:
            with pytest.raises(SimulatedCrash):
                await run_apply(desk, ApplyApproval(made.id), Lease(new_id(), 1))
        else:
            await run_apply(desk, ApplyApproval(made.id), Lease(new_id(), 1))

    terms = await every_term(db)
    days = [term_at(terms, "callback", day) for day in (date(2098, 12, 31), date(2099, 1, 1))]
    assert [each and each.days for each in days] == [1096, 400]
    async with db.begin("maker") as tx:
        with pytest.raises(RetentionTermThere):
            await propose_row(tx, TERMS, asked, reason="once more, please", may=MAY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ledger"},
        {"valid_from": date(2020, 1, 1)},
        {"days": 29},
        {"days": 36_601},
        {"because": " "},
    ],
)
async def test_a_term_that_cannot_be_is_refused(module_db: Db, wrong: dict[str, Any]) -> None:
    said = {"kind": "callback", "valid_from": date(2099, 1, 1), "days": 400, "because": "a rule"}
    async with module_db.begin("maker") as tx:
        with pytest.raises(RetentionTermWrong):
            await propose_row(
                tx, TERMS, RetentionTerm(**(said | wrong)), reason="the rule has changed", may=MAY
            )


async def test_the_console_shows_what_is_kept_and_by_what_rule(shared_stage: Stage) -> None:
    async with reader(shared_stage, await hire(shared_stage)) as admin:
        page = await admin.get("/console/retention")

    for each in await held(shared_stage.db, LICENCE):
        assert each.en in page.text
        assert each.because in page.text


def test_an_id_says_when_it_was_made() -> None:
    made, now = new_id(), real_now()

    assert first_id_at(now - timedelta(seconds=5)) < made < first_id_at(now + timedelta(seconds=5))
