"""HOTP, TOTP and OCRA against every value of their RFCs, and questions that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tongbao.kernel.one_time_codes import hotp, ocra, read_suite, totp

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "otp" / "rfc_otp_vectors.json").read_text("utf-8")
)


def test_hotp_is_rfc_4226_appendix_d() -> None:
    key = VECTORS["hotp_sha1_key"].encode()

    assert [hotp(key, counter) for counter in range(10)] == VECTORS["hotp"]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_totp_is_rfc_6238_appendix_b(algorithm: str) -> None:
    key = VECTORS["totp_keys"][algorithm].encode()
    rows = VECTORS["totp_8digits_step30"]

    found = [totp(key, row["unix"], digits=8, algorithm=algorithm) for row in rows]

    assert found == [row[algorithm] for row in rows]


def test_ocra_is_rfc_6287_appendix_c() -> None:
    assert len(VECTORS["ocra"]) == 70
    for row in VECTORS["ocra"]:
        found = ocra(
            read_suite(row["suite"]),
            row["key"].encode(),
            row["question"],
            counter=row["counter"] or 0,
            pin=row["pin"] or "",
            steps=row["time_steps"] or 0,
        )
        assert found == row["expected"], row


@pytest.mark.parametrize(
    "name",
    [
        "",
        "OCRA-2:HOTP-SHA1-6:QN08",
        "OCRA-1:HOTP-MD5-6:QN08",
        "OCRA-1:HOTP-SHA1-3:QN08",
        "OCRA-1:HOTP-SHA1-6:C",
        "OCRA-1:HOTP-SHA1-6:QX08",
        "OCRA-1:HOTP-SHA1-6:QN65",
        "OCRA-1:HOTP-SHA1-6:QN08\n",
    ],
)
def test_what_is_no_suite_is_said_so(name: str) -> None:
    with pytest.raises(ValueError, match="no OCRA suite"):
        read_suite(name)


@pytest.mark.parametrize(
    ("kind", "question"),
    [("QN08", "123"), ("QN08", "12a4"), ("QN08", "１２３４"), ("QA08", "a b!"), ("QN08", "1" * 17)],
)
def test_a_question_is_one_of_the_suites(kind: str, question: str) -> None:
    with pytest.raises(ValueError):
        ocra(read_suite(f"OCRA-1:HOTP-SHA1-6:{kind}"), b"key", question)
