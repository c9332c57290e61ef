"""The socket between processes: private, many callers over one connection, nobody left waiting.

The desk behind the listener is each test's own function; real posters are in test_route.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import pytest

from tests.ledger.making import ALICE, BANK, NOTE, single
from tongbao.infra.db import PROGRAM, Statement, Write
from tongbao.kernel.clock import monotonic
from tongbao.ledger.decision.records import batch_of
from tongbao.ledger.model import (
    BookElsewhere,
    BookMissing,
    Group,
    LedgerOverloaded,
    LedgerUnanswered,
    Result,
)
from tongbao.ledger.wire import client as client_module
from tongbao.ledger.wire import server as server_module
from tongbao.ledger.wire.client import Asked, Gone, Lines, NotDelivered, PosterFailed, Unanswered
from tongbao.ledger.wire.codec import (
    HEADER,
    VersionsDiffer,
    ask_frame,
)
from tongbao.ledger.wire.server import SocketFolderUnfit, listen

CREATED = Result("created", seq=1)


def asked(name=b"", *writes, transfers=0):
    """One group of this name."""
    one = UUID(bytes=name.rjust(16))
    lines = tuple(single(1, BANK, ALICE) for _ in range(transfers))
    return Asked((Group(one, 1, lines, writes),), {BANK: 1, ALICE: 2}, {"test/leg": 1})


def names_of(question):
    return [one.tobytes().strip() for one in question.batch.ids]


@asynccontextmanager
async def between(folder, desk):
    """A listener with this desk and a client of it."""
    listener = await listen(folder / "posters", desk)
    lines = Lines()

    async def ask(name=b"", *writes, transfers=0, within_s=30):
        what = asked(name, *writes, transfers=transfers)
        return await lines.ask(listener.address, 1, what, deadline=monotonic() + within_s)

    try:
        yield listener, lines, ask
    finally:
        await lines.close()
        await listener.close()


async def test_answers_come_as_they_are_ready_and_each_to_its_caller(tmp_path):
    door, slow_is_there = asyncio.Event(), asyncio.Event()

    async def desk(question):
        assert (question.book, 0 < question.left_s <= 30) == (1, True)
        if b"slow" in names_of(question):
            slow_is_there.set()
            await door.wait()
        return [Result("refused", name.decode(), None) for name in names_of(question)]

    async with between(tmp_path, desk) as (_, _, ask):
        slow = asyncio.create_task(ask(b"slow"))
        await slow_is_there.wait()
        quick = await asyncio.gather(ask(b"quick"), ask(b"brown"))
        assert [[each.code for each in answer] for answer in quick] == [["quick"], ["brown"]]
        assert not slow.done()
        door.set()
        assert (await slow)[0].code == "slow"


async def test_a_thousand_callers_share_few_frames(tmp_path, monkeypatch):
    frames = []
    sending = client_module.ask_frame

    def counted(*args, counts, **more):
        frames.append(len(counts))
        return sending(*args, counts=counts, **more)

    monkeypatch.setattr(client_module, "ask_frame", counted)

    async def desk(question):
        return [Result("created", seq=int(name)) for name in names_of(question)]

    async with between(tmp_path, desk) as (_, _, ask):
        answers = await asyncio.gather(*(ask(b"%d" % n) for n in range(1000)))
    assert [answer.seq for [answer] in answers] == list(range(1000))
    assert len(frames) <= 10
    assert sum(frames) == 1000


async def test_companions_arrive_as_statements_of_this_program(tmp_path):
    seen = []

    async def desk(question):
        seen.extend(question.writes)
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, _, ask):
        write = Write(NOTE, (b"id", "text"), "test.refused")
        await ask(b"", write)
    assert seen == [[write]]


async def test_a_statement_of_another_version_is_refused_by_name(tmp_path):
    theirs = Statement("update note set text = text || 'only in the other version'")
    del PROGRAM[theirs.digest]

    async def desk(question):
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, _, ask):
        refused, others = await asyncio.gather(
            ask(b"", Write(theirs, ())), ask(b"", Write(NOTE, (1, ""))), return_exceptions=True
        )
    assert isinstance(refused, VersionsDiffer)
    assert refused.facts == {"statement": theirs.digest.hex()[:16]}
    assert others == [CREATED]


async def test_what_cannot_travel_fails_its_caller_and_no_other(tmp_path):
    async def desk(question):
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, lines, ask):
        unnamed = Asked((Group(UUID(int=1), 1, (single(1, BANK, ALICE),)),), {BANK: 1}, {})
        address = next(iter(lines._lines), None) or ((await ask()) and next(iter(lines._lines)))
        failures = await asyncio.gather(
            ask(b"", Write(NOTE, (object(),))),
            lines.ask(address, 1, unnamed, deadline=monotonic() + 30),
            ask(),
            return_exceptions=True,
        )
    assert [type(each) for each in failures] == [TypeError, KeyError, list]


async def test_what_one_group_met_reaches_its_caller_alone(tmp_path):
    met = {b"missing": BookMissing(book=7), b"bug": ZeroDivisionError()}

    async def desk(question):
        return [met.get(name, CREATED) for name in names_of(question)]

    async with between(tmp_path, desk) as (_, _, ask):
        names = [b"fine", b"missing", b"bug", b"fine"]
        answers = await asyncio.gather(*map(ask, names), return_exceptions=True)
    assert answers[0] == answers[3] == [CREATED]
    assert isinstance(answers[1], BookMissing)
    assert answers[1].facts == {"book": 7}
    assert isinstance(answers[2], PosterFailed)


@pytest.mark.parametrize(
    ("met", "told"), [(BookMissing(book=7), BookMissing), (ZeroDivisionError(), PosterFailed)]
)
async def test_what_the_poster_met_reaches_everybody(tmp_path, met, told):
    async def desk(_question):
        raise met

    async with between(tmp_path, desk) as (_, _, ask):
        answers = await asyncio.gather(ask(b"a"), ask(b"b"), return_exceptions=True)
    assert [type(each) for each in answers] == [told, told]


async def test_who_has_more_time_than_others_is_asked_for_apart(tmp_path):
    async def desk(question):
        if question.left_s < 5:
            raise LedgerOverloaded
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, _, ask):
        hurried, patient = await asyncio.gather(
            ask(b"a", within_s=4), ask(b"b", within_s=30), return_exceptions=True
        )
    assert isinstance(hurried, LedgerOverloaded)
    assert patient == [CREATED]


async def test_a_full_queue_is_refused_and_the_queue_goes_on(tmp_path):
    door = asyncio.Event()

    async def desk(question):
        await door.wait()
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, _, ask):
        waiting = [asyncio.create_task(ask(transfers=4000)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(LedgerOverloaded):
            await ask(transfers=1)
        door.set()
        assert await asyncio.gather(*waiting) == [[CREATED]] * 5


async def test_what_was_not_sent_when_its_time_is_over_was_certainly_not_decided(tmp_path):
    door, seen = asyncio.Event(), []

    async def desk(question):
        seen.extend(names_of(question))
        await door.wait()
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, _, ask):
        sent = []
        for name in (b"a", b"b"):  # two frames are on their way
            sent.append(asyncio.create_task(ask(name)))
            while name not in seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(LedgerOverloaded):
            await ask(b"c", within_s=0.05)
        door.set()
        await asyncio.gather(*sent)
        await ask(b"d")
    assert seen == [b"a", b"b", b"d"]


async def test_nobody_waits_for_a_poster_that_went_away(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "_GRACE_S", 0.05)
    there = asyncio.Event()

    async def desk(_question):
        there.set()
        await asyncio.Event().wait()

    async with between(tmp_path, desk) as (listener, lines, ask):
        waiting = asyncio.create_task(ask())
        await there.wait()
        await listener.close()
        with pytest.raises(Unanswered):
            await waiting
        with pytest.raises(Gone):
            await ask()
        with pytest.raises(Gone):
            await lines.probe(listener.address)


async def test_a_poster_that_ends_answers_what_it_was_asked_and_nothing_more(tmp_path):
    there, door = asyncio.Event(), asyncio.Event()

    async def desk(question):
        there.set()
        await door.wait()
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (listener, _, ask):
        waiting = asyncio.create_task(ask())
        await there.wait()
        closing = asyncio.create_task(listener.close())
        await asyncio.sleep(0.01)
        with pytest.raises(BookElsewhere):
            await ask()
        door.set()
        assert await waiting == [CREATED]
        await closing
        with pytest.raises((Gone, Unanswered)):  # it may not have heard yet
            await ask()


async def test_a_poster_that_is_stopped_is_found_out_and_a_slow_one_is_waited_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(client_module, "_SILENT_BEATS_MAX", 8)
    monkeypatch.setattr(client_module, "_BEAT_S", 0.05)
    door = asyncio.Event()

    async def desk(question):
        await door.wait()
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, _, ask):
        slow = asyncio.create_task(ask())
        await asyncio.sleep(0.8)  # twice as long: it answers every sign of life
        door.set()
        assert await slow == [CREATED]

    with socket.socket(socket.AF_UNIX) as stopped:  # a backlog that takes and nobody who reads
        path = str(tmp_path / "stopped.sock")
        stopped.bind(path)
        stopped.listen()
        lines = Lines()
        with pytest.raises(Unanswered):
            await lines.ask(path, 1, asked(), deadline=monotonic() + 30)
        with pytest.raises(Unanswered):
            await lines.probe(path)
        await lines.close()


async def test_an_answer_that_never_comes_is_said_to_be_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "_GRACE_S", 0.1)
    monkeypatch.setattr(server_module, "_GRACE_S", 0.1)

    async def desk(question):
        await asyncio.Event().wait()

    async with between(tmp_path, desk) as (_, _, ask):
        with pytest.raises(LedgerUnanswered):
            await ask(within_s=0.01)


async def test_a_caller_that_gives_up_leaves_the_others_alone(tmp_path):
    door = asyncio.Event()

    async def desk(question):
        await door.wait()
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (_, _, ask):
        impatient, patient = asyncio.create_task(ask()), asyncio.create_task(ask())
        await asyncio.sleep(0.05)
        impatient.cancel()
        door.set()
        assert await patient == [CREATED]
        assert await ask() == [CREATED]


ONE = batch_of(asked().groups, {}, {})
GOOD = ask_frame(0, 1, ONE, left_ms=[1000], counts=[1], writes=[])
SPOILT = [
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
    pytest.param(os.urandom(4096).replace(b"TB", b""), id="noise"),
    pytest.param(HEADER.pack(b"TB", 1, 1 << 31), id="a frame without end"),
    pytest.param(HEADER.pack(b"TB", 1, 3) + b"\xc1\xc1\xc1", id="no MessagePack"),
    pytest.param(HEADER.pack(b"TB", 9, 0), id="another version"),
    pytest.param(GOOD + b"x", id="a good frame and then nonsense"),
]


@pytest.mark.parametrize("sent", SPOILT)
async def test_nonsense_closes_its_own_connection_and_no_other(tmp_path, sent):
    async def desk(question):
        return [CREATED] * len(question.batch.ids)

    async with between(tmp_path, desk) as (listener, _, ask):
        assert await ask() == [CREATED]
        reader, writer = await asyncio.open_unix_connection(listener.address)
        writer.write(sent)
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                await reader.read()  # to its end
        writer.close()
        assert await ask() == [CREATED]


async def test_half_a_frame_is_waited_for_and_then_forgotten(tmp_path):
    async def desk(question):
        raise AssertionError("half a frame is no question")

    async with between(tmp_path, desk) as (listener, lines, _):
        _, writer = await asyncio.open_unix_connection(listener.address)
        writer.write(GOOD[:-1])
        await writer.drain()
        writer.close()
        await lines.probe(listener.address)


@pytest.mark.parametrize("answer", [*SPOILT[:4], pytest.param(b"", id="nothing at all")])
async def test_a_poster_that_answers_nonsense_leaves_nobody_hanging(tmp_path, answer):
    async def talk(reader, writer):
        await reader.read(10)
        writer.write(answer)
        writer.close()

    path = tmp_path / "strange.sock"
    server = await asyncio.start_unix_server(talk, path)
    lines = Lines()
    with pytest.raises((Unanswered, NotDelivered)):
        await lines.ask(str(path), 1, asked(), deadline=monotonic() + 30)
    await lines.close()
    server.close()


async def test_a_poster_of_another_version_is_named(tmp_path):
    async def talk(reader, writer):
        await reader.read(10)
        writer.write(HEADER.pack(b"TB", 9, 0))
        await writer.drain()
        writer.close()

    path = tmp_path / "newer.sock"
    server = await asyncio.start_unix_server(talk, path)
    lines = Lines()
    with pytest.raises(VersionsDiffer):
        await lines.ask(str(path), 1, asked(), deadline=monotonic() + 30)
    await lines.close()
    server.close()


async def no_desk(_question):
    return []


async def test_nobody_else_can_reach_the_socket(tmp_path):
    listener = await listen(tmp_path / "posters", no_desk)
    folder = (tmp_path / "posters").stat()
    [path] = (tmp_path / "posters").iterdir()
    assert stat.S_IMODE(folder.st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await listener.close()
    assert list((tmp_path / "posters").iterdir()) == []


async def test_a_folder_that_others_can_enter_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o750)
    with pytest.raises(SocketFolderUnfit, match="mode=0o750"):
        await listen(folder, no_desk)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SocketFolderUnfit):
        await listen(tmp_path / "link", no_desk)


async def test_a_path_that_no_socket_can_have_is_refused(tmp_path):
    with pytest.raises(SocketFolderUnfit, match="path_max=107"):
        await listen(tmp_path / ("long" * 25), no_desk)


async def test_sockets_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path):
    alive = await listen(tmp_path / "posters", no_desk)
    dead = tmp_path / "posters" / "0123456789abcdef.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    second = await listen(tmp_path / "posters", no_desk)
    names = {path.name for path in (tmp_path / "posters").iterdir()}
    assert names == {Path(each.address).name for each in (alive, second)}
    await alive.close()
    await second.close()
