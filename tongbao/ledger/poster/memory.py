"""Moved to tongbao.ledger.decision.memory; this stays only until its importers have followed."""

from tongbao.ledger.decision.memory import *  # noqa: F403
