"""The SQL of step-up by risk; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.step_up_risk.model import StepUpDecision, StepUpSignal

_DECISION: Final = "owner_id, act_digest, level, kind, device_id, reasons, times, first_at, last_at"

SIGNALS: Final = Query(
    StepUpSignal,
    """
    select signal, kind, currency, at_least, within_h, level, valid_from, because
      from step_up_signal where kind = $1 and currency = $2""",
)
KEEP: Final = Statement(f"""
    insert into step_up_decision as d ({_DECISION}) values ($1, $2, $3, $4, $5, $6, 1, $7, $7)
        on conflict (owner_id, act_digest, level) do update
       set times = d.times + 1, device_id = excluded.device_id, reasons = excluded.reasons,
           last_at = excluded.last_at""")
OF_OWNER: Final = Query(
    StepUpDecision,
    f"""
    select {_DECISION} from step_up_decision where owner_id = $1 order by last_at desc limit $2""",
)
FORGET: Final = Statement("delete from step_up_decision where owner_id = $1")
PRUNE: Final = Statement("""
    delete from step_up_decision
     where (owner_id, act_digest, level) in
           (select owner_id, act_digest, level from step_up_decision
             where last_at < $1 order by last_at limit $2)""")
_SIGNAL: Final = "signal, kind, currency, at_least, within_h, level, valid_from, because"
EVERY_SIGNAL: Final = Query(
    StepUpSignal,
    f"""
    select {_SIGNAL} from step_up_signal
     order by signal, kind, currency, at_least, valid_from""",
)
ADD_SIGNAL: Final = Statement(f"""
    insert into step_up_signal ({_SIGNAL}) values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict do nothing""")
