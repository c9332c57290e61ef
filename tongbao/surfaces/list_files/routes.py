"""Where each list is as a file: beside its page."""

from __future__ import annotations

from functools import partial
from typing import Final

from tongbao.parties.identity.model import Permission
from tongbao.surfaces.list_files import clearing, parties
from tongbao.surfaces.list_files.sending import send_list
from tongbao.surfaces.operator_console.visit import Route

ROUTES: Final = tuple(
    Route(
        "GET",
        f"/{each.name}.csv",
        partial(send_list, each),
        Permission.VIEW,
        is_licensed=each in clearing.LICENSED,
    )
    for each in (*parties.LISTS, *clearing.ALWAYS, *clearing.LICENSED)
)
