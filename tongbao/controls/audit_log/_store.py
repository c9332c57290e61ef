"""The SQL of the audit log's tree. Entries are written by `infra.audit` and only read here."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.controls.audit_log.model import AuditCheckpoint, AuditTree, Leaf, Node, WrittenEntry
from tongbao.infra.db import Query, Statement

_ENTRY: Final = "e.id, e.at, e.real_at, e.actor, e.origin, e.action, e.subject, e.facts"
_POINT: Final = "number, size, root, frontier, at, note"

OPEN_TREE: Final = Statement("""
    insert into audit_tree (name, size, frontier) values ('audit', 0, '')
        on conflict do nothing""")
LOCK_TREE: Final = Query(
    AuditTree, "select size, frontier from audit_tree where name = 'audit' for update"
)
TREE: Final = Query(AuditTree, "select size, frontier from audit_tree where name = 'audit'")
GROW: Final = Statement("""
    update audit_tree set size = $1, frontier = $2 where name = 'audit'""")
NEWEST_LEAF: Final = Query(UUID, "select entry_id from audit_leaf order by number desc limit 1")
# From an id on: who is later than that by hours is found by the daily look at everything.
UNPLACED: Final = Query(
    WrittenEntry,
    f"""
    select {_ENTRY} from audit_entry e
     where e.id > $1 and not exists (select from audit_leaf l where l.entry_id = e.id)
     order by e.id limit $2""",
)
ADD_LEAVES: Final = Statement("""
    insert into audit_leaf (number, entry_id, hash)
    select number, entry_id, hash
      from unnest($1::bigint[], $2::uuid[], $3::bytea[]) as l (number, entry_id, hash)""")
ADD_NODES: Final = Statement("""
    insert into audit_node (level, number, hash)
    select level, number, hash
      from unnest($1::int[], $2::bigint[], $3::bytea[]) as n (level, number, hash)""")
LEAF_OF: Final = Query(Leaf, "select number, entry_id, hash from audit_leaf where entry_id = $1")
LEAVES: Final = Query(
    Leaf,
    """
    select number, entry_id, hash from audit_leaf where number > $1 order by number limit $2""",
)
NODES: Final = Query(
    Node,
    """
    select n.level, n.number, n.hash
      from unnest($1::int[], $2::bigint[]) as asked (level, number)
      join audit_node n on n.level = asked.level and n.number = asked.number
     union all
    select asked.level, asked.number, l.hash
      from unnest($1::int[], $2::bigint[]) as asked (level, number)
      join audit_leaf l on asked.level = 0 and l.number = asked.number + 1""",
)
ENTRIES: Final = Query(
    WrittenEntry,
    f"select {_ENTRY} from audit_entry e where e.id = any($1::uuid[])",
)
WAITING: Final = Query(
    UUID,
    """
    select e.id from audit_entry e left join audit_leaf l on l.entry_id = e.id
     where l.entry_id is null and e.real_at < $1 order by e.id limit $2""",
)
LAST_POINT: Final = Query(
    AuditCheckpoint, f"select {_POINT} from audit_checkpoint order by number desc limit 1"
)
POINT: Final = Query(AuditCheckpoint, f"select {_POINT} from audit_checkpoint where number = $1")
POINTS: Final = Query(
    AuditCheckpoint,
    f"""
    select {_POINT} from audit_checkpoint where $1::bigint is null or number < $1
     order by number desc limit $2""",
)
ADD_POINT: Final = Statement("""
    insert into audit_checkpoint (number, size, root, frontier, at, note)
    values ($1, $2, $3, $4, $5, $6)""")
