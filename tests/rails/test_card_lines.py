"""A line to a card host: silence, breaks, TLS, and two orders at a time in every order.

The scripted host speaks with the sandbox's code, so either side's mistakes show at the other.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.rails import card_host as hosting
from tests.rails.card_host import QUICK, CardHost, account, answer_to, card_host, order, replies
from tongbao.kernel.clock import real_now
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.contract.outcomes import Declined, NotSent, Succeeded, Unknown

cards = hosting.cards
host = hosting.host


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


# Two at a time on one connection, in every order


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


async def test_what_the_host_begins_by_itself_disturbs_nobody(host: CardHost, cards: Cards) -> None:
    """A test of the line, or a change of keys it wants: heard, and left to people to agree on."""
    paying = asyncio.create_task(cards.pay(account(host.url), order()))
    connection, _, fields = await host.next()
    connection.send("0800", {7: b"1123120000", 11: b"000001", 41: fields[41], 42: fields[42]})
    connection.send("0210", answer_to(fields))

    assert isinstance((await paying).outcome, Succeeded)
    assert len(host.connections) == 1


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
