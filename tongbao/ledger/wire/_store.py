"""The SQL of finding who keeps a book."""

from __future__ import annotations

from tongbao.infra.db import Query

# PostgreSQL ends no transaction whose process is stopped while it sends a commit's rows: no limit
# on time reaches a COPY that waits for them. So whoever takes its book over ends it, by what only
# such a one does: it has changed a head row, and has waited for its process ever since.
END_STOPPED = Query(
    bool,
    """
    select pg_terminate_backend(a.pid)
      from pg_stat_activity a
      join pg_locks l on l.pid = a.pid and l.database = a.datid
     where l.relation = 'ledger_book'::regclass and l.mode = 'RowExclusiveLock' and l.granted
       and a.wait_event = 'ClientRead' and a.query_start < $1 and a.usename = current_user""",
)
