"""Logs, metrics and probes: what the program tells its operators, and what it never tells anybody.

Every log line of the process, the libraries' too, passes one handler whose last step before
writing is `redact`. Metrics are declared near their owners on prometheus_client's own registry,
with names that begin with ``tongbao_``.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final, TextIO

import msgspec
import prometheus_client
import structlog
from msgspec import Struct

from tongbao.infra.db import Db, Query
from tongbao.infra.db_failures import DatabaseUnavailable, LockNotFree
from tongbao.infra.migrate import pending_migrations
from tongbao.kernel.card_numbers import WRAPPED, folded, sights
from tongbao.kernel.errors import Refusal

REMOVED: Final = "[removed]"
_DEPTH_MAX: Final = 8
_TEXT_MAX: Final = 16_384
_QUIET: Final = ("httpcore2", "httpx2", "asyncpg", "hpack", "uvicorn.access")

# Compared without case, dashes and underscores. Parts match anywhere in a name.
_SECRET_PARTS: Final = (
    "secret", "password", "passwd", "passphrase", "authorization", "signature", "authcode",
    "paymentcode", "privatekey", "apikey", "apiv3key", "token", "credential", "cookie", "kek",
    "totp", "cardnumber", "idnumber", "idcard", "bankaccount",
)  # fmt: skip
_SECRET_NAMES: Final = frozenset(
    {"sign", "pin", "pan", "cvv", "cvv2", "cvn", "cvn2", "otp", "seed", "dsn", "pem"}
)

_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_DIGITS: Final = re.compile(r"\d+(?:[ -]\d+)*")
_PAYMENT_CODE: Final = re.compile(r"(?<!\d)(?:(?:1[0-5]|8[89])\d{16}|(?:2[5-9]|30)\d{14,22})(?!\d)")
_RESIDENT_ID: Final = re.compile(r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}[01]\d[0-3]\d{4}[\dXx](?![\dXx])")
# Secrets that we gave out say what they are: whoever sends one in the wrong field is spared.
_OWN_SECRET: Final = re.compile(r"\b(?:sk_(?:live|sandbox)|tk|whsec)_[A-Za-z0-9_/+=-]{20,}")
_URL_PASSWORD: Final = re.compile(r"(://[^/\s:@]*:)[^@\s/]+@")
_NAMED: Final = re.compile(
    r"""(?ix) \b( [\w-]{0,40}
        (?: secret | password | passwd | auth_?code | private_?key | api_?(v3_?)?key | signature )
        [\w-]{0,40} ["']? \s* [:=] \s* ["']? ) [^\s"',;&}]+"""
)
_HEADER: Final = re.compile(
    r"""(?ix) \b( (?:authorization|cookie) ["']? \s* [:=] \s* ) ( "[^"]*" | '[^']*' | [^\r\n]+ )"""
)
# Where this finds nothing none of the above does: that is so of most texts.
_SUSPECT: Final = re.compile(
    r"""(?ix) -----BEGIN | @ | (?:sk|tk|whsec)_ | (?:\d[ -]?){12}\d
        | secret | passw | auth_?code | private_?key | api_?(?:v3_?)?key | signature
        | authorization | cookie"""
)
_DISGUISED: Final = re.compile(rf"(?:[0-9][ ./_-]{{0,3}}){{12}}[0-9]|{WRAPPED}")
_DIGITS_FEW: Final = 10**12
"""A number below has fewer digits than any card or person."""

Event = MutableMapping[str, Any]

_RECORDS: Final = prometheus_client.Counter(
    "tongbao_log_records", "Log lines written, by level.", ["level"]
)
HTTP_REQUESTS: Final = prometheus_client.Counter(
    "tongbao_http_requests", "HTTP requests answered", ["method", "route", "status"]
)
HTTP_SECONDS: Final = prometheus_client.Histogram(
    "tongbao_http_seconds", "Time from a request's first byte to its answer's last", ["route"]
)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_ROOT: Final = logging.getLogger()
_ONE: Final = Query(int, "select 1")
_log = structlog.get_logger()


class Metric(Struct, frozen=True):
    """One metric as the reference page lists it."""

    name: str
    kind: str
    meaning: str


def set_up_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to one handler: JSON or for people, redacted last."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = _render_json
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=(stream or sys.stderr).isatty(),
            exception_formatter=structlog.dev.plain_traceback,
        )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _count,
            redact,
            renderer,
        ],
    )
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in list(logging.root.manager.loggerDict):
        theirs = logging.getLogger(name)
        theirs.handlers, theirs.propagate = [], True
        theirs.disabled = False  # a library's own set-up may have silenced the others
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def redact(logger: Any, method: str, event: Event) -> Event:
    """Return the event without secrets, card numbers, payment codes and resident ids."""
    del logger, method
    return {name: _clean(name, value, _DEPTH_MAX) for name, value in event.items()}


