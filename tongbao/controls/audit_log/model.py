"""Values of the audit log's tree, its checkpoints and its proofs, and the refusals around them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
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


class AuditTree(Struct, frozen=True):
    """How far the tree has grown, and the roots of the subtrees it is made of, largest first."""

    size: int
    frontier: bytes


class Leaf(Struct, frozen=True):
    """Where an entry stands; ``number`` begins at 1."""

    number: int
    entry_id: UUID
    hash: bytes


class Node(Struct, frozen=True):
    """The root of 2 ** level leaves, of which there are ``number`` before it."""

    level: int
    number: int
    hash: bytes


class AuditCheckpoint(Struct, frozen=True):
    """What was signed about the log."""

    number: int
    size: int
    root: bytes
    frontier: bytes
    at: datetime
    note: str


class WrittenEntry(Struct, frozen=True):
    """An entry with everything that its leaf is made of."""

    id: UUID
    at: datetime
    real_at: datetime
    actor: str
    origin: str
    action: str
    subject: str
    facts: dict[str, Any]

    @property
    def content(self) -> bytes:
        """Return the leaf: JSON with its names sorted and times in UTC to the microsecond."""
        said = {
            "action": self.action,
            "actor": self.actor,
            "at": _utc(self.at),
            "facts": self.facts,
            "id": str(self.id),
            "origin": self.origin,
            "real_at": _utc(self.real_at),
            "subject": self.subject,
        }
        return msgspec.json.encode(said, order="sorted")


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


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
