"""The port to whoever keeps the master keys: a file of ours, or a security module.

    master key (never leaves its keeper) ── wraps ──► sealing key (one per owner, purpose and month)
                                        └─ wraps ──► the lines of the key file, under an HSM

A wrapped key says by itself which master key wrapped it, so a rotation is a new master key that
wraps from now on, and a job that wraps anew what the older ones have wrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from tongbao.kernel.errors import Busy, Conflict


class KmsUnavailable(Busy):
    """The security module did not answer, or refused to work; nothing was sealed or opened."""

    code = "kms.unavailable"
    advice = "Repeat the request; where it stays, look at the module, its token and its PIN."
    advice_zh = "请重试；如持续出现，请检查加密机、令牌及其 PIN。"


class KmsMisconfigured(Conflict):
    """The settings name no usable provider of master keys."""

    code = "kms.misconfigured"
    advice = "Give kms_module, kms_token and kms_pin, and install the extra `hsm`."
    advice_zh = "请配置 kms_module、kms_token、kms_pin，并安装扩展依赖 hsm。"


class WrapUnreadable(Conflict):
    """A wrapped key does not open: its master key is gone, it is another owner's, or damaged."""

    code = "kms.wrap_unreadable"
    advice = "Restore the master key that wrapped it; `tongbao kms list` shows which are there."
    advice_zh = "请恢复包裹该密钥的主密钥；可用 tongbao kms list 查看现有主密钥。"


class MasterKey(Struct, frozen=True):
    """One master key as its keeper shows it; there is nothing secret in it."""

    id: str
    version: int  # counts from 1; the highest wraps
    algorithm: str


class Kms(Protocol):
    """What every keeper of master keys can do. No operation gives a master key out."""

    provider: str
    takes_components: bool
    """Whether a new master key is put together by custodians; else the keeper draws it itself."""

    def master_keys(self) -> Sequence[MasterKey]:
        """Return all that are there, the one that wraps first."""

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Return a key of 16 to 64 bytes wrapped for the owner that ``aad`` names."""

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Return what `wrap` wrapped for the same owner.

        Raises:
            WrapUnreadable
        """

    def master_of(self, wrapped: bytes) -> str:
        """Return the id of the master key that wrapped it."""

    def rotate(self, material: bytes | None, reference: str) -> MasterKey:
        """Have a new master key wrap from now on; the same ``reference`` again changes nothing.

        ``material`` is the key itself, 32 bytes, where custodians put it together.
        """

    def sign(self, message: bytes) -> bytes:
        """Return a signature by the keeper's own signing key."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `sign` made the signature for exactly this message."""