def redact_text(text: str) -> str:
    """Return a text, cut at 16 384 characters, without what must never be shown."""
    text = text[:_TEXT_MAX]
    if not text.isascii():
        text = text.encode(errors="replace").decode()
    text = _without_sights(text)
    if _SUSPECT.search(text) is None:
        return text
    text = _PEM.sub(REMOVED, text)
    text = _HEADER.sub(rf"\g<1>{REMOVED}", text)
    text = _NAMED.sub(rf"\g<1>{REMOVED}", text)
    text = _OWN_SECRET.sub(REMOVED, text)
    text = _URL_PASSWORD.sub(rf"\g<1>{REMOVED}@", text)
    text = _RESIDENT_ID.sub(REMOVED, text)
    text = _PAYMENT_CODE.sub(REMOVED, text)
    return _DIGITS.sub(lambda run: _without_cards(run.group()), text)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count, time and log a request under its route; there is no end to paths."""
    method = method if method in _METHODS else "other"
    counted, timed = _counters(method, route, status)
    counted.inc()
    timed.observe(seconds)
    if _ROOT.isEnabledFor(logging.INFO):  # finding out costs less than a line that goes nowhere
        _log.info(
            "http_request", method=method, route=route, status=status, ms=round(seconds * 1000)
        )


@lru_cache(maxsize=4096)
def _counters(
    method: str, route: str, status: int
) -> tuple[prometheus_client.Counter, prometheus_client.Histogram]:
    return HTTP_REQUESTS.labels(method, route, status), HTTP_SECONDS.labels(route)


def exposition() -> tuple[bytes, str]:
    """Return all metrics as Prometheus reads them, and their content type."""
    return prometheus_client.generate_latest(), prometheus_client.CONTENT_TYPE_LATEST


def declared_metrics() -> list[Metric]:
    """Return the metrics of every imported module, for the reference page."""
    return sorted(
        (
            Metric(family.name, family.type, family.documentation)
            for family in prometheus_client.REGISTRY.collect()
            if family.name.startswith("tongbao_")
        ),
        key=lambda metric: metric.name,
    )


async def ready(db: Db) -> dict[str, str | bool]:
    """Tell whether this process can serve: its database answers and is migrated."""
    try:
        await _ONE.one(db)
        pending = await pending_migrations(db)
    except (DatabaseUnavailable, LockNotFree, TimeoutError):
        return {"ready": False, "database": "unavailable", "migrations": "unknown"}
    except Refusal as refusal:
        return {"ready": False, "database": "ok", "migrations": refusal.code}
    migrations = "pending" if pending else "ok"
    return {"ready": not pending, "database": "ok", "migrations": migrations}


def _clean(name: str, value: object, depth: int) -> object:
    if _is_secret_name(name):
        return value if value is None or isinstance(value, bool) else REMOVED
    return _clean_value(value, depth)


def _clean_value(value: object, depth: int) -> object:
    """Return a plain value: whatever a renderer would print by itself, we have looked at."""
    clean: object
    match value:
        case str():
            clean = redact_text(value)
        case None | bool() | float():
            clean = value
        case int():
            is_short = -_DIGITS_FEW < value < _DIGITS_FEW
            clean = value if is_short or redact_text(str(value)) == str(value) else REMOVED
        case bytes() | bytearray() | memoryview():
            clean = f"[{len(value)} bytes]"
        case Struct() | Mapping() | list() | tuple() | set() | frozenset() if depth == 0:
            clean = "[…]"
        case Struct():
            clean = _clean_value(msgspec.structs.asdict(value), depth)
        case Mapping():
            clean = {str(key): _clean(str(key), item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            clean = [_clean_value(item, depth - 1) for item in value]
        case _:
            clean = redact_text(str(value))
    return clean


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    plain = name.lower().replace("_", "").replace("-", "")
    return plain in _SECRET_NAMES or any(part in plain for part in _SECRET_PARTS)


def _without_sights(text: str) -> str:
    """Remove card numbers that are disguised: in another script, in other groups, in Base64."""
    if text.isascii() and _DISGUISED.search(text) is None:
        return text
    plain = folded(text)
    found = sorted(sights(plain), key=lambda sight: sight.start, reverse=True)
    for each in found:
        plain = plain[: each.start] + REMOVED + plain[each.end :]
    return plain if found else text


def _without_cards(run: str) -> str:
    """Remove card numbers from digits that stand in groups, with a blank or dash between them."""
    groups = re.split(r"([ -])", run)
    kept: list[str] = []
    first = 0
    while first < len(groups):
        last = _end_of_card(groups, first)
        kept.append(groups[first] if last is None else REMOVED)
        first = 1 + (first if last is None else last)
        kept += groups[first : first + 1]  # the blank or dash that follows
        first += 1
    return "".join(kept)


def _end_of_card(groups: list[str], first: int) -> int | None:
    """Return the last group of a card number that begins with this group, or None."""
    for last in range(first, len(groups), 2):
        digits = "".join(groups[first : last + 1 : 2])
        if 13 <= len(digits) <= 19 and _is_luhn(digits):
            return last
        if len(digits) > 19:
            break
    return None


def _is_luhn(run: str) -> bool:
    digits = [int(digit) for digit in reversed(run)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Tell that a line was lost without its content, which nobody has redacted."""
        self.stream.write(f"log_line_lost {record.name}\n")


def _count(logger: Any, method: str, event: Event) -> Event:
    del logger, method
    _RECORDS.labels(event.get("level", "info")).inc()
    return event


def _render_json(logger: Any, method: str, event: Event) -> str:
    del logger, method
    write: Callable[[object], bytes] = msgspec.json.encode
    return write(event).decode()
