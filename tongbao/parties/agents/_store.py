"""The SQL of agents; nothing outside this package reads these tables."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.kernel.licence import Mode
from tongbao.parties.agents.model import Agent, AgentTerm


class Brought(Struct, frozen=True):
    """Who brought a merchant, from a moment on."""

    merchant_id: UUID
    mode: Mode
    version: int
    agent_id: UUID | None
    valid_from: datetime
    set_by: str


_AGENT: Final = (
    "id, merchant_id, mode, name, parent_id, depth, parent_depth, share_ppm, parent_share_ppm,"
    " state, version, created_at"
)
_BROUGHT: Final = "merchant_id, mode, version, agent_id, valid_from, set_by"

INSERT_AGENT: Final = Query(
    Agent,
    f"""
    insert into agent ({_AGENT})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', 1, $10)
        on conflict (merchant_id, mode) do nothing
    returning {_AGENT}""",
)
GET_AGENT: Final = Query(Agent, f"select {_AGENT} from agent where id = $1")
LOCK_AGENT: Final = Query(Agent, f"select {_AGENT} from agent where id = $1 for update")
AGENT_OF_MERCHANT: Final = Query(
    Agent, f"select {_AGENT} from agent where merchant_id = $1 and mode = $2"
)
CHILDREN: Final = Query(
    Agent, f"select {_AGENT} from agent where parent_id = $1 order by id for update"
)
LIST_AGENTS: Final = Query(
    Agent,
    f"""
    select {_AGENT} from agent
     where ($1::text is null or mode = $1) and ($2::uuid is null or id < $2)
     order by id desc
     limit $3""",
)
SET_TERMS: Final = Query(
    Agent,
    f"""
    update agent
       set parent_id = $2, depth = $3, parent_depth = $4, share_ppm = $5, parent_share_ppm = $6,
           version = version + 1
     where id = $1
    returning {_AGENT}""",
)
INSERT_TERM: Final = Statement("""
    insert into agent_term (agent_id, version, parent_id, share_ppm, valid_from, set_by)
    values ($1, $2, $3, $4, $5, $6)""")
TERMS: Final = Query(
    AgentTerm,
    """
    select agent_id, version, parent_id, share_ppm, valid_from, set_by from agent_term
     where agent_id = any($1::uuid[])
     order by agent_id, version""",
)
TERMS_OF_MODE: Final = Query(
    AgentTerm,
    """
    select term.agent_id, term.version, term.parent_id, term.share_ppm, term.valid_from,
           term.set_by
      from agent_term term
      join agent on agent.id = term.agent_id
     where agent.mode = $1
     order by term.agent_id, term.version""",
)
ASSIGN: Final = Query(
    Brought,
    f"""
    insert into agent_merchant ({_BROUGHT})
    select $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5
      from agent_merchant where merchant_id = $1 and mode = $2
    returning {_BROUGHT}""",
)
BROUGHT: Final = Query(
    Brought,
    f"""
    select {_BROUGHT} from agent_merchant
     where merchant_id = $1 and mode = $2
     order by version""",
)
BROUGHT_IN: Final = Query(
    Brought,
    f"""
    select {_BROUGHT} from agent_merchant
     where mode = $1
     order by merchant_id, version""",
)
