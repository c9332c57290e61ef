"""Refusals: what the platform understood and did not do, with a stable code and without HTTP.

    Refusal
    ├── Invalid     the request itself is malformed                     (400)
    ├── Unauthenticated  nobody we know, or not provably                (401)
    ├── Forbidden   known, but not allowed                              (403)
    ├── NotFound    no such thing for this caller                       (404)
    ├── Conflict    the thing is in another state, or the key was used  (409)
    ├── TooLarge    more than the stated limit                          (413)
    ├── Rejected    a business rule says no                             (422)
    └── Busy        try again later, with the same key                  (503)
        └── Overloaded  more is asked than can be queued                (429)

The numbers are here for the reader only; `tongbao.infra.web` owns the mapping.
"""

from __future__ import annotations

from typing import ClassVar

Fact = str | int | bool | None


class Refusal(Exception):
    """Understood, not done, nothing changed.

    A leaf class states its ``code`` (stable, dotted, public for ever) and what the caller may do
    about it in English and Chinese. ``facts`` are shown to the caller, so they never hold a
    secret, a card number or another tenant's name.
    """

    code: ClassVar[str] = "refused"
    advice: ClassVar[str] = "Read the code and its page in the error catalogue."
    advice_zh: ClassVar[str] = "请查阅错误码说明。"

    def __init__(self, *, param: str | None = None, **facts: Fact) -> None:
        self.param = param
        self.facts = facts
        shown = ", ".join(f"{name}={value}" for name, value in facts.items())
        super().__init__(f"{self.code}({shown})")


class Invalid(Refusal):
    """The request is malformed; it never reached a domain."""


class Unauthenticated(Refusal):
    """The caller could not be proved to be anybody."""


class Forbidden(Refusal):
    """The caller is known and may not do this."""


class NotFound(Refusal):
    """There is no such thing, or not for this caller: the two are not told apart."""


class Conflict(Refusal):
    """The thing exists and its state, or an earlier use of the key, forbids this."""


class TooLarge(Refusal):
    """The input is larger than the stated limit."""


class Rejected(Refusal):
    """Well formed and allowed, but a business rule says no."""


class Busy(Refusal):
    """Not now: repeat the same request with the same key after ``retry_after_s`` seconds."""

    retry_after_s: ClassVar[int] = 1


class Overloaded(Busy):
    """More waits than is taken; nothing was begun, and fewer callers at once would be served."""


def leaf_refusals(root: type[Refusal] = Refusal) -> list[type[Refusal]]:
    """Return every concrete refusal class that has been imported, for the error catalogue."""
    leaves: list[type[Refusal]] = []
    for child in root.__subclasses__():
        if "code" in vars(child):
            leaves.append(child)
        leaves.extend(leaf_refusals(child))
    return leaves
