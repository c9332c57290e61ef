"""The SQL of dated rules; nothing outside this package reads or writes their table."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.recon_rules.model import DatedRule
from tongbao.infra.db import Query, Statement

_RULE: Final = "name, valid_from, set_at, rule, written, approved_as"

ADD_RULE = Statement(f"insert into match_rule ({_RULE}) values ($1, $2, $3, $4, $5, $6)")
ADD_BUILT_IN = Statement(
    f"""insert into match_rule ({_RULE}) values ($1, $2, $3, $4, $5, '')
        on conflict do nothing"""
)
RULE_ON = Query(
    DatedRule,
    f"""select {_RULE} from match_rule where name = $1 and valid_from <= $2
         order by valid_from desc, set_at desc limit 1""",
)
RULES_ON = Query(
    DatedRule,
    f"""select distinct on (name) {_RULE} from match_rule where valid_from <= $1
         order by name, valid_from desc, set_at desc""",
)
VERSIONS = Query(
    DatedRule,
    f"""select {_RULE} from match_rule where name = $1
         order by valid_from desc, set_at desc limit 100""",
)
