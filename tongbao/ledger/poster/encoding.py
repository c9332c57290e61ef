"""Moved to tongbao.ledger.decision.encoding; this stays only until its importers have followed."""

from tongbao.ledger.decision.encoding import *  # noqa: F403
