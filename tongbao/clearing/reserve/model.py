"""What a proof of the reserve says and how it is worked out. No I/O.

    bank in the books = owed + own - at channels          (every book balances)
    required          = owed - what of it no channel has paid over yet
    shortfall         = required × ratio - custody        red when above nothing
    difference        = custody + own at bank - bank in the books    to be explained, to the fen

Reserve funds are what was really received for customers, so what channels still owe counts out.
The house's own earnings are taken to be in there first: for customers that is the careful way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound
from tongbao.kernel.licence import Mode
from tongbao.ledger.general.accounts import NUMBER_OF
from tongbao.ledger.model import Side
from tongbao.ledger.rules.chart import CHART, OwnerKind

RATIO_WHOLE: Final = 10_000
ACCOUNT: Final = "cua"
PROOF: Final = "rsp"
GAP: Final = "rsg"


class CustodyAccountNotFound(NotFound):
    """There is no such custody account."""

    code = "reserve.account_not_found"
    advice = "List the custody accounts to find its id."
    advice_zh = "备付金账户不存在，请通过账户列表查找。"


class CustodyAccountTaken(Conflict):
    """This account at this bank is there already, in this currency."""

    code = "reserve.account_taken"
    advice = "Look at the list of custody accounts."
    advice_zh = "该银行账户已登记，请查看备付金账户列表。"


class CustodyNumberMalformed(Invalid):
    """An account's number at a bank has 4 to 34 letters and digits."""

    code = "reserve.account_number_malformed"
    advice = "Give the whole account number, as the bank's statements show it."
    advice_zh = "请填写完整账号，与银行对账单所示一致（4 至 34 位字母或数字）。"


class StatementDayWrong(Invalid):
    """A bank's closing balance is of a day that is over, on which the account was open."""

    code = "reserve.statement_day_wrong"
    advice = "Give a day that has ended, within the account's time."
    advice_zh = "余额日期须为已结束且账户存续期内的日期。"


class ReserveDayNotOver(Invalid):
    """A day is proved once it is over."""

    code = "reserve.day_not_over"
    advice = "Prove a day that has ended."
    advice_zh = "请选择已结束的日期。"


class ReserveProofNotFound(NotFound):
    """There is no such proof."""

    code = "reserve.proof_not_found"
    advice = "List the proofs of the day."
    advice_zh = "备付金证明不存在，请查看当日证明列表。"


class ReserveGapNotFound(NotFound):
    """There is no such gap."""

    code = "reserve.gap_not_found"
    advice = "List the open gaps."
    advice_zh = "缺口不存在，请查看未解释的缺口列表。"


class ReserveGapExplained(Conflict):
    """The gap was explained before; the first explanation stands."""

    code = "reserve.gap_explained"
    advice = "Nothing to do."
    advice_zh = "该缺口已有解释，无需重复处理。"


class ReserveRuleMissing(Conflict):
    """No rule says how much must be covered on this day."""

    code = "reserve.rule_missing"
    advice = "Prove a day for which a rule is in force."
    advice_zh = "该日期没有适用的备付金比例规则。"


class ProofContended(Busy):
    """Somebody else proved the same day at the same moment."""

    code = "reserve.proof_contended"
    advice = "Repeat the request."
    advice_zh = "请重试。"


class Purpose(StrEnum):
    """Whose money an account at a bank is for."""

    CUSTOMERS = "customers"
    OWN = "own"


class Source(StrEnum):
    """Where a balance comes from; by hand only with two people."""

    CAMT_053 = "camt.053"
    MT940 = "mt940"
    BANK_TRANSFER = "bank_transfer"
    MANUAL = "manual"


class ProofState(StrEnum):
    """What a proof says; only the first is good."""

    COVERED = "covered"
    DIFFERS = "differs"  # covered, and banks and books do not say the same
    SHORT = "short"
    INCOMPLETE = "incomplete"  # a bank has not said what is there


class Role(StrEnum):
    """What a kind of ledger account means to the reserve."""

    OWED = "owed"  # customers' money, also what nobody knows the owner of, or is between books
    CHANNELS = "channels"  # of which channels have not paid over
    BANK = "bank"
    OWN = "own"


class CustodyAccount(Struct, frozen=True):
    """One row of custody_account."""

    id: UUID
    mode: Mode
    currency: str
    purpose: Purpose
    bank: str
    account_masked: str
    account_mac: bytes  # a keyed fingerprint of the whole number
    opened_on: date
    closed_on: date | None
    approved_as: str

    def is_open_on(self, day: date) -> bool:
        """Whether the account was there at the end of a day."""
        return self.opened_on <= day and (self.closed_on is None or day < self.closed_on)


class CustodyBalance(Struct, frozen=True):
    """One row of custody_balance: what a bank says an account closed a day with."""

    account_id: UUID
    day: date
    version: int
    amount: int
    source: Source
    reference: str
    digest: bytes
    recorded_at: datetime
    recorded_by: str


class ReserveRule(Struct, frozen=True):
    """One row of reserve_rule: how much must be covered from a day on, and who says so."""

    valid_from: date
    ratio_bp: int
    instrument: str
    article: str


