"""Cards: the bytes on the wire and what each answer means.

The scripted host speaks with the sandbox's code, so either side's mistakes show at the other.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rails import card_host as hosting
from tests.rails.card_host import (
    CHIP,
    MAC_KEY,
    MASTER_KEY,
    PAN,
    PIN_BLOCK,
    QUICK,
    TRACK2,
    CardHost,
    account,
    answer_to,
    card,
    card_host,
    order,
    refund_order,
    replies,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.codecs.iso8583 import Message, encode
from tongbao.kernel.codecs.iso8583_dialects import CUPS
from tongbao.kernel.codecs.iso8583_parts import CardBalance
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.payments.collecting.chase import CODE_WINDOW
from tongbao.rails.channels.capabilities.authorisations import Authorising, Capture, Voiding
from tongbao.rails.channels.cards.answers import BalanceKnown, taken
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.cards.messages import PURCHASE, request, trace_of
from tongbao.rails.channels.cards.secrets import CardSecrets
from tongbao.rails.channels.contract.bills import BatchTotals as Totals
from tongbao.rails.channels.contract.bills import BillNotReady, TotalsAgree, TotalsDiffer
from tongbao.rails.channels.contract.callbacks import CallbackForged
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import UNMAPPED, error_map
from tongbao.surfaces.cli.channels import read_account
from tongbao_sandbox.cards_message import Fields, parse

cards = hosting.cards
host = hosting.host


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


# Undoing


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


@pytest.mark.parametrize(("of_capture", "original"), [(False, "0200"), (True, "0220")])
async def test_a_refund_is_an_advice_about_its_payment_or_capture(
    of_capture: bool, original: str, host: CardHost, cards: Cards
) -> None:
    paid = order()
    refund = refund_order(paid, of_capture=of_capture)
    asking = asyncio.create_task(cards.refund(account(host.url), refund))
    connection, mti, fields = await host.next()
    trace = trace_of(paid.number)
    assert (mti, fields[3], fields[4]) == ("0220", b"200000", b"000000000500")
    assert fields[90].decode()[:20] == f"{original}{trace.number}{trace.time}"
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


@pytest.mark.parametrize(
    ("code", "expected"),
    [("00", Closed), ("25", Declined), *((code, Unknown) for code in ("94", "96", "ZZ"))],
)
async def test_an_answer_to_a_cancellation_means(
    code: str, expected: type, host: CardHost, cards: Cards
) -> None:
    """Seen before (94) is no word about what became of it."""
    host.react = replies(code)
    ours = order(captures=False)
    voiding = Voiding(base32(new_id()), ours, "R", "123456", ours.money)
    answered = await cards.void(account(host.url), voiding)
    gone = await cards.void(account("tcp://127.0.0.1:1"), voiding)
    assert isinstance(answered.outcome, expected)
    assert isinstance(gone.outcome, NotSent)


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


# The rest of the contract


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
