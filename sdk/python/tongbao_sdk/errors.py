"""What can go wrong, told apart by what is known.

TongbaoError
├── Refused          the platform answered no: nothing more will happen by itself
├── Unanswered       no answer: it may have happened; repeat with the same key
├── MixedUp          a browser came back from a consent that was not asked for here
└── WebhookInvalid   what came is not a webhook of the platform
"""

from __future__ import annotations

from typing import Any


class TongbaoError(Exception):
    """Any failure of a call to the platform, or of something that claims to come from it."""


class Refused(TongbaoError):
    """The platform understood and said no. ``code`` is stable; ``advice`` says what to do."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", ""))
        self.advice = str(problem.get("advice", ""))
        self.param: str | None = problem.get("param")
        self.doc_url: str | None = problem.get("doc_url")
        self.request_id: str | None = problem.get("request_id")
        self.facts: dict[str, Any] = problem.get("facts") or {}
        self.problem = problem
        self.after_unanswered = False  # an earlier try of the same call went unanswered
        super().__init__(f"{status} {self.code}: {self.advice} (request {self.request_id})")


class Unanswered(TongbaoError):
    """Nobody answered in time, so whether it happened is unknown.

    Repeat the call with ``idempotency_key``: the platform then tells what became of the first.
    It is None where there was nothing to be done but to read, or to do again.
    """

    def __init__(self, reason: str, idempotency_key: str | None) -> None:
        self.reason = reason
        self.idempotency_key = idempotency_key
        told = f"; repeat it with idempotency_key={idempotency_key!r}" if idempotency_key else ""
        super().__init__(f"no answer ({reason}){told}")


class MixedUp(TongbaoError):
    """The browser came back with something that does not belong to what was asked."""


class WebhookInvalid(TongbaoError):
    """The webhook is not from the platform, or is too old to be believed."""
