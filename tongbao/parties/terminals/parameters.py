"""What terminals are to do: templates, a terminal's own, and every version there was.

    effective = what everybody does, then the template's, then the terminal's own

A version's number only grows: going back makes a new version with the content of an old one, so
that what a terminal reports is never ambiguous.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.terminals import _store as store
from tongbao.parties.terminals.inventory import terminal_with_id
from tongbao.parties.terminals.model import (
    DEFAULTS,
    PREFIX,
    Parameters,
    ParametersVersion,
    ParametersVersionUnknown,
    Template,
    TemplateNotFound,
    Terminal,
    TerminalNotFound,
)

WHY_MAX: Final = 200


async def set_template(tx: Tx, name: str, parameters: Parameters, *, why: str) -> Template:
    """Make or change a template, and tell every terminal that follows it, in one commit.

    The parameters given are all that the template says from now on.
    """
    said = _plain(parameters)
    template = await store.INSERT_TEMPLATE.one(tx, new_id(), name, said, tx.now)
    row = (template.id, template.version, said, why, tx.now, tx.actor)
    await store.INSERT_TEMPLATE_VERSION.run(tx, *row)
    followers = await store.LOCK_FOLLOWERS.all(tx, template.id)
    told = (template.id, template.version, _plain(DEFAULTS), said, why, tx.now, tx.actor)
    await store.TELL_FOLLOWERS.run(tx, *told)
    await store.BUMP_FOLLOWERS.run(tx, template.id)
    facts: dict[str, Fact] = {
        "name": name,
        "version": template.version,
        "terminals": len(followers),
        "why": why,
    }
    await audit.record(tx, "terminal_template.changed", show("tpl", template.id), facts)
    return template


async def follow_template(tx: Tx, terminal_id: UUID, name: str | None, *, why: str) -> Terminal:
    """Have a terminal follow a template, or none.

    Raises:
        TerminalNotFound, TemplateNotFound
    """
    locked = await _locked(tx, terminal_id)
    template = await template_named(tx, name) if name is not None else None
    return await _tell(tx, locked, locked.own_parameters, template, why)


async def set_own_parameters(
    tx: Tx,
    terminal_id: UUID,
    parameters: Parameters,
    *,
    why: str,
    owner: tuple[UUID, Mode] | None = None,
) -> Terminal:
    """Give a terminal parameters of its own, over its template's; they replace those it had.

    Raises:
        TerminalNotFound
    """
    locked = await _locked(tx, terminal_id, owner)
    return await _tell(tx, locked, _plain(parameters), await _template_of(tx, locked), why)


async def roll_back(
    tx: Tx, terminal_id: UUID, version: int, *, owner: tuple[UUID, Mode] | None = None
) -> Terminal:
    """Give a terminal back the effective parameters of an old version, as its own, in a new one.

    A template that it follows goes on being followed, under these.

    Raises:
        TerminalNotFound, ParametersVersionUnknown
    """
    locked = await _locked(tx, terminal_id, owner)
    old = await store.GET_VERSION.first(tx, locked.id, version)
    if old is None:
        raise ParametersVersionUnknown(version=version)
    template = await _template_of(tx, locked)
    return await _tell(tx, locked, old.effective, template, f"back to version {version}")


async def template_named(on: Db | Tx, name: str) -> Template:
    """Return a template.

    Raises:
        TemplateNotFound
    """
    found = await store.FIND_TEMPLATE.first(on, name)
    if found is None:
        raise TemplateNotFound(name=name[:64])
    return found


async def list_templates(on: Db | Tx) -> list[Template]:
    """Return every template, by name."""
    return await store.TEMPLATES.all(on)


async def parameters_of(on: Db | Tx, terminal: Terminal) -> tuple[int, dict[str, Any]]:
    """Return what a terminal is to do now, with the version's number; 0 while nobody said."""
    if terminal.parameters_version == 0:
        return 0, _plain(DEFAULTS)
    found = await store.GET_VERSION.first(on, terminal.id, terminal.parameters_version)
    if found is None:
        raise LookupError(
            f"version {terminal.parameters_version} of {terminal.serial_number} is gone"
        )
    return found.version, found.effective


async def versions_of(on: Db | Tx, terminal_id: UUID) -> list[ParametersVersion]:
    """Return a terminal's versions, latest first; the fifty last."""
    return await store.VERSIONS.all(on, terminal_id)


async def _tell(
    tx: Tx, locked: Terminal, own: dict[str, Any], template: Template | None, why: str
) -> Terminal:
    version = locked.parameters_version + 1
    follows = (template.version, template.parameters) if template is not None else (None, {})
    effective = {**_plain(DEFAULTS), **follows[1], **own}
    row = (locked.id, version, follows[0], own, effective, why, tx.now, tx.actor)
    await store.INSERT_VERSION.one(tx, *row)
    template_id = template.id if template is not None else None
    await store.SET_PARAMETERS.run(tx, locked.id, own, template_id, version, tx.now)
    facts: dict[str, Fact] = {"serial": locked.serial_number, "version": version, "why": why}
    await audit.record(tx, "terminal.parameters_set", show(PREFIX, locked.id), facts)
    return await terminal_with_id(tx, locked.id)


async def _template_of(tx: Tx, terminal: Terminal) -> Template | None:
    if terminal.template_id is None:
        return None
    return await store.GET_TEMPLATE.one(tx, terminal.template_id)


async def _locked(tx: Tx, terminal_id: UUID, owner: tuple[UUID, Mode] | None = None) -> Terminal:
    locked = await store.LOCK_TERMINAL.first(tx, terminal_id)
    if locked is None or (owner is not None and (locked.merchant_id, locked.mode) != owner):
        raise TerminalNotFound
    return locked


def _plain(parameters: Parameters) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(parameters)
    return plain
