"""The reference page of what the ledger answers: every status and every code, with an example.

The examples of codes that a group can be answered with are acted out by a test, so each of them is
true: `tests/ledger/test_results.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tongbao.infra.web.problem import status_of
from tongbao.kernel.errors import Busy, Overloaded, Refusal
from tongbao.ledger.decision.records import NOT_RECORDED, REFUSALS
from tongbao.ledger.model import GroupDiffers
from tools import house

STATUSES: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "created": (
        "It happened now.",
        "go on",
        "30 yuan from a wallet with 100 to a merchant",
        "本次入账成功",
    ),
    "exists": (
        "It happened earlier; nothing happened now.",
        "go on",
        "the same group once more, because the first answer was lost on its way",
        "此前已入账，本次未重复记账",
    ),
    "exists_different": (
        "The id was used earlier for something else; nothing happened now.",
        "it is a mistake of the caller: use another id",
        "the same group id with 31 yuan",
        "标识已用于不同内容的分录",
    ),
    "refused": (
        "It did not happen and never will under this id.",
        "tell the caller; another try needs another id",
        "300 yuan from a wallet with 100",
        "本次被拒绝，该标识永久记为拒绝",
    ),
    "already_refused": (
        "It was refused earlier, with this code, and still is.",
        "tell the caller the same as then",
        "the same 300 yuan again, after the wallet was topped up",
        "此前已被拒绝，结果不变",
    ),
    "in_flight": (
        "Nothing was decided and nothing is recorded.",
        "repeat the same group later",
        "any group while its book is frozen",
        "尚未裁决，请稍后以相同标识重试",
    ),
}
"""What each status means, what to do, an example, and the same in Chinese."""

EXAMPLES: Final[Mapping[str, str]] = {
    "ledger.account_closed": "10 yuan to a wallet that was closed",
    "ledger.account_frozen": "10 yuan out of a wallet that is frozen; into it they would go",
    "ledger.account_kind_not_licensed": "a wallet, in the deployment of an aggregator",
    "ledger.account_kind_unknown": "an account of the kind `gold`",
    "ledger.account_owner_wrong": "a wallet without an owner, or the bank account with one",
    "ledger.amount_out_of_range": "a transfer of 0",
    "ledger.book_frozen": "any group while its book is frozen",
    "ledger.book_stopped": "any group after `verify` found a breach in its book",
    "ledger.counter_overflow": "a transfer after which an account has moved over 4 × 10¹⁸ in all",
    "ledger.currency_mismatch": "from a wallet in CNY to one in USD, in one transfer",
    "ledger.currency_unknown": "an account in `ZZZ`",
    "ledger.exceeds_balance": "300 yuan from a wallet with 100; or 80, when 30 of it are held",
    "ledger.exceeds_ceiling": "50 yuan to a wallet with 480 that may hold 500",
    "ledger.exists_different": "the id of a group that had two transfers, with one of them",
    "ledger.exists_different_accounts": "the same id and amount, to another merchant",
    "ledger.exists_different_amount": "the same id with 31 yuan in place of 30",
    "ledger.exists_different_code": "the same id, a hold in place of a payment",
    "ledger.exists_different_order": "the same id for another reference",
    "ledger.expiry_past": "a hold until yesterday",
    "ledger.group_too_long": "a group of 1001 transfers",
    "ledger.hold_already_posted": "posting a hold twice",
    "ledger.hold_already_voided": "posting a hold that was voided",
    "ledger.hold_exceeded": "posting 11 yuan of a hold of 10",
    "ledger.hold_expired": "posting a hold an hour after its time",
    "ledger.hold_missing": "posting a hold that was never made",
    "ledger.hold_not_due": "expiring a hold that has an hour left; void it instead",
    "ledger.id_archived": "a transfer with the id of a month that went to the archive",
    "ledger.id_out_of_order": "a transfer with an id of tomorrow",
    "ledger.in_flight": "a payment while another transaction keeps the row its companion changes",
    "ledger.overloaded": "a group that finds 20,000 transfers of its book waiting before it",
    "ledger.same_account": "from a wallet to itself",
    "ledger.transfer_exists": "the same fact posted again under another group id",
    "ledger.transfer_malformed": "a void that names an amount",
}
"""For every code that a group can be answered with: what would be answered so."""


def group_codes() -> dict[str, type[Refusal]]:
    """Return the refusals that a group can be answered with, by code."""
    differences = [each for each in house.refusals() if issubclass(each, GroupDiffers)]
    raised = {"ledger.account_missing", "ledger.book_missing"}  # to the caller, not as an answer
    answers = {each.code: each for each in (*REFUSALS, *differences)}
    return {code: answers[code] for code in sorted(answers) if code not in raised}


def page_lines(generated: str) -> list[str]:
    """Return the lines of the page."""
    lines = [
        "# Ledger results 记账结果",
        generated,
        "",
        "`Ledger.submit` answers every group with a status and, where it did not happen now, a",
        "code. What is recorded is answered in the same way for ever, because whoever acted on a",
        "“no” must never meet a “yes” under the same id.",
        "",
        "已记录的结果长期不变：同一标识得到的“拒绝”不会变为“成功”。",
        "",
        "## Status 状态",
        "",
        "| status | meaning | do | example | 含义 |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{status}` | {meaning} | {do} | {example} | {zh} |"
        for status, (meaning, do, example, zh) in STATUSES.items()
    ]
    lines += [
        "",
        "## Codes of a group 分录组的结果码",
        "",
        "A companion write that touches no row refuses its group with the code its own domain",
        "gave it; those are among the [refusals](refusals.md).",
        "",
        "| code | answered as | meaning | example |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| [`{code}`](refusals.md#{code}) | `{_answered_as(refusal)}` "
        f"| {house.one_line(refusal)} | {EXAMPLES[code]} |"
        for code, refusal in group_codes().items()
    ]
    return [*lines, "", *_other_lines()]


def _answered_as(refusal: type[Refusal]) -> str:
    if issubclass(refusal, GroupDiffers):
        return "exists_different"
    if issubclass(refusal, Overloaded):
        return "raised"
    if issubclass(refusal, Busy):
        return "in_flight"
    return "refused, not recorded" if refusal in NOT_RECORDED else "refused"


def _other_lines() -> list[str]:
    """Return the table of what commands and reads of the ledger refuse."""
    shown = group_codes()
    areas = ("archive", "general_ledger", "ledger")
    others = [
        each
        for each in house.refusals()
        if each.code.partition(".")[0] in areas and each.code not in shown
    ]
    return [
        "## Codes of commands and reads 命令与查询的结果码",
        "",
        "Raised to the caller; nothing is recorded.",
        "",
        "| code | HTTP | meaning | what to do |",
        "| --- | --- | --- | --- |",
        *(
            f"| [`{each.code}`](refusals.md#{each.code}) | {status_of(each)} "
            f"| {house.one_line(each)} | {each.advice} |"
            for each in others
        ),
    ]
