"""Run the rules: each for yesterday every morning, again when a file comes in, or when asked to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from tongbao.clearing.context import Clearing
from tongbao.clearing.matching.runs import SideIncomplete, run_rule
from tongbao.clearing.matching.sides import SOURCE
from tongbao.clearing.recon_rules.model import RuleUnknown
from tongbao.clearing.recon_rules.rules import rule_on, rules_on
from tongbao.clearing.reserve.papers import record_closings
from tongbao.clearing.slices.taking import PIECES_POLICY, TakePieces, run_take_pieces
from tongbao.clearing.sources.ingest import take_file
from tongbao.clearing.sources.model import Completed, SourceFile, SourceUnknown
from tongbao.infra.db import Tx
from tongbao.infra.tasks import Again, Handler, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import BUSINESS_ZONE, business_date, day_bounds

MATCH_AT: Final = time(11, 0)
"""When yesterday is matched by every rule: bills are compared from 10:30 on. Our own rule."""
WAITS_FOR_FILES: Final = timedelta(days=4)
"""How long after its day a rule waits for a side that is not there; later files start it anew."""
_LOOK_AGAIN: Final = timedelta(minutes=30)
MATCH_POLICY: Final = RetryPolicy(
    attempts_max=15,
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 15, 60)),
    time_limit=timedelta(hours=1),
    concurrency_max=1,
)
MATCH_DAILY_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # nobody else asks for the next day
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 10)),
)
_log: Final = structlog.get_logger()


class MatchDay(Task, frozen=True, tag="matching.match_day"):
    """Match a day by a rule, as it counts on that day."""

    rule: str
    day: date


class MatchDaily(Task, frozen=True, tag="matching.match_daily"):
    """Ask for yesterday by every rule, and come again tomorrow."""


POLICIES: Final[Mapping[type[Task], RetryPolicy]] = {
    TakePieces: PIECES_POLICY,
    MatchDaily: MATCH_DAILY_POLICY,
    MatchDay: MATCH_POLICY,
}


def work_of(context: Clearing) -> dict[type[Task], Handler]:
    """Return who does the tasks of statements: pieces of bills that arrive, and rules."""
    return {
        TakePieces: partial(run_take_pieces, context),
        MatchDaily: partial(run_match_daily, context),
        MatchDay: partial(run_match_day, context),
    }


async def ask_to_match(tx: Tx, rule: str, day: date) -> None:
    """Have the worker match a day by a rule; asking twice is asking once.

    Raises:
        RuleUnknown
    """
    await rule_on(tx, rule, day)
    await enqueue(tx, MatchDay(rule, day), key=f"{rule}/{day}")


async def run_match_day(context: Clearing, task: MatchDay, _lease: Lease) -> Again | None:
    """Match a day, or come again while a side of it may still arrive."""
    try:
        rule = await rule_on(context.db, task.rule, task.day)
        await run_rule(context.db, rule, task.day, actor="matching")
    except SideIncomplete:
        _, end = day_bounds(task.day)
        if context.db.clock.now() < end + WAITS_FOR_FILES:
            return Again(_LOOK_AGAIN)
        _log.warning("match_day_given_up", rule=task.rule, day=task.day)
    except (RuleUnknown, SourceUnknown) as refusal:
        _log.warning("match_day_refused", rule=task.rule, day=task.day, code=refusal.code)
    return None


async def run_match_daily(context: Clearing, _task: MatchDaily, _lease: Lease) -> Again:
    """Ask for yesterday by every rule that counts on it."""
    now = context.db.clock.now()
    yesterday = business_date(now) - timedelta(days=1)
    async with context.db.begin("matching") as tx:
        for rule in await rules_on(tx, yesterday):
            await enqueue(tx, MatchDay(rule.name, yesterday), key=f"{rule.name}/{yesterday}")
    return Again(next_match(now) - now)


def next_match(now: datetime) -> datetime:
    """Return when the daily round comes next."""
    moment = datetime.combine(business_date(now), MATCH_AT, BUSINESS_ZONE)
    return moment if moment > now else moment + timedelta(days=1)


async def bring_in(
    context: Clearing, source: str, day: date, path: Path, *, actor: str
) -> SourceFile:
    """Take a source's file in, and what follows from it: reserve's papers, and rules run again.

    Raises:
        SourceUnknown, FileSeenBefore, FileRefused, FileMoved
    """
    follow = partial(_follow, context)
    file = await take_file(context.db, source, day, path, actor=actor, on_complete=follow)
    context.flow.nudge()
    return file


async def _follow(context: Clearing, tx: Tx, completed: Completed) -> None:
    if context.flow.licence.may_hold_funds:
        # A custody account's statement is the reserve's paper too.
        await record_closings(context.keyring, tx, completed)
    day = completed.file.day
    for rule in await rules_on(tx, day):
        is_over = day < business_date(tx.now)
        if is_over and f"{SOURCE}{completed.source.name}" in {name for _, name in rule.sides}:
            await enqueue(tx, MatchDay(rule.name, day), key=f"{rule.name}/{day}")
