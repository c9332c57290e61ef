"""A month leaves only when its files have every row, and comes back as it was."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.ledger.archive.past import (
    ALICE,
    BANK,
    BOB,
    MONTH,
    NEXT,
    group_of,
    make_past,
    pretend_proven,
    sound,
    submit,
    transfer,
)
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.ledger.archive.model import (
    ArchiveFileDiffers,
    MonthInDefault,
    MonthNotArchived,
    MonthNotSealed,
    month_after,
    partition_of,
)
from tongbao.ledger.archive.months import list_months, list_partitions, seal_month
from tongbao.ledger.archive.moving import archive_month, bring_back_month
from tongbao.ledger.archive.queries import archived_books, archived_totals
from tongbao.ledger.model import TransferKind
from tongbao.ledger.queries import caught_up
from tongbao.ledger.verify import verify


async def rows_of(db: Db, table: str) -> list[tuple]:
    return [tuple(row) for row in await db.pool.fetch(f"select * from {table} order by book, id")]


@pytest.fixture
async def sealed(db: Db, ledger) -> Db:
    """A month with a hold that was posted in the next, a refusal, and both sealed away."""
    await make_past(db)
    hold = transfer(MONTH, 30, ALICE, BOB, TransferKind.PENDING)
    await submit(
        ledger,
        group_of(transfer(MONTH, 100, BANK, ALICE)),
        group_of(hold),
        group_of(transfer(MONTH, 999, ALICE, BOB)),
        group_of(transfer(NEXT, 20, None, None, TransferKind.POST, pending_id=hold.id)),
    )
    await pretend_proven(db)
    await seal_month(db, MONTH, actor="tests", prove=sound)
    return db


async def test_a_month_moves_to_files_and_its_sums_stay(sealed: Db, tmp_path: Path) -> None:
    archived = await archive_month(sealed, MONTH, tmp_path, actor="tests")

    names = {partition.name for partition in await list_partitions(sealed)}
    assert partition_of("ledger_transfer", MONTH) not in names
    assert archived.state == "archived"
    assert archived.folder == str(tmp_path / f"{MONTH:%Y-%m}")
    assert len(await rows_of(sealed, "ledger_transfer")) == 1
    [of_book] = await archived_books(sealed, 1)
    assert (of_book.transfers, of_book.requests) == (2, 1)
    totals = {each.account: each for each in await archived_totals(sealed, 1)}
    for account in await sealed.pool.fetch("select * from ledger_account where book = 1"):
        left = await sealed.pool.fetchrow(
            """select coalesce(sum(case when debit_account = $1 then amount end), 0)::bigint as d,
                      coalesce(sum(case when credit_account = $1 then amount end), 0)::bigint as c,
                      count(*) filter (where $1 in (debit_account, credit_account)) as touches
                 from ledger_transfer""",
            account["id"],
        )
        gone = totals[account["id"]]
        assert account["debits_posted"] == gone.debits_posted + left["d"]
        assert account["credits_posted"] == gone.credits_posted + left["c"]
        assert account["touches"] == gone.touches + left["touches"]


async def test_a_commit_with_ids_on_both_sides_of_a_month_is_none_of_it(
    db: Db, ledger, tmp_path: Path
) -> None:
    await make_past(db)
    either_side = transfer(MONTH, 5, BANK, ALICE), transfer(month_after(NEXT), 5, BANK, ALICE)
    await ledger.submit([group_of(each) for each in either_side])
    await submit(ledger, group_of(transfer(NEXT, 5, BANK, ALICE)))
    await pretend_proven(db)

    for month in (MONTH, NEXT):
        await seal_month(db, month, actor="tests", prove=sound)
        await archive_month(db, month, tmp_path, actor="tests")

    batches = [(each.first_batch, each.last_batch) for each in await archived_books(db, 1)]
    assert batches == [(1, 1), (2, 2)]
    assert (await verify(db, books=[1])).is_sound


async def test_the_files_explain_themselves(sealed: Db, tmp_path: Path) -> None:
    await archive_month(sealed, MONTH, tmp_path, actor="tests")

    folder = tmp_path / f"{MONTH:%Y-%m}"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["month"] == MONTH.isoformat()
    assert {file["name"]: file["rows"] for file in manifest["files"]} == {
        "transfers.csv.gz": 2,
        "requests.csv.gz": 1,
        "batches.csv.gz": manifest["books"][0]["last_batch"],
        "accounts.csv.gz": 3,
        "codes.csv.gz": 1,
    }
    head, *lines = gzip.decompress((folder / "transfers.csv.gz").read_bytes()).decode().splitlines()
    assert head.split(",")[:4] == ["book", "id", "seq", "debit_account"]
    assert len(lines) == 2


async def test_a_month_comes_back_as_it_was(sealed: Db, tmp_path: Path) -> None:
    before = await rows_of(sealed, "ledger_transfer"), await rows_of(sealed, "ledger_request")
    await archive_month(sealed, MONTH, tmp_path, actor="tests")

    back = await bring_back_month(sealed, MONTH, actor="tests")

    after = await rows_of(sealed, "ledger_transfer"), await rows_of(sealed, "ledger_request")
    assert after == before
    assert back.state == "sealed"
    assert await archived_books(sealed, 1) == []
    assert await archived_totals(sealed, 1) == []
    again = await archive_month(sealed, MONTH, tmp_path / "again", actor="tests")
    assert again.state == "archived"


@pytest.mark.parametrize("name", ["transfers.csv.gz", "manifest.json", "codes.csv.gz"])
async def test_a_changed_file_does_not_come_back(sealed: Db, tmp_path: Path, name: str) -> None:
    await archive_month(sealed, MONTH, tmp_path, actor="tests")
    file = tmp_path / f"{MONTH:%Y-%m}" / name
    honest = file.read_bytes()
    file.write_bytes(honest[:-2] + bytes([honest[-2] ^ 1]) + honest[-1:])

    with pytest.raises(ArchiveFileDiffers):
        await bring_back_month(sealed, MONTH, actor="tests")

    assert [month.state for month in await list_months(sealed)] == ["archived"]
    file.write_bytes(honest)
    assert (await bring_back_month(sealed, MONTH, actor="tests")).state == "sealed"


async def test_a_death_before_the_end_leaves_the_month_where_it_was(
    sealed: Db, tmp_path: Path
) -> None:
    before = await rows_of(sealed, "ledger_transfer")
    arm("ledger.before_month_dropped:raise")
    with pytest.raises(SimulatedCrash):
        await archive_month(sealed, MONTH, tmp_path, actor="tests")
    arm(None)

    assert await rows_of(sealed, "ledger_transfer") == before
    assert [month.state for month in await list_months(sealed)] == ["sealed"]
    assert (await archive_month(sealed, MONTH, tmp_path, actor="tests")).state == "archived"


async def test_only_a_sealed_month_leaves_and_only_an_archived_one_comes_back(
    sealed: Db, tmp_path: Path
) -> None:
    with pytest.raises(MonthNotSealed):
        await archive_month(sealed, NEXT, tmp_path, actor="tests")
    with pytest.raises(MonthInDefault):
        await archive_month(sealed, MONTH.replace(year=MONTH.year - 1), tmp_path, actor="tests")
    with pytest.raises(MonthNotArchived):
        await bring_back_month(sealed, MONTH, actor="tests")


async def test_what_is_left_proves_from_where_the_archive_ends(
    sealed: Db, ledger, tmp_path: Path
) -> None:
    """A hold from before, chains that begin in the archive, a second month that leaves later."""
    await archive_month(sealed, MONTH, tmp_path, actor="tests")
    hold = transfer(NEXT, 15, ALICE, BOB, TransferKind.PENDING)
    assert await submit(
        ledger,
        group_of(hold),
        group_of(transfer(NEXT, 40, BANK, ALICE)),
        group_of(transfer(NEXT, 9_999, ALICE, BOB)),
        group_of(transfer(NEXT, 15, None, None, TransferKind.POST, pending_id=hold.id)),
        *[group_of(transfer(NEXT, 1, BANK, ALICE)) for _ in range(130)],
    ) == ["created", "created", "refused", "created", *["created"] * 130]
    await caught_up(sealed, 1)

    first = await verify(sealed, books=[1])
    await pretend_proven(sealed)
    await seal_month(sealed, NEXT, actor="tests", prove=sound)
    await archive_month(sealed, NEXT, tmp_path, actor="tests")
    second = await verify(sealed, books=[1])
    assert await submit(ledger, group_of(transfer(month_after(NEXT), 7, ALICE, BOB))) == ["created"]
    await caught_up(sealed, 1)
    third = await verify(sealed, books=[1])
    await bring_back_month(sealed, NEXT, actor="tests")
    await bring_back_month(sealed, MONTH, actor="tests")
    whole = await verify(sealed, books=[1])

    for report in (first, second, third, whole):
        assert report.is_sound, report.broken


async def test_a_change_after_the_archive_is_still_found(
    sealed: Db, ledger, tmp_path: Path
) -> None:
    await archive_month(sealed, MONTH, tmp_path, actor="tests")
    await submit(ledger, group_of(transfer(NEXT, 40, BANK, ALICE)))
    await caught_up(sealed, 1)
    await sealed.pool.execute("grant update on ledger_transfer to current_user")
    await sealed.pool.execute(
        "update ledger_transfer set amount = amount + 1 where seq = (select last_seq"
        " from ledger_book where book = 1)"
    )
    changed = await verify(sealed, books=[1])
    await sealed.pool.execute(
        "update ledger_transfer set amount = amount - 1 where seq = (select last_seq"
        " from ledger_book where book = 1)"
    )
    await sealed.pool.execute("grant update on ledger_month_account to current_user")
    await sealed.pool.execute("update ledger_month_account set debits_posted = debits_posted + 1")
    summed_wrong = await verify(sealed, books=[1])

    assert {"digests", "counters"} <= {check.name for check in changed.broken}
    assert "counters" in {check.name for check in summed_wrong.broken}
