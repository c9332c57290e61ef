"""Pages that have a name of their own, so that a browser keeps them apart from all others.

A browser lets scripts and cookies of one origin at whatever else is there. So what operators see is
at a name where nothing else is, and at no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from tongbao.infra.serving.asgi import Scope, header_of
from tongbao.infra.settings import Settings
from tongbao.infra.web.problem import RouteUnknown


class OwnHosts:
    """The origins of mounted applications that share theirs with no other, by their prefixes."""

    def __init__(self, origins: Mapping[str, str]) -> None:
        self._hosts = {prefix: urlsplit(url).netloc.lower() for prefix, url in origins.items()}

    def check(self, prefix: str | None, scope: Scope) -> None:
        """Raise where such pages are asked for at another name, or others at theirs.

        Raises:
            RouteUnknown
        """
        if not self._hosts:
            return
        said, own = header_of(scope, b"host").lower(), self._hosts.get(prefix or "")
        if said != own if own is not None else said in self._hosts.values():
            raise RouteUnknown


NONE: Final = OwnHosts({})


def own_hosts_of(settings: Settings) -> OwnHosts:
    """Return the names that the settings give."""
    named = {"/console": settings.console_url, "/portal": settings.portal_url}
    return OwnHosts({prefix: url for prefix, url in named.items() if url is not None})
