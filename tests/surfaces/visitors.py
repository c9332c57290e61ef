"""Visitors of the pages for people: with a browser's manners, and with a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

import httpx2 as httpx
import pyotp
from msgspec import Struct

from tests.outsiders import lacking
from tests.stage import Stage
from tongbao.parties.identity.model import Role
from tongbao.parties.identity.operators import create_operator

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PASSWORD = "correct horse battery staple"


class Person(Struct, frozen=True):
    """An operator with what they know and what they hold."""

    login: str
    totp: pyotp.TOTP
    password: str = PASSWORD

    @property
    def code(self) -> str:
        return self.totp.now()


async def hire(stage: Stage, role: Role = Role.ADMIN, login: str = "chen.yu") -> Person:
    """Add an operator."""
    async with stage.platform.db.begin("tests") as tx:
        enrolment = await create_operator(
            tx, stage.platform.keyring, login=login, name="陈羽", role=role, password=PASSWORD
        )
    return Person(login, pyotp.TOTP(enrolment.totp_secret.reveal()))


class Form(Struct):
    """One form of a page."""

    action: str
    method: str
    fields: dict[str, str]


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given.get("action", ""), given.get("method", "get"), {}))
            self._open = True
        elif tag in {"input", "textarea", "select"} and self._open and "name" in given:
            self.found[-1].fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "form"


class Reader:
    """A browser without a picture: cookies, forms, redirects, and headers as a browser sends."""

    def __init__(self, url: str, language: str = "en") -> None:
        self.url = url
        # No TLS here, and a context for it takes 30 ms.
        self.client = httpx.AsyncClient(trust_env=False, verify=False, follow_redirects=False)
        self.client.headers["accept-language"] = language
        self.page: httpx.Response | None = None

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Open an address as a link of our own would."""
        sent = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate", **headers}
        self.page = await self.client.get(urljoin(self.url, path), headers=sent)
        return self.page

    async def follow(self, reply: httpx.Response) -> httpx.Response:
        """Go where a reply sends us."""
        assert reply.status_code == 303, (reply.status_code, reply.text)
        return await self.get(reply.headers["location"])

    def form(self, action: str) -> Form:
        """Return the form of the page that is sent to an address."""
        assert self.page is not None
        parser = _Forms()
        parser.feed(self.page.text)
        found = [form for form in parser.found if form.action == action]
        assert found, (action, [form.action for form in parser.found])
        return found[0]

    async def post(self, path: str, fields: Mapping[str, str], **headers: str) -> httpx.Response:
        """Send a form as a page of our own would."""
        sent = {
            "content-type": "application/x-www-form-urlencoded",
            "sec-fetch-site": "same-origin",
            **headers,
        }
        body = urlencode(fields).encode()
        return await self.client.post(urljoin(self.url, path), content=body, headers=sent)

    async def send(self, action: str, **fields: str) -> httpx.Response:
        """Fill in a form of the present page and send it."""
        form = self.form(action)
        return await self.post(form.action, {**form.fields, **fields})

    async def log_in(self, person: Person, **fields: str) -> httpx.Response:
        """Fill in the login form."""
        await self.get("/console/login")
        given = {"login": person.login, "password": person.password, "code": person.code}
        return await self.send("/console/login", **{**given, **fields})


@asynccontextmanager
async def reader(stage: Stage, person: Person | None = None, **how: str) -> AsyncIterator[Reader]:
    """A reader, logged in when there is somebody to be."""
    one = Reader(stage.url, **how)
    try:
        if person is not None:
            await one.follow(await one.log_in(person))
        yield one
    finally:
        await one.client.aclose()


def needs_chromium() -> None:
    """Skip, or fail where a browser is promised."""
    if CHROMIUM is None:
        lacking("browser", "there is no chromium in the path")


class Watched(Struct):
    """A browser's page, and what nobody wants to see about it."""

    page: Any
    complaints: list[str]
    foreign: list[str]


@asynccontextmanager
async def browsing(stage: Stage, *, alone: bool = False, **options: Any) -> AsyncIterator[Watched]:
    """A real browser on the platform, watched for console errors and foreign requests.

    It knows nothing of earlier visits. The program is started once, and a profile with a page is
    made once for all visits with the same options: making them costs more than most visits. A test
    that puts something into the page that cannot be taken out again, such as a script, a key or an
    answer to dialogs, is ``alone``: nobody gets its page after it.
    """
    options = {"locale": "zh-CN", "viewport": {"width": 1280, "height": 900}, **options}
    named = repr(sorted(options.items()))
    if named not in _profiles:
        _profiles[named] = await (await _browser()).new_context(**options)
    context = _profiles[named]
    page = _pages.pop(named, None) or await context.new_page()
    watched = Watched(page, [], [])
    listening = {
        "console": lambda message: _note(watched, message),
        "pageerror": lambda error: watched.complaints.append(str(error)),
        "request": lambda asked: _origin(watched, stage.url, asked.url),
    }
    try:
        devtools = await context.new_cdp_session(page)
        await devtools.send("Network.clearBrowserCache")
        everything = {"origin": stage.url, "storageTypes": "all"}
        await devtools.send("Storage.clearDataForOrigin", everything)
        await devtools.send("Page.resetNavigationHistory")
        await devtools.detach()
        for event, heard in listening.items():
            page.on(event, heard)
        yield watched
        for event, heard in listening.items():
            page.remove_listener(event, heard)
        if not alone:
            await page.unroute_all()
            await page.set_viewport_size(options["viewport"])
            await page.goto("about:blank")
            _pages[named] = page
    finally:
        for each in context.pages:
            if each is not _pages.get(named):
                await each.close()
        await context.clear_cookies()


def asked_from_now(page: Any) -> list[str]:
    """What a page asks for, from now on, but its files: an icon may come seconds after the page."""
    asked: list[str] = []

    def note(request: Any) -> None:
        if "/static/" not in request.url:
            asked.append(request.url)

    page.on("request", note)
    return asked


async def picture(page: Any, name: str) -> None:
    """Keep a picture of the page where TONGBAO_PICTURES names a folder; one takes half a second."""
    if folder := os.environ.get("TONGBAO_PICTURES"):
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


_running: list[Any] = []
_profiles: dict[str, Any] = {}
_pages: dict[str, Any] = {}
"""A blank page of each profile, for the next visit."""


async def _browser() -> Any:
    from playwright.async_api import async_playwright

    needs_chromium()
    if not _running:
        play = await async_playwright().start()
        _running[:] = [play, await play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)]
    return _running[-1]


async def close_browser() -> None:
    """End the browser, if anybody used it."""
    if _running:
        play, browser = _running
        _running.clear()
        _profiles.clear()
        _pages.clear()
        await browser.close()
        await play.stop()


def _note(watched: Watched, message: Any) -> None:
    if message.type in {"error", "warning"}:
        watched.complaints.append(f"{message.type}: {message.text}")


def _origin(watched: Watched, ours: str, url: str) -> None:
    if not url.startswith((f"{ours}/", "data:")):
        watched.foreign.append(url)
