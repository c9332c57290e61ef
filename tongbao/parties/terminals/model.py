"""What a terminal is, where it may stand and what it may be told. No I/O.

    stock ──assign──► bound ⇄ suspended
      ▲                 │          │
      └────take back────┴──────────┤
      └──► retired ◄───────────────┤      retired and stolen are for good; a stolen one may
           stolen ─► retired ◄─────┘      still be retired

A terminal has a key of its own while it is bound, given to it against a code that works once.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from tongbao.infra.crypto import constant_time_equal
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected, Unauthenticated
from tongbao.kernel.ids import ALPHABET, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money

PREFIX: Final = "trm"
METADATA_KEY: Final = "terminal_id"
"""Where a payment's metadata names the terminal it was asked at."""
CODE_LENGTH: Final = 12
CODE_LIFE: Final = timedelta(days=1)
CODE_MISSES_MAX: Final = 5
OFFLINE_AFTER: Final = timedelta(minutes=3)
"""Silence, in business time, after which a terminal counts as offline."""
HEARTBEAT_S_MAX: Final = 60
"""Three heartbeats fit into `OFFLINE_AFTER`, so that one lost on the way alarms nobody."""


class TerminalNotFound(NotFound):
    """There is no such terminal, or not for this caller."""

    code = "terminal.not_found"
    advice = "List the terminals to find its id."
    advice_zh = "请通过终端列表查找正确的标识。"


class TerminalStateWrong(Conflict):
    """The terminal stands where this cannot be done to it."""

    code = "terminal.state_wrong"
    advice = "Look at the terminal's status; what is retired or stolen is so for good."
    advice_zh = "终端当前状态不允许此操作；已报废或被盗的终端不可恢复。"


class TerminalSuspended(Rejected):
    """The terminal takes no payments at present."""

    code = "terminal.suspended"
    advice = "Resume the terminal, or take the payment at another."
    advice_zh = "该终端已停用，请恢复后再试或改用其他终端。"


class PlaceNotFound(NotFound):
    """The merchant has no such plate or store, or the plate was revoked."""

    code = "terminal.place_not_found"
    advice = "Name a plate in use, or a store, of the merchant's own in the same mode."
    advice_zh = "请填写同一商户、同一环境下有效的码牌或门店。"


class ActivationRefused(Unauthenticated):
    """Serial number and code do not belong together, or the code is used, over or locked."""

    code = "terminal.activation_refused"
    advice = "Ask for a new activation code in the merchant's system, and type it within a day."
    advice_zh = "激活码无效、已使用或已过期，请在商户系统重新获取并在一天内输入。"


class LimitEachExceeded(Rejected):
    """More than the terminal may take at once."""

    code = "terminal.limit_each"
    advice = "Take less, or have the terminal's limit raised."
    advice_zh = "超出该终端单笔限额，请减少金额或申请调整限额。"


class LimitCountExceeded(Rejected):
    """The terminal has taken as many payments today as it may."""

    code = "terminal.limit_count"
    advice = "Use another terminal, or have the limit raised."
    advice_zh = "该终端今日笔数已达上限，请改用其他终端或申请调整限额。"


class LimitAmountExceeded(Rejected):
    """The terminal would have taken more today than it may."""

    code = "terminal.limit_amount"
    advice = "Use another terminal, or have the limit raised."
    advice_zh = "超出该终端单日累计限额，请改用其他终端或申请调整限额。"


class LimitCurrencyDiffers(Rejected):
    """The terminal's limits are in another currency, so nothing can be held against them."""

    code = "terminal.limit_currency"
    advice = "Take the payment in the currency of the terminal's limits."
    advice_zh = "该终端限额币种与支付币种不同，请使用限额币种收款。"


class SerialsMalformed(Invalid):
    """The file of serial numbers cannot be taken as it is; nothing of it was."""

    code = "terminal.serials_malformed"
    advice = "Give a CSV with a column serial: 4 to 32 of A-Z, 0-9 and -, each once."
    advice_zh = "请提供含 serial 列的 CSV：4 至 32 位大写字母、数字或连字符，不得重复。"


class SerialsTaken(Conflict):
    """Some of the serial numbers are in the inventory already; nothing was added."""

    code = "terminal.serials_taken"
    advice = "Take the known ones out of the file; facts name the first."
    advice_zh = "部分序列号已入库，请从文件中去除后重试；facts 中为第一个。"


class TemplateNotFound(NotFound):
    """There is no such template of parameters."""

    code = "terminal.template_not_found"
    advice = "List the templates, or make this one first."
    advice_zh = "参数模板不存在，请先创建。"


