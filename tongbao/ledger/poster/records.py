"""Moved to tongbao.ledger.decision.records; this stays only until its importers have followed."""

from tongbao.ledger.decision.records import *  # noqa: F403
