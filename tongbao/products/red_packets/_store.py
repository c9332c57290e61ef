"""The SQL of red packets; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.products.red_packets.model import (
    RedPacket,
    RedPacketGrab,
    RedPacketLimit,
    RedPacketSplit,
)

_PACKET: Final = """book, id, merchant_id, mode, sender_id, kind, amount, currency, parts, greeting,
    state, grabbed, taken, returned, created_at, expires_at, ended_at"""
_GRAB: Final = "book, red_packet_id, wallet_id, id, part, amount, grabbed_at"


INSERT_PACKET: Final = Statement(
    f"""insert into red_packet ({_PACKET})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'open', 0, 0, 0, $11, $12, null)"""
)
INSERT_SPLIT: Final = Statement(
    "insert into red_packet_split (book, red_packet_id, amounts) values ($1, $2, $3)"
)
# Compare and set: $3 parts were gone when these were counted out. Two processes, or a grab and the
# end of the time, meet here, and one of them touches no row.
GRAB: Final = Statement(
    """with counted as (
        update red_packet
           set grabbed = grabbed + $4, taken = taken + $5,
               state = case when grabbed + $4 = parts then 'emptied' else 'open' end,
               ended_at = case when grabbed + $4 = parts then $6::timestamptz end
         where book = $1 and id = $2 and grabbed = $3 and state = 'open' and expires_at > $6
        returning book, id
    )
    insert into red_packet_grab (book, red_packet_id, wallet_id, id, part, amount, grabbed_at)
    select counted.book, counted.id, taker.wallet_id, taker.id, taker.part, taker.amount, $6
      from counted, unnest($7::uuid[], $8::uuid[], $9::int[], $10::bigint[])
        as taker (wallet_id, id, part, amount)"""
)
RETURN: Final = Statement(
    """update red_packet set state = 'returned', returned = amount - taken, ended_at = $4
        where book = $1 and id = $2 and grabbed = $3 and state = 'open' and expires_at <= $4"""
)
GET_PACKET: Final = Query(
    RedPacket, f"select {_PACKET} from red_packet where book = $1 and id = $2"
)
GET_SPLIT: Final = Query(
    RedPacketSplit,
    """select book, red_packet_id, amounts from red_packet_split
        where book = $1 and red_packet_id = $2""",
)
GRABS_OF: Final = Query(
    RedPacketGrab,
    f"""select {_GRAB} from red_packet_grab
         where book = $1 and red_packet_id = $2 and wallet_id = any($3::uuid[])""",
)
LIST_PACKETS: Final = Query(
    RedPacket,
    f"""select {_PACKET} from red_packet
         where book = $1 and merchant_id = $2 and mode = $3
           and ($4::uuid is null or sender_id = $4) and ($5::uuid is null or id < $5)
         order by id desc limit $6""",
)
LIST_GRABS: Final = Query(
    RedPacketGrab,
    f"""select {_GRAB} from red_packet_grab
         where book = $1 and red_packet_id = $2 and part > $3
         order by part limit $4""",
)
LIST_RECEIVED: Final = Query(
    RedPacketGrab,
    f"""select {_GRAB} from red_packet_grab
         where book = $1 and wallet_id = $2 and ($3::uuid is null or id < $3)
         order by id desc limit $4""",
)
LIMIT_ON: Final = Query(
    RedPacketLimit,
    """select currency, valid_from, each_max, total_max, parts_max, source from red_packet_limit
        where currency = $1 and valid_from <= $2 order by valid_from desc limit 1""",
)
ADD_LIMIT: Final = Query(
    RedPacketLimit,
    """insert into red_packet_limit
              (currency, valid_from, each_max, total_max, parts_max, source)
        values ($1, $2, $3, $4, $5, $6)
            on conflict (currency, valid_from) do nothing
        returning currency, valid_from, each_max, total_max, parts_max, source""",
)
LIMIT_BEGINS: Final = Query(
    bool,
    """select exists (select from red_packet_limit where currency = $1 and valid_from = $2)
           as found""",
)