class ParametersVersionUnknown(NotFound):
    """The terminal never had this version of its parameters."""

    code = "terminal.parameters_version_unknown"
    advice = "List the terminal's versions."
    advice_zh = "该终端没有此参数版本，请查看版本列表。"


class TerminalState(StrEnum):
    """Where a terminal is in its life."""

    STOCK = "stock"
    BOUND = "bound"
    SUSPENDED = "suspended"
    RETIRED = "retired"
    STOLEN = "stolen"

    @property
    def is_placed(self) -> bool:
        """Whether it stands at a merchant's."""
        return self in {TerminalState.BOUND, TerminalState.SUSPENDED}


MOVES: Final = {
    TerminalState.STOCK: {TerminalState.BOUND, TerminalState.RETIRED, TerminalState.STOLEN},
    TerminalState.BOUND: {
        TerminalState.SUSPENDED,
        TerminalState.STOCK,
        TerminalState.RETIRED,
        TerminalState.STOLEN,
    },
    TerminalState.SUSPENDED: {
        TerminalState.BOUND,
        TerminalState.STOCK,
        TerminalState.RETIRED,
        TerminalState.STOLEN,
    },
    TerminalState.STOLEN: {TerminalState.RETIRED},
    TerminalState.RETIRED: frozenset[TerminalState](),
}
"""Where a terminal may go from where it is."""


