"""The one form of the statement that erases what a channel was asked and has answered."""

from __future__ import annotations

from typing import LiteralString


def erasing(table: LiteralString) -> LiteralString:
    """Return the statement that `Raw.erase` is, for a table of exchanges.

    The digests stand where the texts were, and what begins so is our own: a request is never.
    """
    return f"""
    with old as materialized (
        select book, id from {table}
         where book = $1 and id > $2 and id < $3 and request not like 'erased % sha256=%'
         order by id limit $4 for update)
    update {table} e
       set request = 'erased ' || $5 || ' sha256='
               || encode(sha256(convert_to(e.request, 'UTF8')), 'hex'),
           reply = 'erased ' || $5 || ' sha256='
               || encode(sha256(convert_to(e.reply, 'UTF8')), 'hex')
      from old
     where e.book = $1 and e.id = old.id
    returning e.id"""
