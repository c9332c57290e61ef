"""The SQL by which tasks are enqueued, claimed, fenced and ended, for `tasks` and `worker`."""

from __future__ import annotations

from datetime import datetime
from struct import Struct as Packing
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.copy_rows import Append, json, moment, text
from tongbao.infra.db import Query, Statement


class TaskRow(Struct, frozen=True):
    """A claimed task: what the worker needs to run it. ``attempt`` is its fencing token."""

    id: UUID
    type: str
    args: dict[str, Any]
    key: str | None
    run_at: datetime
    attempt: int
    failures: int


class Backlog(Struct, frozen=True):
    """How many tasks of a type are due, and since when the oldest waits."""

    type: str
    due: int
    oldest_at: datetime


class Count(Struct, frozen=True):
    """How many there are of a type."""

    type: str
    count: int


# The arguments are given as text: a set of them is then an array of texts, which the driver knows.
INSERT: Final = Statement(
    "insert into task (id, type, args, key, run_at) values ($1, $2, $3::text::jsonb, $4, $5)"
    " on conflict (type, key) where key is not null do nothing",
    many="""
    insert into task (id, type, args, key, run_at)
    select * from unnest($1::uuid[], $2::text[], $3::text[]::jsonb[], $4::text[],
                         $5::timestamptz[])
    on conflict (type, key) where key is not null do nothing""",
)
# For who begins a task once its commit is durable; where that process dies the lease runs out.
INSERT_LEASED: Final = Statement(
    """
    insert into task (id, type, args, key, run_at, attempt, lease_until)
    values ($1, $2, $3::text::jsonb, $4, $5, 1, $6)
    on conflict (type, key) where key is not null do nothing""",
    many="""
    insert into task (id, type, args, key, run_at, attempt, lease_until)
    select t.id, t.type, t.args::jsonb, t.key, t.run_at, 1, t.lease_until
      from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[],
                  $6::timestamptz[])
        as t (id, type, args, key, run_at, lease_until)
    on conflict (type, key) where key is not null do nothing""",
)
# For tasks of things that are made by the same commit, whose keys nobody can have.
APPEND: Final = Append("task", ("id", "run_at", "type", "args", "key"))
_FIXED: Final = Packing("!hi16siq")


def row(task_id: UUID, kind: str, args: str, key: str, run_at: datetime) -> bytes:
    """Return the row of `APPEND`."""
    fixed = _FIXED.pack(5, 16, task_id.bytes, 8, moment(run_at))
    return b"".join([fixed, text(kind), json(args), text(key)])


# One that runs already is left to find out by itself.
CANCEL: Final = Statement(
    "delete from task where type = $1 and key = $2 and lease_until is null",
    many="""
    delete from task t using unnest($1::text[], $2::text[]) as c (type, key)
     where t.type = c.type and t.key = c.key and t.lease_until is null""",
)

# An expired lease means that the last attempt ended without a word: that counts as a failure, so
# that a task which kills its worker cannot do so for ever. A type with places of its own is looked
# for by itself, so that it takes no more of them, and before the others, which take what is left.
CLAIM: Final = Query(
    TaskRow,
    """
    with own as (
        select found.id
          from unnest($6::text[], $7::int[]) as limited (type, places)
         cross join lateral (
               select id from task
                where type = limited.type and run_at <= $2
                  and (lease_until is null or lease_until <= $3)
                order by run_at, id
                limit limited.places
                  for update skip locked) found),
    shared as (
        select id from task
         where type = any($1::text[]) and run_at <= $2
           and (lease_until is null or lease_until <= $3)
         order by run_at, id
         limit $4
           for update skip locked)
    update task t
       set attempt = t.attempt + 1,
           failures = t.failures + case when t.lease_until is null then 0 else 1 end,
           lease_until = $5
      from (select id from own union all select id from shared limit $4) as due
     where t.id = due.id
    returning t.id, t.type, t.args, t.key, t.run_at, t.attempt, t.failures""",
)

# Rows locked by a handler's own transaction are skipped, or its slowness would stall the others.
EXTEND: Final = Statement(
    """
    with mine as (
        select t.id from task t
          join unnest($1::uuid[], $2::int[]) as l (id, attempt)
            on t.id = l.id and t.attempt = l.attempt
         where t.lease_until > $3
         order by t.id
           for update of t skip locked)
    update task t set lease_until = $4 from mine where t.id = mine.id"""
)
ALIVE: Final = Query(
    UUID,
    """
    select t.id from task t
      join unnest($1::uuid[], $2::int[]) as l (id, attempt)
        on t.id = l.id and t.attempt = l.attempt
     where t.lease_until > $3""",
)

TOUCH_LEASE: Final = Statement(
    "update task set lease_until = lease_until where id = $1 and attempt = $2 and lease_until > $3",
    many="""
    update task t set lease_until = t.lease_until
      from unnest($1::uuid[], $2::int[], $3::timestamptz[]) as l (id, attempt, at)
     where t.id = l.id and t.attempt = l.attempt and t.lease_until > l.at""",
)
HOLD: Final = Query(
    UUID, "select id from task where id = $1 and attempt = $2 and lease_until > $3 for update"
)
FINISH: Final = Statement(
    "delete from task where id = $1 and attempt = $2 and lease_until > $3",
    many="""
    delete from task t
     using unnest($1::uuid[], $2::int[], $3::timestamptz[]) as f (id, attempt, at)
     where t.id = f.id and t.attempt = f.attempt and t.lease_until > f.at""",
)

# Completions are fenced by the attempt alone: the work is over, and if nobody has begun it again
# there is nobody to protect.
DELETE_DONE: Final = Statement(
    """
    delete from task t
     using unnest($1::uuid[], $2::int[]) as d (id, attempt)
     where t.id = d.id and t.attempt = d.attempt"""
)
RESCHEDULE: Final = Statement(
    """
    update task t
       set run_at = r.run_at, failures = r.failures, last_failure = r.reason, lease_until = null
      from unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::int[], $5::text[])
           as r (id, attempt, run_at, failures, reason)
     where t.id = r.id and t.attempt = r.attempt"""
)
GIVE_BACK: Final = Statement(
    """
    update task t set lease_until = null
      from unnest($1::uuid[], $2::int[]) as g (id, attempt)
     where t.id = g.id and t.attempt = g.attempt"""
)
BURY: Final = Statement(
    """
    with dead as (
        delete from task t
         using unnest($1::uuid[], $2::int[], $3::text[]) as d (id, attempt, reason)
         where t.id = d.id and t.attempt = d.attempt
        returning t.id, t.type, t.args, t.key, t.attempt, d.reason)
    insert into dead_letter (id, type, args, key, attempts, reason, died_at)
    select id, type, args, key, attempt, reason, $4 from dead"""
)

BACKLOG: Final = Query(
    Backlog,
    """
    select type, count(*) as due, min(run_at) as oldest_at from task
     where run_at <= $1 and (lease_until is null or lease_until <= $2)
     group by type""",
)
UNFINISHED: Final = Query(int, "select count(*) as unfinished from task where run_at <= $1")
DEAD_COUNTS: Final = Query(Count, "select type, count(*) from dead_letter group by type")
