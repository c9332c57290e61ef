"""Cards: the bytes on the wire, what each answer means, and what silence means.

The scripted host speaks with the sandbox's code, so either side's mistakes show at the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tests.rails.card_host import (
    CHIP,
    MAC_KEY,
    MASTER_KEY,
    PAN,
    PIN_BLOCK,
    TRACK2,
    CardHost,
    account,
    answer_to,
    card,
    card_host,
    order,
    refund_order,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.codecs.iso8583 import Message, decode, encode
from tongbao.kernel.codecs.iso8583_dialects import CUPS
from tongbao.kernel.codecs.iso8583_parts import CardBalance
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.payments.collecting.chase import CODE_WINDOW
from tongbao.rails.channels.capabilities import (
    Authorising,
    Capture,
    TotalsAgree,
    TotalsDiffer,
    Voiding,
)
from tongbao.rails.channels.capabilities import BatchTotals as Totals
from tongbao.rails.channels.cards.answers import BalanceKnown, taken
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.crypto import (
    WorkingKeysWrong,
    check_value,
    is_mac_of,
    mac_of,
    read_working_keys,
)
from tongbao.rails.channels.cards.line import LineLimits
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
from tongbao.rails.channels.contract import (
    Absent,
    Authorised,
    BillNotReady,
    CallbackForged,
    Channel,
    Closed,
    Declined,
    NotSent,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import UNMAPPED, error_map
from tongbao.surfaces.cli.channels import read_account
from tongbao_sandbox.cards_crypto import pin_block
from tongbao_sandbox.cards_message import Fields, parse

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "iso8583" / "mac.json").read_text("utf-8")
)
LIMITS = LineLimits()
QUICK = LineLimits(answer_s=0.3)


@pytest.fixture
async def host() -> AsyncIterator[CardHost]:
    async with card_host() as scripted:
        yield scripted


@pytest.fixture
async def cards() -> AsyncIterator[Cards]:
    channel = Cards(LIMITS)
    yield channel
    await channel.shut()


def replies(code: str = "00", **changes: bytes) -> Any:
    def react(connection: Any, mti: str, fields: Fields) -> None:
        connection.send(f"{int(mti) + 10:04d}", answer_to(fields, code, **changes))

    return react


# Cryptography, against values of others ----------------------------------------------------------


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


# Traces and messages -----------------------------------------------------------------------------


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


# A purchase, answer by answer ---------------------------------------------------------------------


async def test_a_purchase_says_on_the_wire_what_was_meant(host: CardHost, cards: Cards) -> None:
    ours = order(card=card(pin_block=PIN_BLOCK))
    paying = asyncio.create_task(cards.pay(account(host.url), ours))
    connection, mti, fields = await host.next()

    assert mti == "0200"
    assert (fields[2], fields[3], fields[4]) == (PAN.encode(), b"000000", b"000000001999")
    assert (fields[22], fields[23], fields[25]) == (b"051", b"001", b"00")
    assert (fields[41], fields[42]) == (b"10000001", b"898110000000001")
    assert (fields[35], fields[49], fields[52]) == (TRACK2.encode(), b"156", PIN_BLOCK)
    assert fields[55] == CHIP
    assert host.sees_good_macs

    connection.send("0210", answer_to(fields, f12=b"235959", f13=b"0101"))
    outcome = (await paying).outcome
    assert outcome == Succeeded(trace_of(ours.number).reference, ours.money, outcome.at)


@pytest.mark.parametrize("cipher_mac", [("3des", "ecb"), ("3des", "x9.19"), ("sm4", "ecb")])
async def test_every_cipher_and_mac_works_end_to_end(
    cipher_mac: tuple[str, str], cards: Cards
) -> None:
    cipher, mac = cipher_mac
    async with card_host(cipher, mac) as host:
        host.react = replies()
        answer = await cards.pay(account(host.url, cipher=cipher, mac=mac), order())
        assert isinstance(answer.outcome, Succeeded)
        assert host.sees_good_macs


async def test_the_hosts_time_is_believed_where_it_is_near(host: CardHost, cards: Cards) -> None:
    now = real_now()
    here = now.astimezone(trace_zone())
    host.react = replies(f12=f"{here:%H%M%S}".encode(), f13=f"{here:%m%d}".encode())
    outcome = (await cards.pay(account(host.url), order())).outcome
    assert isinstance(outcome, Succeeded)
    assert abs(outcome.at - now) < timedelta(seconds=2)
    assert outcome.at.tzinfo == UTC


@pytest.mark.parametrize("said", [{"f12": b"996060"}, {"f13": b"0230"}, {"f12": b"", "f13": b""}])
async def test_a_time_that_is_none_leaves_ours(
    said: dict[str, bytes], host: CardHost, cards: Cards
) -> None:
    host.react = replies(**said)
    ours = order()
    outcome = (await cards.pay(account(host.url), ours)).outcome
    assert isinstance(outcome, Succeeded)
    assert outcome.at == trace_of(ours.number).at


def trace_zone() -> Any:
    from tongbao.kernel.clock import BUSINESS_ZONE

    return BUSINESS_ZONE


@pytest.mark.parametrize(
    ("code", "expected"),
    [("00", Succeeded), ("11", Succeeded), ("51", Declined), ("14", Declined), ("55", Declined)]
    + [(code, Unknown) for code in ("06", "09", "10", "68", "91", "94", "96", "98", "A0", "ZZ")],
)
async def test_a_response_code_means(
    code: str, expected: type, host: CardHost, cards: Cards
) -> None:
    host.react = replies(code)
    assert isinstance((await cards.pay(account(host.url), order())).outcome, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"f4": b"000000002000"},
        {"f4": b""},
        {"f49": b"840"},
        {"f49": b""},
        {"f3": b"200000"},
        {"f7": b"0101000000"},
        {"f25": b"06"},
        {"f32": b"99999999"},
        {"f2": b"6251880000000000"},
    ],
)
async def test_an_answer_that_contradicts_what_was_asked_proves_nothing(
    changes: dict[str, bytes], host: CardHost, cards: Cards
) -> None:
    host.react = replies(**changes)
    outcome = (await cards.pay(account(host.url), order())).outcome
    assert isinstance(outcome, Unknown)
    assert "contradiction" in outcome.reason
    assert PAN not in outcome.reason


async def test_a_refusal_that_contradicts_what_was_asked_proves_nothing(
    host: CardHost, cards: Cards
) -> None:
    host.react = replies("51", f4=b"000000000001")
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Unknown)


@pytest.mark.parametrize(
    "changes", [{"f37": b"ANOTHERTRACE"}, {"f11": b"999999"}, {"f41": b"x" * 8}]
)
async def test_an_answer_to_another_question_is_none(
    changes: dict[str, bytes], host: CardHost
) -> None:
    cards = Cards(QUICK)
    host.react = replies(**changes)
    assert (await cards.pay(account(host.url), order())).outcome == Unknown("no answer in time")
    await cards.shut()


@pytest.mark.parametrize("mti", ["0430", "0200", "0230", "0110"])
async def test_an_answer_of_another_type_is_none(mti: str, host: CardHost) -> None:
    cards = Cards(QUICK)
    host.react = lambda connection, _mti, fields: connection.send(mti, answer_to(fields))
    assert (await cards.pay(account(host.url), order())).outcome == Unknown("no answer in time")
    await cards.shut()


async def test_an_answer_with_a_bad_mac_is_unknown_and_the_next_call_signs_in_anew(
    host: CardHost, cards: Cards
) -> None:
    host.react = lambda connection, _mti, fields: connection.send(
        "0210", answer_to(fields), key=bytes(16)
    )
    outcome = (await cards.pay(account(host.url), order())).outcome
    assert outcome == Unknown("the answer's MAC is wrong")

    host.react = replies()
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Succeeded)
    assert len(host.connections) == 2


async def test_a_refusal_with_a_bad_mac_is_no_refusal(host: CardHost, cards: Cards) -> None:
    host.react = lambda connection, _mti, fields: connection.send(
        "0210", answer_to(fields, "51"), key=bytes(16)
    )
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Unknown)


async def test_an_answer_without_a_mac_is_unknown(host: CardHost, cards: Cards) -> None:
    from tongbao_sandbox.cards_message import compose, framed

    host.react = lambda connection, _mti, fields: connection.raw(
        framed(compose("0210", answer_to(fields)), to="48021000", sender="00010000")
    )
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Unknown)


@pytest.mark.parametrize(
    "changes",
    [
        {"card": None},
        {"card": card("x" * 16)},
        {"card": card(expiry="12/49")},
        {"card": card(track2="1" * 38)},
        {"card": card(pin_block=bytes(16))},
        {"card": card(chip=bytes(256))},
        {"card": card(terminal="123456789")},
        {"card": card(merchant="898110000000002")},
        {"money": Money(1, "USD")},
        {"money": Money(0, "CNY")},
        {"money": Money(10**12, "CNY")},
        {"number": "ORDER-1"},
        {"captures": False},
    ],
)
async def test_what_cannot_be_written_is_never_sent(
    changes: dict[str, Any], host: CardHost, cards: Cards
) -> None:
    answer = await cards.pay(account(host.url), order(**changes))
    assert isinstance(answer.outcome, NotSent)
    assert host.heard.empty()
    assert PAN not in msgspec.json.encode(answer.exchange).decode()


@given(
    code=st.sampled_from(["00", "11", "16", "10", "51", "96", "ZZ"]),
    changes=st.dictionaries(
        st.sampled_from([2, 3, 4, 7, 12, 13, 25, 32, 33, 38, 49, 90]),
        st.text("0123456789", max_size=42),
        max_size=3,
    ),
    dropped=st.sets(st.sampled_from([2, 3, 4, 7, 12, 13, 25, 38, 49])),
)
def test_success_is_only_what_says_all_of_it(
    code: str, changes: dict[int, str], dropped: set[int]
) -> None:
    ours = order()
    trace = trace_of(ours.number)
    asked = request(account("tcp://h:1"), PURCHASE, trace, ours.money, card=ours.card)
    fields = {**asked.fields, 38: "123456", 39: code, **changes}
    answer = Message("0210", {at: fields[at] for at in fields if at not in dropped})

    outcome = taken(asked, answer, trace, ours.money)
    if isinstance(outcome, Succeeded):
        assert code in {"00", "11", "16"}
        assert answer.text(4) == "000000001999"
        assert answer.text(49) == "156"
        assert all(answer.text(at) in {"", asked.text(at)} for at in (2, 3, 7, 25, 32, 33, 90))
    elif isinstance(outcome, Declined):
        assert code == "51"
        assert answer.text(4) in {"", "000000001999"}


# Silence, and what comes instead ------------------------------------------------------------------


async def test_nobody_listening_means_not_sent(cards: Cards) -> None:
    answer = await cards.pay(account("tcp://127.0.0.1:1"), order())
    assert isinstance(answer.outcome, NotSent)
    assert answer.exchange.status is None


@pytest.mark.parametrize("gateway", ["http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://"])
async def test_a_gateway_that_is_none_means_not_sent(gateway: str, cards: Cards) -> None:
    assert isinstance((await cards.pay(account(gateway), order())).outcome, NotSent)


async def test_silence_after_the_first_byte_is_unknown(host: CardHost) -> None:
    cards = Cards(QUICK)
    answer = await cards.pay(account(host.url), order())
    assert answer.outcome == Unknown("no answer in time")
    await cards.shut()


@pytest.mark.parametrize(
    "wire",
    [b"\x00", b"\x00\x40" + bytes(64), b"\xff\xff", b"HTTP/1.1 502 Bad Gateway\r\n\r\n" * 30],
)
async def test_bytes_that_are_no_message_are_unknown(wire: bytes, host: CardHost) -> None:
    cards = Cards(QUICK)
    host.react = lambda connection, _mti, _fields: connection.raw(wire)
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Unknown)
    await cards.shut()


async def test_a_reset_in_the_middle_of_an_answer_is_unknown(host: CardHost, cards: Cards) -> None:
    paying = asyncio.create_task(cards.pay(account(host.url), order()))
    connection, _, fields = await host.next()
    whole = connection.wire("0210", answer_to(fields))
    connection.raw(whole[: len(whole) // 2])
    await asyncio.sleep(0.05)
    connection.cut()

    assert isinstance((await paying).outcome, Unknown)


async def test_a_closed_connection_is_opened_again(host: CardHost, cards: Cards) -> None:
    host.react = replies()
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Succeeded)
    host.connections[0].writer.close()
    await asyncio.sleep(0.05)

    assert isinstance((await cards.pay(account(host.url), order())).outcome, Succeeded)
    assert len(host.connections) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: {**answer, 39: b"97"},
        lambda answer: {**answer, 62: answer[62][:-1] + b"\0"},
        lambda answer: {**answer, 62: b""},
        lambda answer: {**answer, 11: b"777777"},
        lambda answer: {**answer, 41: b"20000002"},
        lambda answer: {at: value for at, value in answer.items() if at != 62},
    ],
)
async def test_no_transaction_goes_over_a_line_that_did_not_sign_in(
    spoil: Any, host: CardHost, cards: Cards
) -> None:
    host.sign_in_answer = spoil
    answer = await cards.pay(account(host.url), order())
    assert isinstance(answer.outcome, NotSent)
    assert host.heard.empty()


async def test_a_sign_in_that_is_not_answered_means_not_sent() -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    cards = Cards(LineLimits(sign_in_s=0.3))
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert isinstance((await cards.pay(account(url), order())).outcome, NotSent)
    await cards.shut()
    server.close()


async def test_many_who_wait_for_a_host_that_never_answers_are_all_told(host: CardHost) -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    cards = Cards(LineLimits(connect_s=0.2, sign_in_s=0.3))
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    answers = await asyncio.gather(*(cards.pay(account(url), order()) for _ in range(6)))
    reasons = [one.outcome.reason for one in answers if isinstance(one.outcome, NotSent)]
    assert len(reasons) == 6
    assert "no connection in time" in reasons, "nobody waits for everybody before him"
    await cards.shut()
    server.close()


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a card host")])
    now = real_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "host.pem"
    encoding = serialization.Encoding.PEM
    pem.write_bytes(
        certificate.public_bytes(encoding)
        + key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, pem


async def test_tls_is_spoken_with_a_host_whose_certificate_is_known(
    certified: tuple[ssl.SSLContext, Path], cards: Cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, pem = certified
    async with card_host(tls=context) as host:
        host.react = replies()
        stranger = await cards.pay(account(host.url), order())
        assert isinstance(stranger.outcome, NotSent)
        assert not host.connections

        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert isinstance((await cards.pay(account(host.url), order())).outcome, Succeeded)


async def test_no_card_goes_in_the_clear_to_a_host_that_should_speak_tls(
    host: CardHost, cards: Cards
) -> None:
    url = host.url.replace("tcp://", "tcps://")
    assert isinstance((await cards.pay(account(url), order())).outcome, NotSent)
    assert host.heard.empty()


async def test_replaced_keys_sign_in_anew(host: CardHost, cards: Cards) -> None:
    host.react = replies()
    await cards.pay(account(host.url), order())
    await cards.pay(account(host.url, category="5411"), order())
    assert len(host.connections) == 2


# Two at a time on one connection, in every order --------------------------------------------------


@pytest.mark.parametrize("turn", ["straight", "crossed"])
async def test_two_on_one_connection_each_get_their_own_answer(
    turn: str, host: CardHost, cards: Cards
) -> None:
    rich, poor = order(100), order(200)
    first = asyncio.create_task(cards.pay(account(host.url), rich))
    connection, _, asked_first = await host.next()
    second = asyncio.create_task(cards.pay(account(host.url), poor))
    again, _, asked_second = await host.next()
    assert again is connection
    answers = [answer_to(asked_first), answer_to(asked_second, "51")]
    for answer in answers if turn == "straight" else reversed(answers):
        connection.send("0210", answer)
        await asyncio.sleep(0.01)

    assert isinstance((await first).outcome, Succeeded)
    assert isinstance((await second).outcome, Declined)


async def test_an_answer_cut_into_bytes_between_two_others_arrives(
    host: CardHost, cards: Cards
) -> None:
    paying = [asyncio.create_task(cards.pay(account(host.url), order())) for _ in range(3)]
    heard = [await host.next() for _ in paying]
    connection = heard[0][0]
    wire = b"".join(connection.wire("0210", answer_to(fields)) for _, _, fields in heard[::-1])
    for at in range(0, len(wire), 7):
        connection.raw(wire[at : at + 7])
        await asyncio.sleep(0)
    outcomes = [(await one).outcome for one in paying]
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)


async def test_a_lost_answer_does_not_hold_up_the_other(host: CardHost) -> None:
    cards = Cards(LineLimits(answer_s=2.0))
    silent = asyncio.create_task(cards.pay(account(host.url), order()))
    await host.next()
    answered = asyncio.create_task(cards.pay(account(host.url), order()))
    connection, _, fields = await host.next()
    connection.send("0210", answer_to(fields))

    assert isinstance((await answered).outcome, Succeeded)
    assert isinstance((await silent).outcome, Unknown)
    await cards.shut()


async def test_a_late_and_a_doubled_answer_disturb_nobody(host: CardHost) -> None:
    cards = Cards(LineLimits(answer_s=2.0))
    late = order()
    assert isinstance((await cards.pay(account(host.url), late)).outcome, Unknown)
    connection, _, fields_late = await host.next()
    paying = asyncio.create_task(cards.pay(account(host.url), order()))
    _, _, fields = await host.next()
    connection.send("0210", answer_to(fields_late))
    connection.send("0210", answer_to(fields, "51"))
    connection.send("0210", answer_to(fields, "51"))
    assert isinstance((await paying).outcome, Declined)

    host.react = replies()
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Succeeded)
    assert len(host.connections) == 1
    await cards.shut()


async def test_both_are_unknown_when_their_connection_breaks(host: CardHost, cards: Cards) -> None:
    paying = [asyncio.create_task(cards.pay(account(host.url), order())) for _ in range(2)]
    connection, _, _ = await host.next()
    await host.next()
    connection.cut()
    outcomes = [(await one).outcome for one in paying]
    assert all(isinstance(outcome, Unknown) for outcome in outcomes)


async def test_no_more_wait_on_a_connection_than_it_may_hold(host: CardHost) -> None:
    cards = Cards(LineLimits(answer_s=2.0, outstanding_max=2, lines_max=2))
    paying = [asyncio.create_task(cards.pay(account(host.url), order())) for _ in range(5)]
    heard = [await host.next() for _ in range(4)]
    per_connection = [sum(one is each for one, _, _ in heard) for each in host.connections]
    assert per_connection == [2, 2]

    outcomes = [(await one).outcome for one in paying]
    assert sum(isinstance(outcome, Unknown) for outcome in outcomes) >= 4
    assert all(isinstance(outcome, Unknown | NotSent) for outcome in outcomes)
    await cards.shut()


async def test_the_same_order_twice_at_once_is_sent_once(host: CardHost, cards: Cards) -> None:
    ours = order()
    first = asyncio.create_task(cards.pay(account(host.url), ours))
    connection, _, fields = await host.next()
    second = await cards.pay(account(host.url), ours)
    assert isinstance(second.outcome, Unknown), "its twin may take the money"
    assert host.heard.empty()
    connection.send("0210", answer_to(fields))
    assert isinstance((await first).outcome, Succeeded)


# Undoing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [("00", Closed), ("25", Absent), ("12", Unknown), ("96", Unknown), ("51", Unknown)],
)
async def test_an_answer_to_a_reversal_means(
    code: str, expected: type, host: CardHost, cards: Cards
) -> None:
    host.react = replies(code)
    closed = await cards.close(account(host.url), order(card=None))
    assert isinstance(closed.outcome, expected)


async def test_a_reversal_that_is_not_answered_is_unknown(host: CardHost) -> None:
    cards = Cards(QUICK)
    assert isinstance((await cards.close(account(host.url), order())).outcome, Unknown)
    assert isinstance(
        (await cards.close(account("tcp://127.0.0.1:1"), order())).outcome, Unknown
    ), "an unsent reversal undoes nothing"
    await cards.shut()


async def test_a_repeated_reversal_is_the_same_message(host: CardHost, cards: Cards) -> None:
    ours = order(card=None)
    seen: list[Fields] = []
    host.react = lambda connection, mti, fields: (
        seen.append({at: value for at, value in fields.items() if at != 128}),
        connection.send("0410", answer_to(fields)),
    )
    for _ in range(2):
        await cards.close(account(host.url), ours)
    assert seen[0] == seen[1]
    assert 2 not in seen[0], "nothing of the card has to be kept to reverse"


async def test_nobody_can_be_asked_about_an_order(host: CardHost, cards: Cards) -> None:
    answer = await cards.query(account(host.url), order())
    assert isinstance(answer.outcome, Unknown)
    held = await cards.query_authorisation(account(host.url), order(captures=False))
    assert isinstance(held.outcome, Unknown)
    assert not host.connections


async def test_a_refund_is_an_advice_about_its_payment(host: CardHost, cards: Cards) -> None:
    paid = order()
    refund = refund_order(paid)
    asking = asyncio.create_task(cards.refund(account(host.url), refund))
    connection, mti, fields = await host.next()
    trace = trace_of(paid.number)
    assert (mti, fields[3], fields[4]) == ("0220", b"200000", b"000000000500")
    assert fields[90].decode()[:20] == f"0200{trace.number}{trace.time}"
    connection.send("0230", answer_to(fields))
    assert isinstance((await asking).outcome, Succeeded)


@pytest.mark.parametrize(
    ("code", "expected"), [("00", Succeeded), ("25", Declined), ("96", Unknown)]
)
async def test_asking_about_a_refund_repeats_it(
    code: str, expected: type, host: CardHost, cards: Cards
) -> None:
    host.react = replies(code)
    refund = refund_order(order())
    assert isinstance((await cards.query_refund(account(host.url), refund)).outcome, expected)
    gone = await cards.query_refund(account("tcp://127.0.0.1:1"), refund)
    assert isinstance(gone.outcome, Unknown)


async def test_an_authorisation_names_its_code_and_a_capture_repeats_it(
    host: CardHost, cards: Cards
) -> None:
    assert isinstance(cards, Authorising)
    ours = order(captures=False)
    host.react = replies()
    held = (await cards.authorise(account(host.url), ours)).outcome
    assert isinstance(held, Authorised)
    assert held.code == "123456"

    host.react = None
    capture = Capture(base32(new_id()), ours, held.channel_ref, held.code, Money(999, "CNY"))
    asking = asyncio.create_task(cards.capture(account(host.url), capture))
    connection, mti, fields = await host.next()
    assert (mti, fields[3], fields[25], fields[38]) == ("0220", b"000000", b"06", b"123456")
    assert fields[90].startswith(b"0100")
    connection.send("0230", answer_to(fields))
    assert isinstance((await asking).outcome, Succeeded)

    host.react = replies("96")
    assert isinstance((await cards.query_capture(account(host.url), capture)).outcome, Unknown)


async def test_an_approval_without_its_code_cannot_be_captured_so_it_is_unknown(
    host: CardHost, cards: Cards
) -> None:
    host.react = replies(f38=b"")
    held = await cards.authorise(account(host.url), order(captures=False))
    assert isinstance(held.outcome, Unknown)


@pytest.mark.parametrize(
    ("captures", "asked"), [(False, ("0100", b"06", b"0100")), (True, ("0200", b"00", b"0200"))]
)
async def test_a_void_cancels_what_there_is(
    captures: bool, asked: tuple[str, bytes, bytes], host: CardHost, cards: Cards
) -> None:
    ours = order(captures=captures)
    voiding = Voiding(base32(new_id()), ours, "R", "123456", ours.money)
    asking = asyncio.create_task(cards.void(account(host.url), voiding))
    connection, mti, fields = await host.next()
    assert (mti, fields[25], fields[90][:4]) == asked
    assert fields[3] == b"200000"
    connection.send(f"{int(mti) + 10:04d}", answer_to(fields))
    assert (await asking).outcome == Closed("00")


async def test_a_balance_is_told_in_minor_units(host: CardHost, cards: Cards) -> None:
    host.react = replies(f54=b"3002156C000004810938", f4=b"", f49=b"")
    told = await cards.balance(account(host.url), base32(new_id()), card())
    assert told.outcome == BalanceKnown((CardBalance("30", "02", "156", 4_810_938),))
    assert "4810938" not in told.exchange.reply


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ("0020000000020000010000000005001", TotalsAgree),
        ("0020000000020010010000000005001", TotalsDiffer),
        ("0020000000020000010000000005002", TotalsDiffer),
        ("0020000000020000010000000005003", Unknown),
        ("0020000000020000010000000005009", Unknown),
        ("002", Unknown),
        ("", Unknown),
    ],
)
async def test_totals_agree_only_when_both_say_so(
    figures: str, expected: type, host: CardHost, cards: Cards
) -> None:
    ours = Totals(2, 2000, 1, 500)
    host.react = replies(f48=figures.encode()) if figures else replies()
    told = await cards.compare_totals(account(host.url), base32(new_id()), ours)
    assert isinstance(told.outcome, expected)


async def test_totals_that_do_not_fit_are_not_sent(host: CardHost, cards: Cards) -> None:
    told = await cards.compare_totals(account(host.url), base32(new_id()), Totals(1000, 1, 0, 0))
    assert isinstance(told.outcome, NotSent)


# The rest of the contract -------------------------------------------------------------------------


async def test_what_cards_do_not_have_says_so(cards: Cards, tmp_path: Path) -> None:
    channel: Channel = cards
    ours = account("tcp://127.0.0.1:1")
    with pytest.raises(CallbackForged):
        channel.read_callback(ours, {}, b"x", datetime(2026, 1, 1, tzinfo=UTC))
    await channel.refresh_keys(ours)
    assert channel.reply_to_callback(accepted=True).status == 404
    bill = await channel.download_bill(ours, real_now().date(), tmp_path)
    assert isinstance(bill.outcome, BillNotReady)
    assert list(channel.parse_bill(tmp_path)) == []


async def test_a_code_nobody_mapped_is_counted(host: CardHost, cards: Cards) -> None:
    before = UNMAPPED.labels("cards", "pay")._value.get()
    host.react = replies("Q9")
    assert isinstance((await cards.pay(account(host.url), order())).outcome, Unknown)
    assert UNMAPPED.labels("cards", "pay")._value.get() == before + 1


def test_every_code_has_advice_in_both_languages_and_claims_no_more_than_it_can() -> None:
    for entry in error_map("cards").entries:
        assert entry.meaning in {"declined", "unknown", "absent"}
        assert entry.meaning != "declined" or entry.on == {"pay", "refund"}
        assert entry.meaning != "absent" or entry.on == {"close"}
        assert entry.en.strip()
        assert any("一" <= letter <= "鿿" for letter in entry.zh)


async def test_nothing_of_a_card_is_in_the_evidence_the_errors_or_the_log(
    host: CardHost, cards: Cards, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    """Even where the far end repeats all of it in fields of its own."""
    caplog.set_level(logging.DEBUG)
    echo = f"{PAN} {TRACK2} {PIN_BLOCK.hex()}".encode()
    ours = order(card=card(pin_block=PIN_BLOCK))
    kept: list[str] = []
    for code in ("00", "51", "96"):
        host.react = replies(
            code,
            f63=echo,
            f44=PAN.encode(),
            f60=PAN.encode(),
            f35=TRACK2.encode(),
            f2=PAN.encode(),
            f90=(PAN + PAN + "0" * 10).encode(),
        )
        for answer in (
            await cards.pay(account(host.url), ours),
            await cards.close(account(host.url), ours),
            await cards.close(account(host.url), msgspec.structs.replace(ours, card=None)),
            await cards.authorise(account(host.url), order(captures=False)),
            await cards.balance(account(host.url), base32(new_id()), ours.card or card()),
        ):
            kept += [msgspec.json.encode(answer.exchange).decode(), repr(answer)]
    host.react = lambda connection, _mti, fields: connection.send(
        "0210", answer_to(fields), key=bytes(16)
    )
    kept.append(repr(await cards.pay(account(host.url), ours)))
    kept += [caplog.text, *capsys.readouterr()]

    for secret in (PAN, TRACK2, TRACK2[17:], PIN_BLOCK.hex(), CHIP.hex(), MASTER_KEY):
        assert not any(secret.lower() in text.lower() for text in kept)
    assert any("625188******1688" in text for text in kept)
    assert MAC_KEY.hex() not in "".join(kept).lower()


def test_the_hosts_own_parser_reads_what_we_write() -> None:
    ours = order()
    message = request(
        account("tcp://h:1"), PURCHASE, trace_of(ours.number), ours.money, card=ours.card
    )
    mti, fields = parse(encode(message, CUPS))
    assert mti == "0200"
    assert fields == {
        at: value if isinstance(value, bytes) else value.encode()
        for at, value in message.fields.items()
    }


def test_a_call_ends_before_its_reversal_begins() -> None:
    """Otherwise the chase would undo what its customer is still being asked to pay."""
    limits = LineLimits()
    longest_s = limits.answer_s + limits.connect_s + limits.sign_in_s + limits.answer_s
    assert timedelta(seconds=longest_s) < CODE_WINDOW


def test_the_account_file_of_the_page_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "explanation" / "cards.md"
    file = tmp_path / "cards.toml"
    file.write_text(page.read_text("utf-8").split("```toml\n")[1].split("```")[0], "utf-8")
    found = read_account(file)
    assert isinstance(msgspec.convert(dict(found.keys), CardSecrets), CardSecrets)
