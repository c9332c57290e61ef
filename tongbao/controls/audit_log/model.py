"""Values of the audit log's tree, its checkpoints and its proofs, and the refusals around them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from tongbao.kernel.errors import Conflict, Invalid, NotFound

NAME = "audit"
"""What a checkpoint of the audit log is called behind the name of the deployment's log."""


class EntryUnproven(Conflict):
    """The entry is too young: no checkpoint has it yet."""

    code = "audit.entry_unproven"
    advice = "Ask again in a minute: a checkpoint is signed every minute that something happened."
    advice_zh = "请一分钟后再试：有新记录时每分钟签署一次检查点。"


class EntryUnknown(NotFound):
    """There is no such entry in the audit log."""

    code = "audit.entry_unknown"
    advice = "Take the entry's id from the audit log."
    advice_zh = "请使用审计日志中的记录标识。"


class AuditCheckpointUnknown(NotFound):
    """The audit log has no checkpoint of this number."""

    code = "audit.checkpoint_unknown"
    advice = "List the checkpoints: tongbao audit checkpoints."
    advice_zh = "请先列出检查点：tongbao audit checkpoints。"


class AuditCheckpointsReversed(Invalid):
    """The first checkpoint is newer than the second."""

    code = "audit.checkpoints_reversed"
    advice = "Name the older checkpoint first."
    advice_zh = "请先写较早的检查点。"


class AuditCheckpoint(Struct, frozen=True):
    """What was signed about the log."""

    number: int
    size: int
    root: bytes
    frontier: bytes
    at: datetime
    note: str


class EntryProof(Struct, frozen=True):
    """The proof that an entry stands in the log: its text, its place, the way to a signed root."""

    object: Literal["tongbao.audit_entry/1"]
    content: str
    number: int
    proof: list[str]
    checkpoint: str


class LogConsistency(Struct, frozen=True):
    """The proof that between two checkpoints the log was only added to."""

    object: Literal["tongbao.audit_consistency/1"]
    old: str
    new: str
    proof: list[str]


class LogReport(Struct, frozen=True):
    """What deriving the whole log anew found: how much there is, and what is wrong with it."""

    entries: int
    breaches: int
    first: str
    root: bytes
