"""What a browser asked, read out of ASGI: query, form, cookies, language, origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from tongbao.infra.card_watch import check_form
from tongbao.infra.web.problem import language_of
from tongbao.kernel.errors import Invalid

LANGUAGES: Final = ("zh", "en")
LANGUAGE_COOKIE: Final = "tongbao_language"
FIELDS_MAX: Final = 64
_MULTIPART: Final = re.compile(
    r'multipart/form-data;\s*boundary="?([0-9A-Za-z\'()+_,./:=?-]{1,70})"?'
)
_DISPOSITION: Final = re.compile(
    r'(?im)^content-disposition:\s*form-data;\s*name="([^"\r\n]{1,64})"'
    r'(?:;\s*filename="([^"\r\n]{0,255})")?\s*$'
)


class FormMalformed(Invalid):
    """A form or an address has more fields than any page of ours sends."""

    code = "page.form_malformed"
    advice = "Open the page again and use its own form."
    advice_zh = "请重新打开页面，并使用页面自带的表单。"


class Sent(Struct, frozen=True):
    """A file that came with a form; its name is what the sender calls it, and nothing of ours."""

    name: str
    content: bytes


class PageRequest(Struct, frozen=True):
    """One request of a browser; ``form`` is empty unless it posted one, ``files`` without any."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    cookies: Mapping[str, str]
    headers: Mapping[str, str]
    language: str
    client_ip: str
    files: Mapping[str, Sent] = {}

    @property
    def is_by_script(self) -> bool:
        """Whether htmx asks, and not a person who followed a link or sent a form."""
        return self.headers.get("hx-request") == "true"

    @property
    def is_for_whole_page(self) -> bool:
        """Whether a script asks for a page that a person could have asked for."""
        return self.is_by_script and self.headers.get("hx-request-type") == "full"

    def check_card_data(self) -> None:
        """Raise where a form or an address carries card data that it must not.

        Raises:
            CardNumberUnexpected, SecurityCodeNotTaken
        """
        check_form(self.query)
        check_form(self.form)

    def is_same_origin(self, public_url: str) -> bool:
        """Whether one of our own pages sent it, as far as the browser says.

        Browsers send ``Sec-Fetch-Site``, or at least ``Origin``, with every form that is posted; a
        program that sends neither has no cookies of anybody's to misuse.
        """
        site = self.headers.get("sec-fetch-site")
        if site is not None:
            return site in {"same-origin", "none"}
        origin = self.headers.get("origin")
        if origin is None:
            return True
        return origin == public_url or urlsplit(origin).netloc == self.headers.get("host")

    def is_followed_from_elsewhere(self) -> bool:
        """Whether a link on a foreign page was followed, so that strict cookies stayed home."""
        return (
            self.method == "GET"
            and self.headers.get("sec-fetch-site") == "cross-site"
            and self.headers.get("sec-fetch-mode") == "navigate"
        )


def read_request(scope: Mapping[str, Any]) -> PageRequest:
    """Return the request of an ASGI scope whose body was read already.

    Raises:
        FormMalformed
    """
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    cookies = _cookies(scope["headers"])
    client = scope.get("client")
    form, files = _form(headers.get("content-type", ""), scope["state"]["body"])
    return PageRequest(
        method="GET" if scope["method"] == "HEAD" else scope["method"],
        path=scope["path"],
        query=_fields(scope["query_string"]),
        form=form,
        cookies=cookies,
        headers=headers,
        language=_language(cookies, headers),
        client_ip=client[0] if client else "127.0.0.1",
        files=files,
    )


def _form(kind: str, body: bytes) -> tuple[dict[str, str], dict[str, Sent]]:
    """Return the fields and files of a form that was posted.

    Raises:
        FormMalformed
    """
    if kind.startswith("application/x-www-form-urlencoded"):
        return _fields(body), {}
    if (match := _MULTIPART.fullmatch(kind)) is None:
        return {}, {}
    # RFC 7578: every part begins with the boundary on a line of its own, the last is followed by
    # one that ends with two hyphens; nothing stands before or behind them.
    before, *parts = (b"\r\n" + body).split(b"\r\n--" + match[1].encode())
    if before or not parts or parts.pop().rstrip() != b"--" or len(parts) > FIELDS_MAX:
        raise FormMalformed(fields_max=FIELDS_MAX)
    fields: dict[str, str] = {}
    files: dict[str, Sent] = {}
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        named = _DISPOSITION.search(head.decode(errors="replace"))
        if named is None:
            raise FormMalformed
        if named[2] is None:
            fields[named[1]] = content.decode(errors="replace").replace("\0", "")
        elif named[2]:
            files[named[1]] = Sent(named[2], content)
    return fields, files


def _fields(encoded: bytes) -> dict[str, str]:
    """Return the fields that have a value; U+0000 is no text and is left out."""
    try:
        pairs = parse_qsl(encoded.decode("latin-1"), errors="replace", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise FormMalformed(fields_max=FIELDS_MAX) from None
    return {name: value.replace("\0", "") for name, value in pairs}


def _cookies(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name.lower() == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, text = part.strip().partition("=")
                found.setdefault(key, text)
    return found


def _language(cookies: Mapping[str, str], headers: Mapping[str, str]) -> str:
    chosen = cookies.get(f"__Host-{LANGUAGE_COOKIE}") or cookies.get(LANGUAGE_COOKIE, "")
    return chosen if chosen in LANGUAGES else language_of(headers.get("accept-language", ""))
