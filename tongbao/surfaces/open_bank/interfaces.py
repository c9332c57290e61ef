"""What an interface of the open bank declares: address, level, number, proof, and what is said.

Levels and numbers are those of JR/T 0185-2020: A1 is about products and services, A2 about
somebody's account or money. A level binds: nothing of A2 can be declared that anybody may call,
and whoever serves it asks for the proof that is declared.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao.infra.web.interface_numbers import Area, InterfaceNumber, Level
from tongbao.infra.web.problem import MethodNotAllowed, RouteUnknown
from tongbao.parties.consents.model import Consent, Scope
from tongbao.parties.partners.model import Kind, Partner
from tongbao.surfaces.open_bank.client_proof import prove_partner
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import Asked, prove_access, prove_consent
from tongbao.surfaces.page_kit.replies import Reply

_ID: Final = r"[a-z]{2,8}_[0-9a-z]{1,40}"
_REF: Final = "#/components/schemas/{name}"
_FORM: Final = "application/x-www-form-urlencoded"


class ByAnybody(Struct, frozen=True):
    """Served without proof, for it tells nothing about anybody."""

    serve: Callable[[Desk, Asked], Awaitable[Reply]]


class ByPartner(Struct, frozen=True):
    """Served to a partner that signs a client assertion, or whose certificate proves it."""

    serve: Callable[[Desk, Asked, Partner], Awaitable[Reply]]


class ByConsent(Struct, frozen=True):
    """Served on a person's consent of this kind, by a token that is bound to the partner's key."""

    serve: Callable[[Desk, Asked, Consent, Mapping[str, str]], Awaitable[Reply]]
    kind: Kind | None = None
    permission: str | None = None


class ByAccess(Struct, frozen=True):
    """Served to a partner by its own token of this scope, before anybody has consented."""

    serve: Callable[[Desk, Asked, Partner, Mapping[str, str]], Awaitable[Reply]]
    scope: Scope


Way = ByAnybody | ByPartner | ByAccess | ByConsent


class LevelTooLow(TypeError):
    """An interface of level A2 asks nobody for a proof: a bug that must not be served."""


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why not: a word of OAuth's, or the code of a refusal of ours."""

    error: str
    error_description: str
    facts: dict[str, Any] = {}


