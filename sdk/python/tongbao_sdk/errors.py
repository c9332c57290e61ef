"""What can go wrong, told apart by what is known.

TongbaoError
├── Refused      the platform answered no: nothing more will happen by itself
└── Unanswered   no answer: it may have happened; repeat with the same key
"""

from __future__ import annotations

from typing import Any


class TongbaoError(Exception):
    """Any failure of a call to the platform."""


class Refused(TongbaoError):
    """The platform understood and said no. ``code`` is stable; ``advice`` says what to do."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.param: str | None = problem.get("param")
        self.advice = str(problem.get("advice", ""))
        self.request_id: str | None = problem.get("request_id")
        self.facts: dict[str, Any] = problem.get("facts") or {}
        self.problem = problem
        super().__init__(f"{status} {self.code}: {self.advice} (request {self.request_id})")


class Unanswered(TongbaoError):
    """Nobody answered in time, so whether it happened is unknown.

    Repeat the call with ``idempotency_key``: the platform then tells what became of the first.
    """

    def __init__(self, reason: str, idempotency_key: str | None) -> None:
        self.idempotency_key = idempotency_key
        super().__init__(f"no answer: {reason}; repeat with the same idempotency key")
