"""How long raw evidence is kept: read, and as dated rows that two people add."""

from __future__ import annotations

from typing import Final

from tongbao.controls.approvals.model import Act
from tongbao.controls.dated_rows.rows import DatedRows
from tongbao.controls.retention import _store as store
from tongbao.controls.retention.model import (
    DAYS_MIN,
    RetentionTerm,
    RetentionTermThere,
    RetentionTermWrong,
)
from tongbao.infra.db import Db, Tx

SET: Final = Act(
    "retention.set_term",
    "Change how long evidence is kept",
    "变更证据保存期限",
    RetentionTerm,
    maker="deployment_act",
    checker="deployment_act",
)
TERMS: Final = DatedRows(
    act=SET,
    about=("kind",),
    known=(("kind",),),
    sets={"days": ("days kept", "保存天数")},
    bounds={"days": (DAYS_MIN, 36_600)},
    because="because",
    rows=store.TERMS,
    insert=store.INSERT_TERM,
    done="retention.term_set",
    wrong=RetentionTermWrong,
    there=RetentionTermThere,
)


async def every_term(on: Db | Tx) -> list[RetentionTerm]:
    """Return all terms, past and future ones too."""
    return await store.TERMS.all(on)
