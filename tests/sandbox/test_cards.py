"""The sandbox's own card code against what others recorded: it is the check on the platform's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tongbao_sandbox.cards_crypto import Sealing, pin_block
from tongbao_sandbox.cards_message import Garbled, compose, framed, parse, unheadered

VECTORS = Path(__file__).parents[1] / "vectors" / "iso8583"
MESSAGES = json.loads((VECTORS / "cups_messages.json").read_text("utf-8"))["messages"]
VALUES = json.loads((VECTORS / "mac.json").read_text("utf-8"))


@pytest.mark.parametrize("recorded", [one for one in MESSAGES if "fields" in one])
def test_it_reads_and_writes_the_simulators_messages_to_the_byte(recorded: dict) -> None:
    raw = bytes.fromhex(recorded["hex"])
    mti, fields = parse(raw)
    assert mti == recorded["mti"]
    assert [1, *sorted(fields)] == recorded["fields"]
    assert compose(mti, fields) == raw


def test_its_mac_is_the_one_a_terminal_sent() -> None:
    key, text, mac = (bytes.fromhex(VALUES["ecb"][name]) for name in ("key", "text", "mac"))
    assert Sealing("3des", "ecb").mac(key, text) == mac


def test_its_retail_mac_is_that_of_iso_9797() -> None:
    key = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
    mac = Sealing("3des", "x9.19").mac(key, b"Now is the time for all ")
    assert mac.hex().upper() == "A1C72E74EA3FA9B6"


def test_its_wrapped_keys_are_those_of_the_sample() -> None:
    sample = VALUES["sm4_key_transport"]
    wrapped = Sealing("sm4", "ecb").wrapped(
        bytes.fromhex(sample["tmk"]), bytes.fromhex(sample["wk"])
    )
    assert wrapped.hex().upper() == sample["wk_under_tmk"] + sample["check_value"]


def test_its_pin_block_is_that_of_x9_8() -> None:
    sample = VALUES["pin_block_x9_8"][0]
    assert pin_block(sample["pin"], sample["pan"]).hex().upper() == sample["block"]


@pytest.mark.parametrize("cut", [0, 3, 11, 19, 40, 300])
def test_it_hangs_up_on_what_is_no_message(cut: int) -> None:
    raw = bytes.fromhex(MESSAGES[0]["hex"])
    with pytest.raises(Garbled):
        parse(raw[:cut])
    with pytest.raises(Garbled):
        parse(raw + b"\0")


def test_its_header_states_the_length() -> None:
    wire = framed(b"0800", to="48021000", sender="00010000")
    assert unheadered(wire[2:]) == b"0800"
    with pytest.raises(Garbled):
        unheadered(wire[2:] + b"x")
