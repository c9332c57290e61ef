"""What never reaches a log, whoever writes the line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import random
import re
import secrets
import warnings
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from tongbao.infra import telemetry
from tongbao.infra.db import Db
from tongbao.infra.settings import Secret
from tongbao.infra.telemetry import REMOVED, redact_text

PAN = "4111111111111111"
UNIONPAY = "6222021234567890128"
RESIDENT = "11010519491231002X"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0\n-----END PRIVATE KEY-----"


class Lines:
    """What the process wrote to its log."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def last(self) -> dict[str, object]:
        return json.loads(self.text.splitlines()[-1])


@pytest.fixture
def logs() -> Iterator[Lines]:
    yield from _logging_as("json")


@pytest.fixture
def console() -> Iterator[Lines]:
    yield from _logging_as("console")


def _logging_as(log_format: str) -> Iterator[Lines]:
    root = logging.getLogger()
    level = root.level
    stream = io.StringIO()
    telemetry.set_up_logging("debug", log_format, stream)
    yield Lines(stream)
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers = [each for each in root.handlers if not isinstance(each, telemetry._Handler)]
    root.setLevel(level)


log = structlog.get_logger()


def test_a_line_says_what_when_and_how_grave(logs: Lines) -> None:
    log.info("payment_captured", payment="pay_1", amount=100)
    assert logs.last["event"] == "payment_captured"
    assert logs.last["level"] == "info"
    assert (logs.last["payment"], logs.last["amount"]) == ("pay_1", 100)
    assert str(logs.last["timestamp"]).endswith("Z")


def test_a_line_carries_the_request_it_belongs_to(logs: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        logging.getLogger("some.package").warning("slow %s", "query")
    assert (logs.last["request_id"], logs.last["event"]) == ("req_1", "slow query")


@pytest.mark.parametrize(
    "name",
    ["secret", "api_secret", "password", "Password", "Authorization", "X-Signature", "auth_code",
     "authCode", "private_key", "merchant_private_key_pem", "api_v3_key", "apiKey", "session_token",
     "Set-Cookie", "totp_seed", "sign", "pan", "card_number", "cvv", "dsn", "payment_code"],
)  # fmt: skip
def test_a_secret_is_known_by_its_name_at_any_depth(logs: Lines, name: str) -> None:
    log.info("said", **{name: "hunter2"})
    log.info("said", facts={"list": [{name: "hunter2"}]})
    logging.getLogger("x").info("said", extra={name: "hunter2"})
    assert "hunter2" not in logs.text
    assert REMOVED in logs.text


@pytest.mark.parametrize(
    "name",
    ["key_id", "idempotency_key", "assigned", "design", "span", "company", "opinion", "amount"],
)
def test_a_name_that_only_looks_similar_stays(logs: Lines, name: str) -> None:
    log.info("said", **{name: "hunter2"})
    assert logs.last[name] == "hunter2"


@pytest.mark.parametrize("shown", [PAN, UNIONPAY, "4111 1111 1111 1111", "4111-1111-1111-1111"])
@pytest.mark.parametrize(
    "around", ["{}", "card {}.", "x={},y", "a.{}", "2026 {} 12", "1234 {}", "{} 1234", "({})"]
)
def test_a_card_number_is_removed_from_any_text(shown: str, around: str) -> None:
    assert shown not in redact_text(around.format(shown))


@given(st.integers(min_value=12, max_value=18), st.randoms())
def test_every_luhn_valid_run_of_card_length_is_removed(length: int, dice: random.Random) -> None:
    body = "".join(dice.choices("0123456789", k=length))
    number = next(body + check for check in "0123456789" if telemetry._is_luhn(body + check))
    assert number not in redact_text(f"card={number};")


def test_a_card_number_as_a_number_is_removed(logs: Lines) -> None:
    log.info("said", value=int(PAN), values=[int(PAN)], facts={PAN: 1})
    assert logs.last["value"] == REMOVED
    assert logs.last["values"] == [REMOVED]


@pytest.mark.parametrize(
    "text",
    ["4111111111111112", "420000123420261121123456789012", "2026-11-21T20:20:18.123456Z",
     "2026112122001412341234567890", "pay_01jd6zq8k5e7v9m2n3p4q5r6s7", "0.4111111111111",
     "018f3b5e-7c2a-7b1e-9d3f-123456789012", "amount 1999 CNY", "mchid 1900000109"],
)  # fmt: skip
def test_other_numbers_stay(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "code",
    ["134567890123456789", "286512345678901234", "301234567890123456", "881234567890123456",
     "891234567890123456"],
)  # fmt: skip
def test_a_payment_code_is_removed(code: str) -> None:
    assert code not in redact_text(f"code {code} scanned")


def test_a_resident_id_is_removed() -> None:
    assert (
        redact_text(f"id {RESIDENT}, again {RESIDENT.lower()}") == f"id {REMOVED}, again {REMOVED}"
    )


def test_a_pem_block_is_removed_even_when_cut() -> None:
    assert redact_text(f"key: {PEM} end") == f"key: {REMOVED} end"
    assert "MIIEvQ" not in redact_text(PEM[:50])


@pytest.mark.parametrize(
    "text",
    [
        'Authorization: TONGBAO-HMAC-SHA256 key=k1,nonce=n,signature="hunter2"',
        '{"password": "hunter2", "a": 1}',
        "POST /pay?auth_code=hunter2&x=1",
        "api_v3_key=hunter2",
        "postgresql://tongbao:hunter2@/tongbao?host=/run",
    ],
)
def test_a_secret_inside_a_text_is_removed(text: str) -> None:
    assert "hunter2" not in redact_text(text)


@given(st.text())
def test_any_text_can_be_logged(text: str) -> None:
    redact_text(text).encode()


_PIECES = [
    *("4111", "-", " ", PAN, "6222 0212 3456 7890 128", RESIDENT, "130123456789012345", PEM[:40]),
    *("Signature", "=", ":", '"', "x1", "api_v3_key", "Authorization", "cookie", "tk_", "sk_live_"),
    *("whsec_" + "a" * 24, "https://", "me:pa", "@", "host", "茶", "\ud800", "passwd", "authCode"),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=8))
