"""Every code that a channel can be seen to say resolves to one entry with advice in two languages.

Where codes come from: the answers on record, the samples that others recorded, whatever the
sandbox's own source can raise, and the index of each map. A code nobody has mapped is `Unknown`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import tongbao.rails.channels
import tongbao_sandbox
from tongbao.controls.limits.model import LimitExceeded
from tongbao.ledger.model import AccountClosed, AccountFrozen, ExceedsBalance
from tongbao.parties.accounts.model import CodeUsedOrExpired, SpendingRefused
from tongbao.parties.offline_codes.model import OfflineKeyStopped, OfflineLimitExceeded
from tongbao.rails.channels.error_map import Call, ErrorMap, Meaning, error_map

CHANNELS = Path(tongbao.rails.channels.__path__[0])
SANDBOX = Path(tongbao_sandbox.__path__[0])
RECORDED = Path(__file__).parent / "recorded"
VECTORS = Path(__file__).parents[1] / "vectors"
MAPS = sorted(path.parent.name for path in CHANNELS.glob("*/errors.toml"))
CALLS = get_args(Call)

FIELDS = {
    "wechat_pay": ("code",),
    "alipay": ("sub_code", "code"),
    "unionpay": ("respCode", "origRespCode"),
    "unionpay_qra": ("err_code",),
}
"""Where an answer of the channel holds its code."""
GOOD = {
    "alipay": {"10000", "40004"},  # 40004: refused, and only the sub-code beside it says why
    "unionpay": {"00", "A6"},
    "cards": {"00", "11", "16"},
}
"""What says that all is well, and so stands in the code and in no map of errors."""
INVENTED = {"BRAND_NEW"}
"""Recorded to see what becomes of a code nobody has mapped."""
ON_A_PAGE = {"alipay": {"USER_AGREEMENT_EXIST"}}
"""What only a customer's browser is told, and no answer to us."""
SAMPLES = {
    "wechat_pay": ("wechat/*/*.json", ("fail_reason",), r"[A-Z_]{4,}"),
    "unionpay": ("unionpay/*.json", ("respCode", "origRespCode"), r"[0-9A-Z]{2}"),
    "unionpay_qra": ("unionpay_qra/*.json", ("err_code",), r"[A-Z_]{4,}"),
}
"""Channel → files of others, the fields with a code, and its shape: the rest there is text."""
RAISED = {
    "wechat_pay": ("wechat*.py", "Problem", 1, r"[A-Z_]{4,}"),
    "alipay": ("alipay*.py", "Refusal", 1, r"[A-Za-z_.-]{4,}"),
    "unionpay": ("unionpay.py unionpay_[!q]*.py", "Refusal", 0, r"[0-9A-Z]{2}"),
    "unionpay_qra": ("unionpay_qra.py", "Refusal", 0, r"[A-Z_]{4,}"),
}
"""Channel → the sandbox's modules, the exception that carries a code, where, and its shape."""


def _in_answers(document: Any, fields: tuple[str, ...]) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name in fields and isinstance(value, str) and value:
                yield value
            yield from _in_answers(value, fields)
    elif isinstance(document, list):
        for each in document:
            yield from _in_answers(each, fields)


def recorded_codes(channel: str) -> set[str]:
    path = RECORDED / f"{channel}.json"
    if not path.exists():
        return set()
    cases = [case for case in json.loads(path.read_text()) if "nobody mapped" not in case["name"]]
    return set(_in_answers([case["answers"] for case in cases], FIELDS.get(channel, ()))) - INVENTED


def sample_codes(channel: str) -> set[str]:
    if channel not in SAMPLES:
        return set()
    pattern, fields, shape = SAMPLES[channel]
    return {
        code
        for path in VECTORS.glob(pattern)
        for code in _in_answers(json.loads(path.read_text("utf-8-sig")), fields)
        if re.fullmatch(shape, code)
    }