class ReserveProof(Struct, frozen=True):
    """One row of reserve_proof. ``inputs`` is everything it was worked out from."""

    id: UUID
    mode: Mode
    currency: str
    day: date
    version: int
    state: ProofState
    owed: int
    required: int
    custody: int
    own_at_bank: int
    bank_in_books: int
    shortfall: int
    difference: int
    inputs: dict[str, Any]
    digest: bytes
    made_at: datetime
    made_by: str


class ReserveGap(Struct, frozen=True):
    """One row of reserve_gap: open until two people have explained it."""

    id: UUID
    mode: Mode
    currency: str
    day: date
    kind: Literal["short", "differs", "incomplete"]
    amount: int
    proof_id: UUID
    opened_at: datetime
    explained_at: datetime | None
    explanation: str | None
    explained_as: str | None


class BookLine(Struct, frozen=True, order=True):
    """An account of the general ledger after the day; ``balance`` is credits less debits."""

    account: str
    role: Role
    balance: int


class BookInput(Struct, frozen=True):
    """One book, as its vouchers have it up to a batch, and the signed checkpoint over it."""

    book: int
    batch: int
    note: str
    lines: tuple[BookLine, ...]

    @property
    def signed_batch(self) -> int:
        """The batch that the checkpoint goes up to."""
        said = [line for line in self.note.splitlines() if line.startswith("batch ")]
        return int(said[0].removeprefix("batch ")) if said else 0


class StatementInput(Struct, frozen=True):
    """What a bank said of one account: the balance that counts on the day, and of which day."""

    account: UUID
    purpose: Purpose
    day: date
    version: int
    amount: int
    source: Source
    digest: str


class Inputs(Struct, frozen=True):
    """Everything a proof is worked out from; the same again gives the same digest."""

    mode: Mode
    currency: str
    day: date
    rule: ReserveRule
    books: tuple[BookInput, ...]
    statements: tuple[StatementInput, ...]
    missing: tuple[UUID, ...]  # accounts of which no bank has said anything that counts


class Figures(Struct, frozen=True):
    """What follows from the inputs, in minor units."""

    state: ProofState
    owed: int
    required: int
    custody: int
    own_at_bank: int
    bank_in_books: int
    shortfall: int
    difference: int


def _role_of(kind: str) -> Role:
    line = CHART[kind]
    if kind == "bank":
        return Role.BANK
    if line.holds_funds or kind == "suspense" or line.owner is OwnerKind.BOOK:
        return Role.OWED
    if line.side is Side.DEBIT and line.owner is OwnerKind.CHANNEL_ACCOUNT:
        return Role.CHANNELS
    return Role.OWN


def _roles() -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for kind, number in NUMBER_OF.items():
        if roles.setdefault(number, _role_of(kind)) is not _role_of(kind):
            raise ValueError(f"kinds of general ledger account {number} mean different things")
    return roles


ROLES: Final = _roles()
"""What each account of the general ledger means to the reserve."""


def lines_of(sums: Iterable[tuple[str, int, int]]) -> tuple[BookLine, ...]:
    """Return the lines of accounts with their debits and credits, in order."""
    return tuple(
        sorted(
            BookLine(account, ROLES[account], credits_ - debits)
            for account, debits, credits_ in sums
        )
    )


def work_out(inputs: Inputs) -> Figures:
    """Return the figures that follow from the inputs; nothing else goes into them."""
    by_role = dict.fromkeys(Role, 0)
    for book in inputs.books:
        for line in book.lines:
            by_role[line.role] += line.balance
    owed, own = by_role[Role.OWED], by_role[Role.OWN]
    at_channels, bank = -by_role[Role.CHANNELS], -by_role[Role.BANK]
    custody = _sum(inputs.statements, Purpose.CUSTOMERS)
    own_at_bank = _sum(inputs.statements, Purpose.OWN)
    # Own earnings that are not at a bank of ours are taken to lie with the channels.
    own_outside = max(0, own - own_at_bank)
    required = max(0, owed - max(0, at_channels - own_outside))
    needed = -(-required * inputs.rule.ratio_bp // RATIO_WHOLE)
    shortfall = max(0, needed - custody)
    difference = custody + own_at_bank - bank
    return Figures(
        _state(shortfall, difference, is_complete=not inputs.missing),
        owed,
        required,
        custody,
        own_at_bank,
        bank,
        shortfall,
        difference,
    )


def _state(shortfall: int, difference: int, *, is_complete: bool) -> ProofState:
    if not is_complete:
        return ProofState.INCOMPLETE
    if shortfall:
        return ProofState.SHORT
    return ProofState.DIFFERS if difference else ProofState.COVERED


def _sum(statements: Sequence[StatementInput], purpose: Purpose) -> int:
    return sum(each.amount for each in statements if each.purpose is purpose)


def digest_of(inputs: Inputs, figures: Figures) -> bytes:
    """Return the SHA-256 that stands for what was looked at and what followed from it."""
    said = ["tongbao reserve 1", inputs, figures]
    return sha256(msgspec.json.encode(said, order="deterministic")).digest()
