"""Templates: Jinja with escaping always on, and the few ways figures and times are written."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Final

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.ids import show
from tongbao.kernel.money import Money
from tongbao.surfaces.page_kit import assets
from tongbao.surfaces.page_kit.texts import Texts, load_texts

KIT: Final = Path(__file__).parent / "templates"


class Templates:
    """The templates of one set of pages, with its files and its texts in every language."""

    def __init__(self, folder: Path, files: assets.Assets, texts: Mapping[str, Texts]) -> None:
        self.assets = files
        self.texts = texts
        self._environment = Environment(
            loader=FileSystemLoader([folder, KIT]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            asset=files.__getitem__,
            figures=figures,
            moment=moment,
            money=money,
            public_id=show,
        )
        self._environment.filters.update(pretty=pretty, prose=prose)

    def render(self, name: str, language: str, **facts: object) -> str:
        """Return a template filled in; a name it lacks is a bug and raises."""
        texts = self.texts[language]
        template = self._environment.get_template(name)
        return template.render(
            t=texts, named=texts.named, language=language, lasting=partial(lasting, texts), **facts
        )


@cache
def templates_of(prefix: str, folder: Path) -> Templates:
    """Return what a set of pages below a prefix is made of, read once in a process.

    Its folder holds ``templates``, ``static`` and ``texts``; the kit adds its own to the first two.
    """
    files = assets.Assets(f"{prefix}/static", [assets.KIT, folder / "static"])
    return Templates(folder / "templates", files, load_texts(folder / "texts"))


def new_nonce() -> str:
    """Return what this page's own scripts are known by, and no other page's."""
    return secrets.token_urlsafe(18)


def figures(amount: int, currency: str) -> str:
    """Return an amount in major units with its thousands apart: 1,234.56."""
    whole, point, part = Money(abs(amount), currency).decimal_text().partition(".")
    return f"{'−' if amount < 0 else ''}{int(whole):,}{point}{part}"


def money(amount: int, currency: str) -> Markup:
    """Return an amount for people, its currency always beside it."""
    text = Markup('<span class="money">{} <span class="currency">{}</span></span>')
    return text.format(figures(amount, currency), currency)


def moment(at: datetime, *, day: bool = True, fine: bool = False) -> Markup:
    """Return a time where the business is, to the second, or ``fine`` to the millisecond."""
    local = at.astimezone(BUSINESS_ZONE)
    shown = local.strftime("%Y-%m-%d %H:%M:%S" if day else "%H:%M:%S")
    if fine:
        shown += f".{local.microsecond // 1000:03}"
    exact = local.isoformat(timespec="milliseconds")
    return Markup('<time datetime="{}">{}</time>').format(exact, shown)


def pretty(value: object) -> str:
    """Return a value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def prose(text: str) -> Markup:
    """Return a sentence of a docstring, its code spans set as code."""
    spans = text.replace("``", "`").split("`")
    code = Markup("<code>{}</code>")
    return Markup("").join(
        code.format(span) if place % 2 else escape(span) for place, span in enumerate(spans)
    )


def lasting(texts: Texts, stretch: timedelta) -> str:
    """Return a stretch of time in the largest unit that says enough: 3 min, 2 h, 4 days."""
    seconds = max(0, int(stretch.total_seconds()))
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length or (unit == "minutes" and seconds >= length):
            return texts(f"lasting.{unit}", count=seconds // length)
    return texts("lasting.seconds", count=seconds)
