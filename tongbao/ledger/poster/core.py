"""Moved to tongbao.ledger.decision.core; this stays only until its importers have followed."""

from tongbao.ledger.decision.core import *  # noqa: F403
