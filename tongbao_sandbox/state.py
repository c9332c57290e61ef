"""The sandbox's memory: one SQLite file in write-ahead mode, so that a restart forgets nothing.

Trades and refunds are stored as documents beside the few columns they are looked up by. A request
is handled inside one transaction (`State.begin`), so half a request never stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from tongbao.kernel.clock import day_bounds
from tongbao_sandbox.model import PaymentCode, Refund, Trade

T = TypeVar("T", bound=msgspec.Struct)

_SCHEMA: Final = """
create table if not exists setting (name text primary key, value text not null);
create table if not exists trade (
    channel text not null, number text not null, ref text not null, token text not null,
    state text not null, paid_us integer, doc text not null, primary key (channel, number));
create index if not exists trade_ref on trade (channel, ref);
create index if not exists trade_token on trade (token);
create index if not exists trade_paid on trade (channel, paid_us);
create table if not exists refund (
    channel text not null, trade_number text not null, number text not null, ref text not null,
    state text not null, created_us integer not null, done_us integer, doc text not null,
    primary key (channel, trade_number, number));
create index if not exists refund_number on refund (channel, number);
create index if not exists refund_created on refund (channel, created_us);
create table if not exists payment_code (code text primary key, doc text not null);
create table if not exists fault (
    id integer primary key, channel text not null, "on" text not null, number text not null,
    name text not null, argument text not null, "left" integer not null);
create table if not exists callback (
    id integer primary key, channel text not null, kind text not null, number text not null,
    url text not null, content text not null, variant text not null, state text not null,
    tries integer not null, next_us integer, made_us integer not null, lose integer not null,
    held integer not null default 0);
create index if not exists callback_next on callback (next_us) where next_us is not null;
create table if not exists attempt (
    id integer primary key, callback_id integer not null, at_us integer not null,
    status integer, reply text not null, error text not null);
create table if not exists due (
    id integer primary key, at_us integer not null, channel text not null, action text not null,
    number text not null, argument text not null);
create index if not exists due_at on due (at_us);
create table if not exists exchange (
    id integer primary key, at_us integer not null, method text not null, target text not null,
    status integer, ending text not null, request text not null, reply text not null);
create table if not exists document (
    channel text not null, name text not null, at_us integer not null, content blob not null,
    primary key (channel, name));