class Interface(Struct, frozen=True, dict=True):
    """One method of one address; ``number`` is its own for ever."""

    method: str
    path: str
    level: Level
    service: Area
    number: int
    way: Way
    answers: type[Struct] | None = None  # None: a document of a form of its own
    status: int = 200
    form: tuple[str, ...] = ()
    takes: type[Struct] | None = None
    query: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        if self.level is Level.A2 and isinstance(self.way, ByAnybody):
            raise LevelTooLow(self.path)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its addresses look like."""
        parts = [
            f"(?P<{part[1:-1]}>{_ID})" if part.startswith("{") else re.escape(part)
            for part in self.path.split("/")
        ]
        return re.compile("/".join(parts))

    def api_id(self, bank_code: str) -> str:
        """Return its U_API_ID."""
        return self.numbered.api_id(bank_code)

    @property
    def numbered(self) -> InterfaceNumber:
        """Its level and number, as other routes have them."""
        return InterfaceNumber(self.level, self.service, self.number)

    async def serve(self, desk: Desk, asked: Asked, params: Mapping[str, str]) -> Reply:
        """Ask for the proof that is declared, count the request against its partner, and answer.

        Raises:
            OAuthError, TooManyRequests, Refusal
        """
        match self.way:
            case ByAnybody(serve=anybody):
                return await anybody(desk, asked)
            case ByPartner(serve=partner):
                who = await prove_partner(desk, asked)
                await desk.limits.take_from((who.id, who.mode))
                return await partner(desk, asked, who)
            case ByAccess(serve=access, scope=scope):
                who = await prove_access(desk, asked, scope)
                await desk.limits.take_from((who.id, who.mode))
                return await access(desk, asked, who, params)
            case ByConsent(serve=consent, kind=kind, permission=permission):
                found = await prove_consent(desk, asked, kind, permission)
                await desk.limits.take_from((found.partner_id, found.mode))
                return await consent(desk, asked, found, params)


def interface_at(
    interfaces: Sequence[Interface], method: str, path: str
) -> tuple[Interface, dict[str, str]]:
    """Return the interface at an address, and what the address names.

    Raises:
        RouteUnknown, MethodNotAllowed
    """
    at = [(each, found) for each in interfaces if (found := each.pattern.fullmatch(path))]
    for each, found in at:
        if each.method == method:
            return each, found.groupdict()
    if at:
        raise MethodNotAllowed(allow=", ".join(sorted({each.method for each, _ in at})))
    raise RouteUnknown


def describe(interfaces: Sequence[Interface], issuer: str, bank_code: str) -> dict[str, Any]:
    """Return the OpenAPI document of the interfaces, level and U_API_ID with each."""
    kinds: list[type[Struct]] = [Problem]
    for each in interfaces:
        kinds += [kind for kind in (each.answers, each.takes) if kind is not None]
    wanted = list(dict.fromkeys(kinds))
    _, components = msgspec.json.schema_components(wanted, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in interfaces:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, bank_code)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tongbao open bank",
            "version": "1",
            "description": "What third parties see and do with a person's consent.",
        },
        "servers": [{"url": issuer}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


_SCHEMES: Final = {
    "partner": {
        "type": "http",
        "scheme": "private_key_jwt",
        "description": "A client assertion in the form (RFC 7523), good once; `aud` is the issuer."
        " Or the certificate of the connection and `client_id` (RFC 8705 §2).",
    },
    "consent": {
        "type": "http",
        "scheme": "DPoP",
        "description": "`Authorization: DPoP <access token>` and a proof in `DPoP` (RFC 9449);"
        " one that is bound to a certificate as `Bearer`, over its connection (RFC 8705 §3).",
    },
}
_SCHEMES["access"] = _SCHEMES["consent"]
_SECURITY: Final[Mapping[type[Way], list[dict[str, list[str]]]]] = {
    ByAnybody: [],
    ByPartner: [{"partner": []}],
    ByAccess: [{"access": []}],
    ByConsent: [{"consent": []}],
}


def _operation(interface: Interface, bank_code: str) -> dict[str, Any]:
    handler = interface.way.serve
    summary, _, more = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
    described: dict[str, Any] = {
        "operationId": handler.__name__,
        "summary": summary.rstrip("."),
        "description": " ".join(more.partition("Raises:")[0].split()),
        "parameters": _parameters(interface),
        "security": _SECURITY[type(interface.way)],
        "responses": _responses(interface),
        **interface.numbered.described(bank_code),
    }
    if isinstance(interface.way, ByConsent):
        way = interface.way
        described["x-consent"] = {"type": way.kind, "permission": way.permission}
    if interface.form:
        fields = {name: {"type": "string"} for name in interface.form}
        schema = {"type": "object", "properties": fields}
        described["requestBody"] = {"required": True, "content": {_FORM: {"schema": schema}}}
    if interface.takes is not None:
        described["requestBody"] = {"required": True, "content": _json(interface.takes)}
    return described


def _parameters(interface: Interface) -> list[dict[str, Any]]:
    named = [part[1:-1] for part in interface.path.split("/") if part.startswith("{")]
    schema = {"type": "string", "pattern": f"^{_ID}$"}
    return [
        *({"name": each, "in": "path", "required": True, "schema": schema} for each in named),
        *(
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in interface.query.items()
        ),
    ]


def _responses(interface: Interface) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    if interface.answers is not None:
        done["content"] = _json(interface.answers)
    responses = {str(interface.status): done}
    if interface.status == 201 and interface.takes is None and not interface.form:
        responses["200"] = {**done, "description": "Done before."}
    refused = {"description": "Not done.", "content": _json(Problem)}
    return {**responses, "4XX": refused, "5XX": refused}


def _json(kind: type[Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}}
