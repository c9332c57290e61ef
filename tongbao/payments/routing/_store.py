"""The SQL of routing; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.payments.routing.health import Breaker, Recent
from tongbao.payments.routing.model import CardAttempt, RoutingDecision, RoutingRuleSet, ShadowTally


class Window(Struct, frozen=True):
    """The sums of one account, way of paying and class of cards over a window of buckets."""

    account_id: UUID
    pay_mode: str
    bin_class: str
    calls: int
    lost: int
    total_ms: int
    tried: int
    won: int


class QuotaUse(Struct, frozen=True):
    """What an account took on one business day in a currency."""

    account_id: UUID
    currency: str
    amount: int
    payments: int


_RULE_SET: Final = """id, mode, number, name, source, state, is_shadow, maker, made_at, checker,
    decided_at, valid_from"""
_DECISION: Final = """book, attempt_id, payment_id, merchant_id, mode, rule_set_id, rule, manner,
    account_id, channel, bin_class, candidates, excluded, shadow_id, day, currency, amount,
    is_counted, at, bin, card, issuer"""
_BREAKER: Final = """account_id, gate, since, trips, probes_left, probe_calls, probe_lost, why,
    version"""

# Rule sets

LAST_NUMBER = Query(
    int, "select coalesce(max(number), 0) as number from routing_rule_set where mode = $1"
)
INSERT_DRAFT = Query(
    RoutingRuleSet,
    f"""insert into routing_rule_set ({_RULE_SET})
        values ($1, $2, $3, $4, $5, 'draft', false, $6, $7, null, null, null)
        on conflict (mode, number) do nothing
        returning {_RULE_SET}""",
)
GET_RULE_SET = Query(RoutingRuleSet, f"select {_RULE_SET} from routing_rule_set where id = $1")
LOCK_RULE_SET = Query(
    RoutingRuleSet, f"select {_RULE_SET} from routing_rule_set where id = $1 for update"
)
LIST_RULE_SETS = Query(
    RoutingRuleSet, f"select {_RULE_SET} from routing_rule_set order by mode, number desc limit $1"
)
# The versions that matter at a moment: the one in force, those to come, and drafts in the shadow.
IN_USE = Query(
    RoutingRuleSet,
    f"""select {_RULE_SET} from routing_rule_set each
         where is_shadow or (state = 'active' and not exists (
               select 1 from routing_rule_set later
                where later.mode = each.mode and later.state = 'active'
                  and later.valid_from <= $1 and later.valid_from > each.valid_from))""",
)
ACTIVATE = Query(
    RoutingRuleSet,
    f"""update routing_rule_set
           set state = 'active', is_shadow = false, checker = $2, decided_at = $3, valid_from = $4
         where id = $1 and state = 'draft' and maker <> $2
        returning {_RULE_SET}""",
)
WITHDRAW = Query(
    RoutingRuleSet,
    f"""update routing_rule_set
           set state = 'withdrawn', is_shadow = false, checker = $2, decided_at = $3
         where id = $1 and state = 'draft'
        returning {_RULE_SET}""",
)
LEAVE_SHADOW = Statement(
    "update routing_rule_set set is_shadow = false where mode = $1 and is_shadow"
)
ENTER_SHADOW = Query(
    RoutingRuleSet,
    f"""update routing_rule_set set is_shadow = true where id = $1 and state = 'draft'
        returning {_RULE_SET}""",
)

# Figures

ADD_BUCKET = Statement(
    """insert into routing_bucket as b (account_id, pay_mode, bin_class, bucket, calls, lost,
                                        total_ms, tried, won)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
           on conflict (account_id, pay_mode, bin_class, bucket) do update
          set calls = b.calls + excluded.calls, lost = b.lost + excluded.lost,
              total_ms = b.total_ms + excluded.total_ms, tried = b.tried + excluded.tried,
              won = b.won + excluded.won"""
)
WINDOWS = Query(
    Window,
    """select account_id, pay_mode, bin_class, sum(calls)::bigint as calls,
              sum(lost)::bigint as lost, sum(total_ms)::bigint as total_ms,
              sum(tried)::bigint as tried, sum(won)::bigint as won
         from routing_bucket where bucket >= $1
        group by account_id, pay_mode, bin_class""",
)
RECENT = Query(
    Recent,
    """select account_id, bucket, sum(calls)::bigint as calls, sum(lost)::bigint as lost
         from routing_bucket where bucket >= $1 group by account_id, bucket""",
)
PRUNE_BUCKETS = Statement("delete from routing_bucket where bucket < $1")

BREAKERS = Query(Breaker, f"select {_BREAKER} from routing_breaker")
# Compare and set: of two processes that judge at once, one turns the breaker.
TURN_BREAKER = Statement(
    f"""insert into routing_breaker as b ({_BREAKER})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            on conflict (account_id) do update
           set gate = excluded.gate, since = excluded.since, trips = excluded.trips,
               probes_left = excluded.probes_left, probe_calls = excluded.probe_calls,
               probe_lost = excluded.probe_lost, why = excluded.why, version = excluded.version
         where b.version = excluded.version - 1"""
)
HEAR_PROBES = Statement(
    """update routing_breaker
          set probe_calls = probe_calls + $2, probe_lost = probe_lost + $3
        where account_id = $1 and gate = 'probing'"""
)
TAKE_PROBE = Statement(
    """update routing_breaker set probes_left = probes_left - 1
        where account_id = $1 and gate = 'probing' and probes_left > 0"""
)

# Quotas: within the limits or not at all, however many count at once.

COUNT = Statement(
    """insert into routing_quota as q (account_id, day, currency, amount, payments)
       select $1::uuid, $2::date, $3::text, $4::bigint, 1
        where $4 <= coalesce($5::bigint, $4) and 1 <= coalesce($6::int, 1)
           on conflict (account_id, day, currency) do update
          set amount = q.amount + excluded.amount, payments = q.payments + 1
        where q.amount + excluded.amount <= coalesce($5, q.amount + excluded.amount)
          and q.payments + 1 <= coalesce($6, q.payments + 1)"""
)
FREE = Statement(
    """with freed as (
           update routing_decision set is_counted = false
            where book = $1 and attempt_id = $2 and is_counted
           returning account_id, day, currency, amount)
       update routing_quota q
          set amount = q.amount - freed.amount, payments = q.payments - 1
         from freed
        where q.account_id = freed.account_id and q.day = freed.day
          and q.currency = freed.currency"""
)
QUOTAS = Query(
    QuotaUse, "select account_id, currency, amount, payments from routing_quota where day = $1"
)

# Decisions

INSERT_DECISION = Statement(
    f"""insert into routing_decision ({_DECISION})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb, $13::text::jsonb,
                $14, $15, $16, $17, $18, $19, $20, $21, $22)"""
)
DECISIONS_OF_PAYMENT = Query(
    RoutingDecision,
    f"""select {_DECISION} from routing_decision
         where book = $1 and payment_id = $2 order by attempt_id""",
)
CARDS_OF = Query(
    CardAttempt,
    """select attempt_id, bin_class, bin, card, issuer from routing_decision
        where book = any($1::int[]) and attempt_id = any($2::uuid[])""",
)

# Shadows

COUNT_SHADOW = Statement(
    """insert into routing_shadow as s (rule_set_id, day, decided, differed, cost_less)
       values ($1, $2, $3, $4, $5)
           on conflict (rule_set_id, day) do update
          set decided = s.decided + excluded.decided, differed = s.differed + excluded.differed,
              cost_less = s.cost_less + excluded.cost_less"""
)
SHADOW_TALLIES = Query(
    ShadowTally,
    """select rule_set_id, sum(decided)::bigint as decided, sum(differed)::bigint as differed,
              sum(cost_less)::bigint as cost_less
         from routing_shadow group by rule_set_id""",
)