def test_what_is_not_looked_at_closely_is_what_nothing_is_found_in(pieces: list[str]) -> None:
    text = "".join(pieces)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telemetry, "_SUSPECT", re.compile(""))
        closely = redact_text(text)

    assert redact_text(text) == closely


def test_text_without_end_is_redacted_without_delay() -> None:
    for text in ("a-" * 100_000, "1 " * 100_000, "://:" * 100_000, "-----BEGIN A-----" * 10_000):
        assert len(redact_text(text)) <= 20_000


class Customer(Struct):
    name: str
    password: str


class Chatty:
    def __repr__(self) -> str:
        return f"Chatty(card {PAN})"


def test_objects_are_looked_into_before_they_are_written(logs: Lines) -> None:
    log.info(
        "said", customer=Customer("amy", "hunter2"), secret_holder=Secret("hunter2"),
        thing=Chatty(), raw=b"hunter2", deep=[[[[[[[[[["hunter2"]]]]]]]]]], plain=Secret("hunter2"),
        odd="\udc80", nothing=float("nan"),
    )  # fmt: skip
    assert "hunter2" not in logs.text
    assert PAN not in logs.text
    assert logs.last["raw"] == "[7 bytes]"


def test_an_exception_is_redacted_with_its_causes(logs: Lines) -> None:
    def find(card: str) -> None:
        raise ValueError(f"no such card {card}")

    def fail() -> None:
        try:
            find(PAN)
        except ValueError as cause:
            raise RuntimeError("password=hunter2") from cause

    try:
        fail()
    except RuntimeError:
        log.exception("failed")
    assert "RuntimeError" in str(logs.last["exception"])
    assert PAN not in logs.text
    assert "hunter2" not in logs.text


def test_lines_for_people_are_redacted_too(console: Lines) -> None:
    try:
        int(f"card {PAN}")
    except ValueError:
        log.exception("failed", password="hunter2", card=PAN)
    assert "failed" in console.text
    assert "ValueError" in console.text
    assert PAN not in console.text
    assert "hunter2" not in console.text