"""


def to_us(at: datetime) -> int:
    """Return microseconds since 1970, the form in which SQLite keeps a moment."""
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def from_us(value: int) -> datetime:
    """Return the moment that was stored, UTC."""
    return _EPOCH + timedelta(microseconds=value)


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class State:
    """The one connection to the file; used from one event loop only."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("pragma synchronous = normal")
        self.db.executescript(_SCHEMA)
        self._depth = 0

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Run the block as one transaction; a block inside a block joins it."""
        if self._depth:
            yield
            return
        self.db.execute("begin immediate")
        self._depth = 1
        try:
            yield
        except BaseException:
            self.db.execute("rollback")
            raise
        else:
            self.db.execute("commit")
        finally:
            self._depth = 0

    # Settings ------------------------------------------------------------------------------

    def setting(self, name: str, default: Any) -> Any:
        """Return a setting, or what it is when nobody set it."""
        row = self.db.execute("select value from setting where name = ?", (name,)).fetchone()
        return default if row is None else msgspec.json.decode(row[0])

    def set_setting(self, name: str, value: Any) -> None:
        """Remember a setting."""
        text = msgspec.json.encode(value).decode()
        self.db.execute("insert or replace into setting values (?, ?)", (name, text))

    def settings(self) -> dict[str, Any]:
        """Return every setting that somebody set."""
        rows = self.db.execute("select name, value from setting order by name")
        return {name: msgspec.json.decode(value) for name, value in rows}

    def next_number(self, range_name: str) -> int:
        """Return 1, 2, 3, … per range; what channels build their own numbers from."""
        value = int(self.setting(f"range.{range_name}", 0)) + 1
        self.set_setting(f"range.{range_name}", value)
        return value

    # Trades --------------------------------------------------------------------------------

    def put_trade(self, trade: Trade) -> Trade:
        """Insert the trade or replace it, and return it."""
        paid = None if trade.paid_at is None else to_us(trade.paid_at)
        self.db.execute(
            "insert or replace into trade values (?, ?, ?, ?, ?, ?, ?)",
            (trade.channel, trade.number, trade.ref, trade.token, trade.state, paid, _text(trade)),
        )
        return trade

    def trade(self, channel: str, number: str) -> Trade | None:
        """Return the trade with the merchant's number."""
        return self._one(
            Trade, "select doc from trade where channel = ? and number = ?", channel, number
        )

    def trade_by_ref(self, channel: str, ref: str) -> Trade | None:
        """Return the trade with the channel's number."""
        return self._one(Trade, "select doc from trade where channel = ? and ref = ?", channel, ref)

    def trade_by_token(self, token: str) -> Trade | None:
        """Return the trade whose QR code says this, whatever channel it belongs to."""
        return self._one(Trade, "select doc from trade where token = ? and token <> ''", token)

    def trades(self, channel: str | None = None) -> list[Trade]:
        """Return all trades, in the order they were first made."""
        return self._all(
            Trade, "select doc from trade where ?1 is null or channel = ?1 order by rowid", channel
        )

    def newest_trades(self, channel: str, number: str, most: int) -> list[Trade]:
        """Return the trades last touched, the newest first; ``number`` is how theirs begin."""
        return self._all(
            Trade,
            "select doc from trade where channel = ?1 and substr(number, 1, length(?2)) = ?2"
            " order by rowid desc limit ?3",
            channel,
            number,
            most,
        )

    def count_trades(self, channel: str) -> tuple[int, int]:
        """Return how many trades there are, and how many a customer may still pay."""
        row = self.db.execute(
            "select count(*), count(*) filter (where state in ('offered', 'waiting', 'asking'))"
            " from trade where channel = ?",
            (channel,),
        ).fetchone()
        return int(row[0]), int(row[1])

    def trades_paid_on(self, channel: str, day: date) -> list[Trade]:
        """Return the trades paid on a business day of China, by time of payment."""
        start, end = day_bounds(day)
        return self._all(
            Trade,
            "select doc from trade where channel = ? and paid_us >= ? and paid_us < ?"
            " order by paid_us, number",
            channel,
            to_us(start),
            to_us(end),
        )

    # Refunds -------------------------------------------------------------------------------

    def put_refund(self, refund: Refund) -> Refund:
        """Insert the refund or replace it, and return it."""
        done = None if refund.done_at is None else to_us(refund.done_at)
        key = (refund.channel, refund.trade_number, refund.number, refund.ref, refund.state)
        self.db.execute(
            "insert or replace into refund values (?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, to_us(refund.created_at), done, _text(refund)),
        )
        return refund

    def refund(self, channel: str, trade_number: str, number: str) -> Refund | None:
        """Return one refund of one trade."""
        return self._one(
            Refund,
            "select doc from refund where channel = ? and trade_number = ? and number = ?",
            channel,
            trade_number,
            number,
        )

    def refunds_numbered(self, channel: str, number: str) -> list[Refund]:
        """Return the refunds with this number, of any trade; the channel says if one may be."""
        return self._all(
            Refund, "select doc from refund where channel = ? and number = ?", channel, number
        )

    def refunds_of(self, channel: str, trade_number: str) -> list[Refund]:
        """Return a trade's refunds in the order they were asked for."""
        return self._all(
            Refund,
            "select doc from refund where channel = ? and trade_number = ? order by created_us",
            channel,
            trade_number,
        )

    def refunds(self, channel: str | None = None) -> list[Refund]:
        """Return all refunds, in the order they were asked for."""
        return self._all(
            Refund,
            "select doc from refund where ?1 is null or channel = ?1 order by created_us",
            channel,
        )

    def refunds_asked_on(self, channel: str, day: date) -> list[Refund]:
        """Return the refunds asked for on a business day of China."""
        start, end = day_bounds(day)
        return self._all(
            Refund,
            "select doc from refund where channel = ? and created_us >= ? and created_us < ?"
            " order by created_us, number",
            channel,
            to_us(start),
            to_us(end),
        )

    # Payment codes and documents -----------------------------------------------------------

    def put_code(self, code: PaymentCode) -> PaymentCode:
        """Insert the payment code or replace it, and return it."""
        self.db.execute(
            "insert or replace into payment_code values (?, ?)", (code.code, _text(code))
        )
        return code

    def newest_codes(self, channel: str, most: int) -> list[PaymentCode]:
        """Return the payment codes last made or used, the newest first."""
        return self._all(
            PaymentCode,
            "select doc from payment_code where json_extract(doc, '$.channel') = ?"
            " order by rowid desc limit ?",
            channel,
            most,
        )

    def code(self, code: str) -> PaymentCode | None:
        """Return the payment code with these digits."""
        return self._one(PaymentCode, "select doc from payment_code where code = ?", code)

    def put_document(self, channel: str, name: str, content: bytes, at: datetime) -> None:
        """Keep a file, such as a bill waiting for its download, under a name."""
        self.db.execute(
            "insert or replace into document values (?, ?, ?, ?)",
            (channel, name, to_us(at), content),
        )

    def document(self, channel: str, name: str) -> tuple[bytes, datetime] | None:
        """Return a kept file and when it was kept."""
        row = self.db.execute(
            "select content, at_us from document where channel = ? and name = ?", (channel, name)
        ).fetchone()
        return None if row is None else (row[0], from_us(row[1]))

    def documents(self, channel: str, prefix: str, most: int) -> list[bytes]:
        """Return the kept files whose names begin so, the newest first, the emptied left out."""
        return [content for _, content in self.named_documents(channel, prefix, most)]

    def named_documents(self, channel: str, prefix: str, most: int) -> list[tuple[str, bytes]]:
        """Return the same with their names."""
        return self.db.execute(
            "select name, content from document where channel = ?1 and length(content) > 0"
            " and substr(name, 1, length(?2)) = ?2 order by rowid desc limit ?3",
            (channel, prefix, most),
        ).fetchall()

    def count_documents(self, channel: str, prefix: str) -> int:
        """Return how many files have names that begin so."""
        row = self.db.execute(
            "select count(*) from document where channel = ?1 and substr(name, 1, length(?2)) = ?2",
            (channel, prefix),
        ).fetchone()
        return int(row[0])

    # Log of requests -----------------------------------------------------------------------

    def log_exchange(self, at: datetime, request: tuple[str, str, str], reply: Any) -> None:
        """Remember one request (method, target, body) and what was answered."""
        self.db.execute(
            "insert into exchange (at_us, method, target, request, status, ending, reply)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            (to_us(at), *request, *reply),
        )

    def exchanges(self, newest: int) -> list[dict[str, Any]]:
        """Return the newest requests, oldest first."""
        rows = self.db.execute(
            "select id, at_us, method, target, request, status, ending, reply from exchange"
            " order by id desc limit ?",
            (newest,),
        ).fetchall()
        names = ("id", "at", "method", "target", "request", "status", "ending", "reply")
        return [
            dict(zip(names, (row[0], from_us(row[1]), *row[2:]), strict=True))
            for row in reversed(rows)
        ]

    def _one(self, kind: type[T], sql: str, *args: Any) -> T | None:
        row = self.db.execute(sql, args).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=kind)

    def _all(self, kind: type[T], sql: str, *args: Any) -> list[T]:
        return [msgspec.json.decode(row[0], type=kind) for row in self.db.execute(sql, args)]


def _text(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()
