"""The caller of a request, and the scope every route must name before it is served.

Nothing is open by default: a route that names no scope keeps the program from starting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.web.interface_numbers import InterfaceNumber
from tongbao.kernel.errors import Forbidden, Refusal
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

_OPT: Final = "access"


class ScopeMissing(Forbidden):
    """The key may not do this."""

    code = "auth.scope_missing"
    advice = "Use a key that has the scope, or have it added by the merchant's administrator."
    advice_zh = "请使用具有该权限的密钥，或联系商户管理员授权。"


class SandboxOnly(Forbidden):
    """This route exists for tests and answers sandbox keys only."""

    code = "auth.sandbox_only"
    advice = "Use a sandbox key."
    advice_zh = "请使用沙箱密钥。"


class AtTill(Struct, frozen=True):
    """A person of a merchant's, and the terminal of its that they are signed in at."""

    staff_id: UUID
    terminal_id: UUID


class Caller(Struct, frozen=True):
    """Who sent the request, proved by signature: one key of one merchant in one mode.

    ``book`` is the merchant's book for this mode; ``till`` who it is, where a person acts.
    """

    key_id: UUID
    merchant_id: UUID
    mode: Mode
    book: int
    scopes: frozenset[str]
    till: AtTill | None = None

    @property
    def actor(self) -> str:
        """Return the name transactions and the audit log know this caller by."""
        return show("key", self.key_id) if self.till is None else show("stf", self.till.staff_id)


class Upload(Struct, frozen=True):
    """What a route takes that takes a file as its body, and not JSON."""

    types: tuple[str, ...]
    bytes_max: int


class Access(Struct, frozen=True, kw_only=True):
    """What a route demands and what its page in the reference shows."""

    scope: str
    cost: int = 1  # in units of the caller's rate limit
    idempotent: bool = False
    sandbox_only: bool = False
    refuses: tuple[type[Refusal], ...] = ()
    request_example: Any = None
    reply_example: Any = None
    upload: Upload | None = None
    interface: InterfaceNumber | None = None  # where it is one of the open bank's

    def check(self, caller: Caller) -> None:
        """Raise unless the caller may use the route.

        Raises:
            ScopeMissing, SandboxOnly
        """
        if self.scope not in caller.scopes:
            raise ScopeMissing(scope=self.scope)
        if self.sandbox_only and caller.mode is not Mode.SANDBOX:
            raise SandboxOnly


def needs(
    scope: str,
    *,
    cost: int = 1,
    idempotent: bool = False,
    sandbox_only: bool = False,
    refuses: Sequence[type[Refusal]] = (),
    request_example: Struct | None = None,
    reply_example: Struct | None = None,
    upload: Upload | None = None,
    interface: InterfaceNumber | None = None,
) -> dict[str, Any]:
    """Return the ``opt`` of a route handler: ``@post("/v1/…", opt=needs("payments:write"))``."""
    access = Access(
        scope=scope,
        cost=cost,
        idempotent=idempotent,
        sandbox_only=sandbox_only,
        refuses=tuple(refuses),
        request_example=request_example,
        reply_example=reply_example,
        upload=upload,
        interface=interface,
    )
    return {_OPT: access}


def access_of(opt: Mapping[str, Any]) -> Access | None:
    """Return what the route demands, or None when it says nothing."""
    access = opt.get(_OPT)
    return access if isinstance(access, Access) else None
