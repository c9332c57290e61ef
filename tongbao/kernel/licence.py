"""Licence: what kind of firm runs this deployment, fixed at its first migration."""

from __future__ import annotations

from enum import StrEnum


class Licence(StrEnum):
    """What the operator may do.

    An aggregator may neither settle nor hold funds (银发〔2017〕45号).
    """

    AGGREGATOR = "aggregator"
    PAYMENT_INSTITUTION = "payment_institution"
    BANK = "bank"

    @property
    def may_hold_funds(self) -> bool:
        """Whether settlement, payouts, wallets and their account classes exist at all."""
        return self is not Licence.AGGREGATOR


class Mode(StrEnum):
    """Which world a key or a row belongs to."""

    LIVE = "live"
    SANDBOX = "sandbox"
