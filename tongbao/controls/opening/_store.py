"""The SQL of opening rules; nothing outside this package reads this table."""

from __future__ import annotations

from typing import Final

from tongbao.controls.opening.model import OpeningRule
from tongbao.infra.db import Query, Statement

RULES: Final = Query(
    OpeningRule,
    """
    select kind, name, valid_from, figure, instrument from opening_rule
     order by kind, name, valid_from""",
)
INSERT_RULE: Final = Statement("""
    insert into opening_rule (kind, name, valid_from, figure, instrument)
    values ($1, $2, $3, $4, $5)
        on conflict do nothing""")