def sandbox_codes(channel: str) -> set[str]:
    if channel == "cards":
        return set(_answered_by_the_card_host())
    if channel not in RAISED:
        return set()
    patterns, exception, at, shape = RAISED[channel]
    return {
        code
        for pattern in patterns.split()
        for path in SANDBOX.glob(pattern)
        for code in _raised(ast.parse(path.read_text()), exception, at)
        if re.fullmatch(shape, code)
    }


def _raised(tree: ast.AST, exception: str, at: int) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == exception:
            given = node.args[at] if len(node.args) > at else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                yield given.value


def _answered_by_the_card_host() -> Iterator[str]:
    """The response codes in what the host's functions return, and in field 39 of its answers."""
    for path in SANDBOX.glob("cards*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Return | ast.Dict | ast.Assign):
                continue
            for inner in ast.walk(node):
                value = inner.value if isinstance(inner, ast.Constant) else None
                if isinstance(value, bytes):
                    value = value.decode("latin-1")
                if isinstance(value, str) and re.fullmatch(r"[0-9A][0-9]", value):
                    yield value


EVERY_CODE = [
    pytest.param(channel, code, id=f"{channel}: {code}")
    for channel in MAPS
    for code in sorted(
        (
            recorded_codes(channel)
            | sample_codes(channel)
            | sandbox_codes(channel)
            | {entry.code for entry in error_map(channel).entries}
        )
        - GOOD.get(channel, set())
        - ON_A_PAGE.get(channel, set())
    )
]


def test_codes_were_found_in_every_place() -> None:
    """Or the readers above have gone blind, and the next test looks at nothing."""
    for channel in FIELDS:
        assert len(recorded_codes(channel)) >= 3, channel
    for channel in SAMPLES:
        assert sample_codes(channel), channel
    for channel in (*RAISED, "cards"):
        assert len(sandbox_codes(channel)) >= 5, channel


@pytest.mark.parametrize(("channel", "code"), EVERY_CODE)
def test_a_code_resolves_to_one_entry_with_advice(channel: str, code: str) -> None:
    mapped = error_map(channel)
    entries = [entry for entry in mapped.entries if entry.code == code]
    assert entries, "seen, and nobody has said what it means"
    general = [entry for entry in entries if not entry.on]
    assert len(general) <= 1
    for call in CALLS:
        special = [entry for entry in entries if call in entry.on]
        assert len(special) <= 1, call
        found = mapped.find(call, code)
        expected = [*special, *general]
        if expected:
            assert found is expected[0]
            assert found.meaning in get_args(Meaning)
            assert found.en.strip()
            assert found.zh.strip()
        else:
            assert found.meaning == "unknown"
    text = mapped.customer_text(code)
    assert text.en.strip()
    assert text.zh.strip()


WALLET_REFUSES = {
    ExceedsBalance.code,
    AccountFrozen.code,
    AccountClosed.code,
    CodeUsedOrExpired.code,
    SpendingRefused.code,
    OfflineKeyStopped.code,
    OfflineLimitExceeded.code,
    LimitExceeded.code,
    "wallet.declined",
}
"""What may refuse the group that a payment of the own wallet is."""


@pytest.mark.parametrize("code", sorted(WALLET_REFUSES))
def test_what_the_own_wallet_refuses_is_a_plain_no(code: str) -> None:
    assert error_map("wallet").find("pay", code).meaning == "declined"


@pytest.mark.parametrize("channel", MAPS)
@pytest.mark.parametrize("call", CALLS)
def test_a_code_nobody_has_mapped_is_unknown(channel: str, call: Call) -> None:
    found = error_map(channel).find(call, "BRAND.NEW-CODE_7")
    assert found.meaning == "unknown"
    assert not found.retry_elsewhere
    assert not found.ask
    assert found.en
    assert found.zh


def test_a_code_mapped_twice_stops_the_program_at_its_start() -> None:
    one = error_map("alipay").entries[0]
    with pytest.raises(ValueError, match="mapped twice"):
        ErrorMap("alipay", [one, msgspec.structs.replace(one)])
