"""Who asks: the panel's own pages on this machine, or a page from elsewhere."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from tongbao_sandbox.seam import Request

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def is_loopback(request: Request) -> bool:
    """Whether the request names this machine; a name that a stranger owns may point here too."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname in _LOOPBACK
    except ValueError:
        return False


def is_own(request: Request) -> bool:
    """Whether a page of this very sandbox sent the request, as its browser says."""
    host = request.headers.get("host", "")
    return is_loopback(request) and request.headers.get("origin") == f"http://{host}"
