"""Meters over all accounts of a person: what two programs counted side by side is added up once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from uuid import UUID

from tongbao.infra import migrate
from tongbao.infra.db import Db
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence

MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)
LAST_YEAR = date(2025, 12, 31)
BEGINS, ENDS = "0091_pre_limits_over_all_accounts.sql", "0110_post_limits_over_all_accounts.sql"


async def _until(db: Db, name: str, *, with_it: bool) -> None:
    known = [each for each in migrate.packaged() if each.name < name or with_it]
    known = [each for each in known if each.name <= name]
    await migrate.migrate(db, Licence.BANK, "tests", migrations=known)


async def _counted(db: Db, owner: UUID, kind: str, meter: str, day: date, used: int) -> None:
    """Count as either program does on the row of a kind: days and years go on."""
    await db.fetch(
        """
        insert into limit_meter (book, owner_id, kind, meter, currency, day, day_used, year,
                                 year_used, used)
        values (1, $1, $2, $3, 'CNY', $4, $5, $6, $5, $5)
            on conflict (book, owner_id, kind, meter, currency) do update
           set day_used = case when limit_meter.day >= $4 then limit_meter.day_used else 0 end + $5,
               year_used = case when limit_meter.year >= $6 then limit_meter.year_used
                                else 0 end + $5,
               day = greatest(limit_meter.day, $4), year = greatest(limit_meter.year, $6),
               used = limit_meter.used + $5""",
        (owner, kind, meter, day, used, day.year),
    )


async def _row(db: Db, owner: UUID, kind: str, meter: str) -> tuple[object, ...] | None:
    rows = await db.fetch(
        """
        select day, day_used, year, year_used, used from limit_meter
         where owner_id = $1 and kind = $2 and meter = $3""",
        (owner, kind, meter),
    )
    return tuple(rows[0]) if rows else None


async def test_what_both_programs_counted_is_added_up_once(
    make_db: Callable[..., Awaitable[Db]],
) -> None:
    db = await make_db(migrated=False)
    await _until(db, BEGINS, with_it=False)
    both, one_only, late = new_id(), new_id(), new_id()
    second, third, family = "payment_account_2", "payment_account_3", "payment_account"
    await _counted(db, both, second, "weak_two", MONDAY, 300)
    await _counted(db, both, third, "weak_two", MONDAY, 50)
    await _counted(db, both, second, "out_others", LAST_YEAR, 7_000)
    await _counted(db, both, third, "out_others", MONDAY, 400)
    await _counted(db, both, second, "balance", MONDAY, 9)
    await _counted(db, one_only, "bank_account_3", "code_static", MONDAY, 20)
    await _counted(db, one_only, "bank_account_3", "weak_one", MONDAY, 5)

    await _until(db, BEGINS, with_it=True)
    assert await _row(db, both, family, "weak_two") == (MONDAY, 350, 2026, 350, 350)
    assert await _row(db, both, family, "out_others") == (MONDAY, 400, 2026, 400, 7_400)
    assert await _row(db, one_only, "bank_account", "code_static") == (MONDAY, 20, 2026, 20, 20)
    # The old program counts on by class, and opens somebody's first account; the new one counts.
    await _counted(db, both, third, "weak_two", MONDAY, 1)
    await _counted(db, both, family, "weak_two", MONDAY, 2)
    await _counted(db, both, second, "out_others", TUESDAY, 10)
    await _counted(db, both, family, "out_others", MONDAY, 100)
    await _counted(db, late, second, "out_all", TUESDAY, 8)
    await _counted(db, late, second, "weak_one", TUESDAY, 8)
    await _until(db, ENDS, with_it=True)

    assert await _row(db, both, family, "weak_two") == (MONDAY, 353, 2026, 353, 353)
    assert await _row(db, both, family, "out_others") == (TUESDAY, 10, 2026, 510, 7_510)
    assert await _row(db, late, family, "weak_one") == (TUESDAY, 8, 2026, 8, 8)
    assert await _row(db, late, family, "code_static") == (TUESDAY, 0, 2026, 0, 0)
    assert await _row(db, one_only, "bank_account", "code_static") == (MONDAY, 20, 2026, 20, 20)
    # Of the classes stays what is theirs alone, and nothing of what was carried.
    assert await _row(db, both, second, "balance") == (MONDAY, 9, 2026, 9, 9)
    assert await _row(db, one_only, "bank_account_3", "weak_one") == (MONDAY, 5, 2026, 5, 5)
    assert await _row(db, both, third, "weak_two") is None
    rest = await db.fetch("select count(*) as n from limit_meter where kind like '%.carried'", ())
    assert rest[0]["n"] == 0
