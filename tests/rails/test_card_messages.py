"""Cards before any line: secrets, MACs, traces, and what people see of a message."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.rails.card_host import CHIP, MASTER_KEY, PAN, PIN_BLOCK, TRACK2, account, card, order
from tongbao.kernel.clock import real_now
from tongbao.kernel.codecs.iso8583 import decode, encode
from tongbao.kernel.codecs.iso8583_dialects import CUPS
from tongbao.kernel.ids import base32, new_id
from tongbao.rails.channels.cards.crypto import (
    WorkingKeysWrong,
    check_value,
    is_mac_of,
    mac_of,
    read_working_keys,
)
from tongbao.rails.channels.cards.messages import (
    PURCHASE,
    Unsendable,
    masked,
    request,
    reversal,
    shown,
    trace_of,
)
from tongbao.rails.channels.cards.secrets import CardSecrets
from tongbao_sandbox.cards_crypto import pin_block

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "iso8583" / "mac.json").read_text("utf-8")
)


def secrets(**changes: Any) -> CardSecrets:
    found = account("tcp://h:1", **changes).secrets
    assert isinstance(found, CardSecrets)
    return found


def test_the_mac_is_the_one_a_terminal_sent() -> None:
    ecb = VECTORS["ecb"]
    key, text, mac = (bytes.fromhex(ecb[name]) for name in ("key", "text", "mac"))

    assert mac_of(secrets(), key, text) == mac
    assert is_mac_of(secrets(), key, text, mac)
    assert not is_mac_of(secrets(), key, text + b"\x01", mac)
    assert not is_mac_of(secrets(), key, text, mac[:-1])


def test_the_retail_mac_is_that_of_iso_9797() -> None:
    key = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
    mac = mac_of(secrets(mac="x9.19"), key, b"Now is the time for all ")
    assert mac.hex().upper() == "A1C72E74EA3FA9B6"


def test_working_keys_come_out_from_under_the_master_key() -> None:
    sample = VECTORS["sm4_key_transport"]
    one = bytes.fromhex(sample["wk_under_tmk"] + sample["check_value"])
    keys = read_working_keys(secrets(master_key=sample["tmk"], cipher="sm4"), one * 2)

    assert keys.mac_key.hex().upper() == sample["wk"]
    assert check_value("sm4", keys.mac_key).hex().upper() == sample["check_value"]
    assert keys.track_key is None
    assert sample["wk"] not in repr(keys).upper()


@pytest.mark.parametrize(
    "spoil", [lambda raw: raw[:-1] + b"\0", lambda raw: raw[:-1], lambda _: b""]
)
def test_working_keys_without_their_check_value_are_not_used(spoil: Any) -> None:
    sample = VECTORS["sm4_key_transport"]
    raw = bytes.fromhex(sample["wk_under_tmk"] + sample["check_value"]) * 3
    with pytest.raises(WorkingKeysWrong):
        read_working_keys(secrets(master_key=sample["tmk"], cipher="sm4"), spoil(raw))


def test_the_sandboxs_pin_blocks_are_those_of_the_standard() -> None:
    sample = VECTORS["pin_block_x9_8"][0]
    assert pin_block(sample["pin"], sample["pan"]).hex().upper() == sample["block"]


@pytest.mark.parametrize(
    "changes",
    [
        {"master_key": "00"},
        {"master_key": "zz" * 16},
        {"institution": "1"},
        {"institution": "4802100x"},
        {"category": "٥٩٩٩"},
        {"cipher": "sm4", "mac": "x9.19"},
    ],
)
def test_secrets_that_cannot_work_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        account("tcp://h:1", **changes)


def test_secrets_show_nothing() -> None:
    assert MASTER_KEY not in repr(account("tcp://h:1"))


# Traces and messages


def test_a_number_always_has_the_same_trace_and_its_own_time() -> None:
    number = base32(new_id())
    trace = trace_of(number)

    assert trace == trace_of(number)
    assert abs(trace.at - real_now()) < timedelta(minutes=1)
    assert trace.reference == number[-12:].upper()
    assert trace.number != "000000"
    assert trace_of(number, "reversal").number != trace.number


def test_traces_of_many_numbers_differ() -> None:
    traces = {
        (trace.time, trace.number, trace.reference)
        for trace in (trace_of(base32(new_id())) for _ in range(5000))
    }
    assert len(traces) == 5000


def test_a_number_that_is_none_of_ours_has_no_trace() -> None:
    with pytest.raises(Unsendable):
        trace_of("ORDER-1")


def test_what_people_see_of_a_message_holds_nothing_of_the_card() -> None:
    ours = order(card=card(pin_block=PIN_BLOCK))
    message = request(
        account("tcp://h:1"), PURCHASE, trace_of(ours.number), ours.money, card=ours.card
    )
    text = shown(message)

    assert "2 625188******1688" in text
    for secret in (PAN, TRACK2, CHIP.hex(), PIN_BLOCK.hex(), "4912"):
        assert secret not in text
    assert PAN not in repr(message)
    assert PAN not in repr(ours)


@pytest.mark.parametrize(
    ("number", "seen"), [("6251880000011688", "625188******1688"), ("123456789012", "*" * 12)]
)
def test_a_card_number_is_shown_as_six_and_four_digits(number: str, seen: str) -> None:
    assert masked(number) == seen


def test_a_reversal_carries_no_track_and_no_pin() -> None:
    ours = order(card=card(pin_block=PIN_BLOCK))
    message = reversal(account("tcp://h:1"), PURCHASE, ours.number, ours.money, ours.card)

    assert message.mti == "0400"
    assert not {35, 52, 53, 26} & set(message.fields)
    original = message.text(90)
    trace = trace_of(ours.number)
    assert original == f"0200{trace.number}{trace.time}00048021000" + "00048021000"
    assert message.text(37) == trace.reference
    assert decode(encode(message, CUPS), CUPS) == message
