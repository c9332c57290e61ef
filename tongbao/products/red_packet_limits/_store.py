"""The SQL that adds to and shows the dated limits of red packets."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query
from tongbao.products.red_packets.model import RedPacketLimit

_LIMIT: Final = "currency, valid_from, each_max, total_max, parts_max, source"

ADD: Final = Query(
    RedPacketLimit,
    f"""
    insert into red_packet_limit ({_LIMIT}) values ($1, $2, $3, $4, $5, $6)
        on conflict (currency, valid_from) do nothing
    returning {_LIMIT}""",
)
LIMIT_ON: Final = Query(
    RedPacketLimit,
    f"""
    select {_LIMIT} from red_packet_limit
     where currency = $1 and valid_from <= $2
     order by valid_from desc limit 1""",
)
EXISTS: Final = Query(
    bool,
    "select exists (select from red_packet_limit where currency = $1 and valid_from = $2) as found",
)