class Parameters(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a terminal may be told to do; what is left out stays as it is.

    ``volume`` and ``brightness`` are 0 to 10, ``heartbeat_s`` seconds between two heartbeats.
    """

    volume: Annotated[int, Meta(ge=0, le=10)] | UnsetType = UNSET
    brightness: Annotated[int, Meta(ge=0, le=10)] | UnsetType = UNSET
    language: Literal["zh", "en"] | UnsetType = UNSET
    speaks: bool | UnsetType = UNSET
    prints: bool | UnsetType = UNSET
    heartbeat_s: Annotated[int, Meta(ge=10, le=HEARTBEAT_S_MAX)] | UnsetType = UNSET
    idle_text: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


DEFAULTS: Final = Parameters(
    volume=7,
    brightness=7,
    language="zh",
    speaks=True,
    prints=True,
    heartbeat_s=HEARTBEAT_S_MAX,
    idle_text="",
)
"""What a terminal does that nobody told otherwise."""


class Terminal(Struct, frozen=True):
    """One row of the terminal table. The key is sealed."""

    id: UUID
    serial_number: str
    model: str
    batch_id: UUID
    state: TerminalState
    merchant_id: UUID | None
    mode: Mode | None
    name: str
    store_id: UUID | None
    plate_id: UUID | None
    template_id: UUID | None
    own_parameters: dict[str, Any]
    parameters_version: int
    key_sealed: bytes | None
    key_number: int
    code_hash: bytes | None
    code_expires_at: datetime | None
    code_misses: int
    changed_at: datetime

    def __repr__(self) -> str:
        return f"Terminal({self.serial_number}, {self.state})"

    def check_move(self, to: TerminalState) -> None:
        """Raise unless the terminal may go there.

        Raises:
            TerminalStateWrong
        """
        if to not in MOVES[self.state]:
            raise TerminalStateWrong(status=self.state, wanted=to)


class Binding(Struct, frozen=True):
    """One row of terminal_binding: where a terminal stood, from when to when."""

    id: UUID
    terminal_id: UUID
    merchant_id: UUID
    mode: Mode
    name: str
    store_id: UUID | None
    plate_id: UUID | None
    bound_at: datetime
    bound_by: str
    ended_at: datetime | None
    ended_by: str | None
    why: str


class Heartbeat(Struct, frozen=True):
    """One row of terminal_heartbeat: what the terminal said of itself last."""

    terminal_id: UUID
    seen_at: datetime
    signed_at: int
    firmware: str
    battery: int | None
    signal: int | None
    parameters_version: int
    heard: int
    is_offline: bool

    def is_silent(self, now: datetime) -> bool:
        """Whether it has been quiet for too long, whatever the watch has noted yet."""
        return now - self.seen_at > OFFLINE_AFTER


class ParametersVersion(Struct, frozen=True):
    """One row of terminal_parameter_version: what a terminal is, or was, to do."""

    terminal_id: UUID
    version: int
    template_version: int | None
    own: dict[str, Any]
    effective: dict[str, Any]
    why: str
    made_at: datetime
    made_by: str


class Template(Struct, frozen=True):
    """One row of terminal_template."""

    id: UUID
    name: str
    version: int
    parameters: dict[str, Any]
    changed_at: datetime


class Meter(Struct, frozen=True):
    """One row of terminal_meter: limits, caps over them, and what was counted on a day."""

    book: int
    terminal_id: UUID
    currency: str
    limit_each: int | None
    limit_count: int | None
    limit_amount: int | None
    cap_each: int | None
    cap_count: int | None
    cap_amount: int | None
    used_on: date
    used_count: int
    used_amount: int
    since: datetime

    def used_at(self, day: date) -> tuple[int, int]:
        """Return how many payments, and how much, were counted on a day."""
        return (self.used_count, self.used_amount) if self.used_on >= day else (0, 0)

    @property
    def each(self) -> int | None:
        """The most it may take at once."""
        return _least(self.limit_each, self.cap_each)

    @property
    def count(self) -> int | None:
        """The most payments in a day."""
        return _least(self.limit_count, self.cap_count)

    @property
    def amount(self) -> int | None:
        """The most money in a day."""
        return _least(self.limit_amount, self.cap_amount)

    def check(self, money: Money, day: date) -> None:
        """Raise unless this much more may be taken on a day.

        Raises:
            LimitCurrencyDiffers, LimitEachExceeded, LimitCountExceeded, LimitAmountExceeded
        """
        count, amount = self.used_at(day)
        counted = (self.each, self.amount) != (None, None)
        if counted and money.currency != self.currency:
            raise LimitCurrencyDiffers(currency=self.currency)
        if self.each is not None and money.amount > self.each:
            raise LimitEachExceeded(limit=self.each)
        if self.count is not None and count + 1 > self.count:
            raise LimitCountExceeded(limit=self.count)
        if self.amount is not None and amount + money.amount > self.amount:
            raise LimitAmountExceeded(limit=self.amount, used=amount)


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a terminal may take, in minor units; what is left out is unlimited."""

    each: Annotated[int, Meta(ge=1)] | None = None
    count: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    amount: Annotated[int, Meta(ge=1)] | None = None


class TerminalView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A terminal as its merchant sees it, in the API and in webhooks."""

    id: str
    object: Literal["terminal"]
    mode: Mode
    serial: str
    model: str
    name: str
    status: TerminalState
    online: bool
    parameters_version: int
    store_id: str | UnsetType = UNSET
    plate_id: str | UnsetType = UNSET
    last_seen_at: datetime | UnsetType = UNSET
    firmware: str | UnsetType = UNSET
    battery: int | UnsetType = UNSET
    signal: int | UnsetType = UNSET
    reported_parameters_version: int | UnsetType = UNSET


def view_terminal(terminal: Terminal, beat: Heartbeat | None, now: datetime) -> TerminalView:
    """Return a terminal as its merchant sees it; one that was never activated is not online."""
    if terminal.mode is None:
        raise ValueError("a terminal nobody has is nobody's to see")
    view = TerminalView(
        id=show(PREFIX, terminal.id),
        object="terminal",
        mode=terminal.mode,
        serial=terminal.serial_number,
        model=terminal.model,
        name=terminal.name,
        status=terminal.state,
        online=beat is not None and not beat.is_silent(now),
        parameters_version=terminal.parameters_version,
        store_id=show("sto", terminal.store_id) if terminal.store_id else UNSET,
        plate_id=show("plt", terminal.plate_id) if terminal.plate_id else UNSET,
    )
    return view if beat is None else _with_beat(view, beat)


def _with_beat(view: TerminalView, beat: Heartbeat) -> TerminalView:
    return replace(
        view,
        last_seen_at=beat.seen_at,
        firmware=beat.firmware or UNSET,
        battery=UNSET if beat.battery is None else beat.battery,
        signal=UNSET if beat.signal is None else beat.signal,
        reported_parameters_version=beat.parameters_version,
    )


def new_code() -> str:
    """Return an activation code: twelve letters and digits that survive being read aloud."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH)).upper()


def hash_of(code: str) -> bytes:
    """Return what is kept of a code; sixty bits of chance that live for a day need no salt."""
    plain = code.replace("-", "").replace(" ", "").upper()
    return hashlib.sha256(b"terminal code\n" + plain.encode()).digest()


def code_fits(terminal: Terminal, code: str, now: datetime) -> bool:
    """Whether the code is the terminal's, in time and not guessed at too often."""
    kept = terminal.code_hash or hash_of("")
    fits = constant_time_equal(kept, hash_of(code))
    is_good = terminal.code_expires_at is not None and now < terminal.code_expires_at
    return fits and is_good and terminal.code_misses < CODE_MISSES_MAX


def _least(*figures: int | None) -> int | None:
    return min((each for each in figures if each is not None), default=None)
