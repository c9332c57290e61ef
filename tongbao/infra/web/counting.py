"""Requests counted, timed and logged under their routes."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Final

import prometheus_client as metrics
import structlog

HTTP_REQUESTS: Final = metrics.Counter(
    "tongbao_http_requests", "HTTP requests answered", ["method", "route", "status"]
)
HTTP_SECONDS: Final = metrics.Histogram(
    "tongbao_http_seconds", "Time from a request's first byte to its answer's last", ["route"]
)

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_ROOT: Final = logging.getLogger()
_log = structlog.get_logger()


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count and log a request under its route, never under its path: paths are without end."""
    method = method if method in _METHODS else "other"
    counted, timed = _counters(method, route, status)
    counted.inc()
    timed.observe(seconds)
    if _ROOT.isEnabledFor(logging.INFO):  # finding out costs less than a line that goes nowhere
        _log.info(
            "http_request", method=method, route=route, status=status, ms=round(seconds * 1000)
        )


@lru_cache(maxsize=4096)
def _counters(method: str, route: str, status: int) -> tuple[metrics.Counter, metrics.Histogram]:
    return HTTP_REQUESTS.labels(method, route, status), HTTP_SECONDS.labels(route)
