"""The SQL of slices; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.slices.model import ReconSlice, SlicePiece
from tongbao.infra.db import Query, Statement

_SLICE: Final = """account_id, day, place, our_count, our_amount, our_fees, our_digest, is_booked,
    our_at, their_count, their_amount, their_digest"""
_PIECE: Final = "account_id, day, place, sha256, line_count, has_total, taken_at"

SLICES_OF_DAY = Query(
    ReconSlice,
    f"select {_SLICE} from recon_slice where account_id = $1 and day = $2 order by place",
)
PIECES = Query(
    SlicePiece,
    f"select {_PIECE} from slice_piece where account_id = $1 and day = $2 order by place",
)
ADD_PIECE = Statement(
    f"insert into slice_piece ({_PIECE}) values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing"
)
# What more pieces say is added: a slice's rows may come in several. Sums are kept modulo 2^62.
ADD_THEIRS = Statement(
    f"""insert into recon_slice as s ({_SLICE})
        select $1, $2, t.place, 0, 0, 0, 0, false, null, t.count, t.amount, t.digest
          from unnest($3::int[], $4::int[], $5::bigint[], $6::bigint[])
               as t (place, count, amount, digest)
        on conflict (account_id, day, place) do update
           set their_count = s.their_count + excluded.their_count,
               their_amount = s.their_amount + excluded.their_amount,
               their_digest = (s.their_digest + excluded.their_digest) % 4611686018427387904"""
)
SET_OURS = Statement(
    f"""insert into recon_slice as s ({_SLICE})
        select $1, $2, o.place, o.count, o.amount, o.fees, o.digest, o.is_booked, $9, 0, 0, 0
          from unnest($3::int[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bool[])
               as o (place, count, amount, fees, digest, is_booked)
        on conflict (account_id, day, place) do update
           set our_count = excluded.our_count, our_amount = excluded.our_amount,
               our_fees = excluded.our_fees, our_digest = excluded.our_digest,
               is_booked = excluded.is_booked, our_at = excluded.our_at"""
)