def test_lines_of_libraries_take_the_same_way(logs: Lines) -> None:
    for name in ("uvicorn.error", "asyncio", "some.package"):
        logging.getLogger(name).error("lost %s", PAN)
        assert (logs.last["logger"], logs.last["event"]) == (name, f"lost {REMOVED}")
    logging.getLogger("httpcore2.http11").debug("headers hunter2")
    logging.getLogger("uvicorn.access").info("GET /?x=hunter2")
    assert "hunter2" not in logs.text


async def test_a_task_that_fails_unnoticed_is_logged_redacted(logs: Lines) -> None:
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "lost", "exception": ValueError(f"card {PAN}")})
    assert "ValueError" in str(logs.last["exception"])
    assert PAN not in logs.text


def test_warnings_take_the_same_way(logs: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        telemetry.logging.captureWarnings(capture=True)
        warnings.warn(f"odd card {PAN}", stacklevel=1)
    assert logs.last["logger"] == "py.warnings"
    assert PAN not in logs.text


def test_a_line_that_cannot_be_written_leaks_nothing(
    logs: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("hunter2")

    log.info("said", broken=Broken(), other="hunter2")
    assert logs.text.startswith("log_line_lost")
    assert "hunter2" not in logs.text + "".join(capsys.readouterr())


def test_a_level_below_the_chosen_one_is_not_written() -> None:
    stream = io.StringIO()
    generator = _logging_as("json")
    next(generator)
    telemetry.set_up_logging("warning", "json", stream)
    log.info("said")
    log.warning("said")
    assert len(stream.getvalue().splitlines()) == 1
    next(generator, None)


def test_metrics_are_listed_and_exposed(logs: Lines) -> None:
    log.error("said")
    body, content_type = telemetry.exposition()
    assert b'tongbao_log_records_total{level="error"}' in body
    assert content_type.startswith("text/plain")
    assert "tongbao_log_records" in {metric.name for metric in telemetry.declared_metrics()}


async def test_a_process_with_a_migrated_database_is_ready(db: Db) -> None:
    assert await telemetry.ready(db) == {"ready": True, "database": "ok", "migrations": "ok"}


async def test_a_process_without_migrations_is_not_ready(make_db) -> None:
    state = await telemetry.ready(await make_db(migrated=False))
    assert state == {"ready": False, "database": "ok", "migrations": "pending"}


async def test_a_process_whose_database_is_newer_is_not_ready(db: Db) -> None:
    await db.execute(
        "update schema_migration set name = '9999_pre_x.sql' where name like '0001%'", ()
    )
    assert (await telemetry.ready(db))["migrations"] == "migration.missing"


async def test_a_process_without_database_is_not_ready(durable_server, make_db) -> None:
    on = await make_db(dsn=durable_server.dsn)
    durable_server.running.stop()
    state = await telemetry.ready(on)
    assert state == {"ready": False, "database": "unavailable", "migrations": "unknown"}


def test_a_text_full_of_card_numbers_is_redacted_to_its_end() -> None:
    assert redact_text("4111111111111111 " * 900) == f"{REMOVED} " * 900


@pytest.mark.parametrize("end", ["\n", "\r\n", "\x1b[2K\n"])
def test_what_somebody_sends_makes_no_second_line(logs: Lines, end: str) -> None:
    forged = f'shop{end}{{"event": "operator_logged_in", "level": "info"}}'
    before = len(logs.text.split("\n"))

    structlog.get_logger().info("seen", name=forged)

    assert len(logs.text.split("\n")) == before + 1
    assert logs.last["event"] == "seen"
    assert logs.last["name"] == forged
    assert "\x1b" not in logs.text


@pytest.mark.parametrize("kind", ["sk_live", "sk_sandbox", "tk", "whsec"])
def test_a_secret_of_ours_is_known_wherever_it_is_put(kind: str) -> None:
    secret = f"{kind}_{secrets.token_urlsafe(32)}"

    for text in (secret, f"?subject={secret}&x=1", f'{{"subject": "tea {secret}"}}'):
        assert secret not in redact_text(text)
    assert redact_text("task_sk_live_7") == "task_sk_live_7"
