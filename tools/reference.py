"""Write the pages of docs/reference that repeat what the code declares: ``make docs``.

A page is made whole from the code, its introduction included, so that nobody edits it by hand; the
index in docs/README.md is made from the titles of the pages. A test compares both.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import click
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from tongbao.__main__ import main as tongbao
from tongbao.infra.settings import CONFIG_VARIABLE, SETTINGS
from tongbao.infra.web.caller import access_of
from tongbao.infra.web.problem import status_of
from tongbao.surfaces.open_bank.app import INTERFACES
from tongbao.surfaces.uk_open_banking.app import UK_INTERFACES
from tools import asvs, house, ledger_results, python_types, typescript
from tools.house import ROOT

DOCS: Final = ROOT / "docs"
GENERATED: Final = "<!-- Made by `make docs` from the code; edit the code. -->"
INDEX_START: Final = "<!-- index: made by `make docs` -->"
INDEX_END: Final = "<!-- end of index -->"
SHELVES: Final = {
    "tutorial": "Tutorial: learn by doing",
    "how-to": "How-to: reach one goal",
    "explanation": "Explanation: understand why",
    "reference": "Reference: look it up",
    "adr": "Decisions: what was chosen, and against what",
}

BESIDE: Final = {
    "/.well-known/oauth-authorization-server": "what the open bank's server is (RFC 8414)",
    "/audit/checkpoint": "the newest signed checkpoint of the audit log",
    "/callbacks": "where channels report; the path names an account, the signature proves it",
    "/console": "the operator console: login with password and code before any page",
    "/docs": "the API reference as pages; open, and shows nothing about anybody",
    "/healthz": "whether this process runs",
    "/hosted_wallet": "a merchant's users open and use wallets: for who has a link, then by login",
    "/ledger/keys": "the keys that checkpoints of the ledger are signed with",
    "/ledger/verifier": "the program that checks receipts, to keep and to read",
    "/metrics": "how it fares, for Prometheus",
    "/my_consents": "who may see and do what with one's accounts: by login and code",
    "/oauth": "the open bank: partners prove themselves by signature, people by login and code",
    "/open_bank": "people's accounts and payments, by a DPoP-bound token on a consent of theirs",
    "/openapi.json": "the OpenAPI document",
    "/pay": "the hosted cashier: for whoever has the unguessable address of a checkout or plate",
    "/readyz": "whether it can serve",
    "/table": "restaurant tables: the menu and the tab, for who has the unguessable address of one",
    "/terminals": "a terminal's own connection: its key proves it; its code when it is activated",
    "/terminals/v1/staff": "a merchant's people at a terminal: its key, their PIN, their role",
    "/v1/me": "people's own phones: a key of the phone signs every request",
    "/v1/me/openapi.json": "the OpenAPI document for people's own phones",
    "/v1/openapi.json": "the OpenAPI document of this version",
}


def refusals_page() -> str:
    """Return the error catalogue, one heading per code."""
    lines = [
        "# Refusals 错误码",
        GENERATED,
        "",
        "What the platform understood and did not do. A refusal changes nothing. Over HTTP it is",
        "RFC 9457 problem details with this `code`, which never changes its meaning; `advice` is",
        "in the language of `Accept-Language` (`en` or `zh`).",
        "",
        "错误码长期不变；被拒绝的请求不产生任何变更。",
    ]
    area = ""
    for refusal in house.refusals():
        if (prefix := refusal.code.partition(".")[0]) != area:
            area = prefix
            lines += ["", f"## {area}"]
        more = house.rest_of_text(refusal)
        lines += [
            "",
            f'<a id="{refusal.code}"></a>',
            "",
            f"### `{refusal.code}` ({status_of(refusal)})",
            "",
            prose(f"{house.one_line(refusal)} {more}".strip()),
            "",
            f"- What to do: {prose(refusal.advice)}",
            f"- 处理：{prose(refusal.advice_zh)}",
        ]
    return page(lines)


def ledger_results_page() -> str:
    """Return what the ledger answers, each with an example."""
    return page(ledger_results.page_lines(GENERATED))


def security_page() -> str:
    """Return how the map of OWASP ASVS is read, and its counts."""
    return page(asvs.page_lines(GENERATED))


def settings_page() -> str:
    """Return the table of settings."""
    return page(
        [
            "# Settings",
            GENERATED,
            "",
            "Read once at the start: from the environment, and from a TOML file named by",
            f"`--config` or `{CONFIG_VARIABLE}`, where the environment wins. A name nobody knows",
            "is refused. Secrets print as stars.",
            "",
            *table(
                ["variable", "TOML key", "default", "meaning"],
                [[f"`{s.env}`", f"`{s.name}`", s.default, s.meaning] for s in SETTINGS],
            ),
        ]
    )


def events_page() -> str:
    """Return the list of events with their fields."""
    introduction = [
        "# Events",
        GENERATED,
        "",
        "Facts, written in the transaction that made them and told at least once. An event with an",
        "`object` is public: its merchant lists it at `/v1/events` and receives it by webhook.",
        "Fields are only ever added.",
    ]
    return page([*introduction, *tagged(house.events())])


def tasks_page() -> str:
    """Return the list of tasks with their arguments."""
    introduction = [
        "# Tasks",
        GENERATED,
        "",
        "Orders to a worker, enqueued with the fact that asks for them, run at least once. The",
        "name is stored with the task and outlives renames in the code.",
    ]
    return page([*introduction, *tagged(house.tasks())])


def metrics_page() -> str:
    """Return the table of metrics."""
    rows = [
        [f"`{metric.name}`", metric.type, labels, metric.documentation]
        for metric, labels in metrics()
    ]
    return page(
        [
            "# Metrics",
            GENERATED,
            "",
            "Served at `/metrics` in the Prometheus text format. Counters end in `_total` there.",
            "",
            *table(["name", "kind", "labels", "meaning"], rows),
        ]
    )


def routes_page() -> str:
    """Return the table of HTTP routes."""
    rows = [
        [f"`{method}`", f"`{path}`", needed, house.one_line(handler.fn)]
        for path, method, needed, handler in routes()
    ]
    return page(
        [
            "# Routes",
            GENERATED,
            "",
            "The OpenAPI document at `/openapi.json` has the bodies; this is the overview. A scope",
            "is what the caller's key must hold; a star marks routes that take an",
            "`Idempotency-Key`.",
            "",
            *table(["method", "path", "scope", "what it does"], rows),
            "",
            "## Beside the API",
            "",
            "Not signed with a merchant's key; each has its own rights.",
            "",
            *table(["path", "what it is"], [[f"`{path}`", what] for path, what in BESIDE.items()]),
            "",
            "## The open bank",
            "",
            "Level and U_API_ID are those of JR/T 0185-2020: `OP`, the firm's code (`bank_code`),",
            "the level, the service, a number. A1 tells nothing about anybody; A2 takes a proof by",
            "a key of the partner's with every request. `/open-banking` is there where the setting",
            "`uk_open_banking` says so.",
            "",
            *table(
                ["method", "path", "level", "U_API_ID", "what it does"],
                [
                    [
                        *(f"`{each.method}`", f"`{each.path}`", each.level.value),
                        *(f"`{each.api_id('0' * 6)}`", house.one_line(each.way.serve)),
                    ]
                    for each in (*INTERFACES, *UK_INTERFACES)
                ],
            ),
            "",
            "Merchants' programs are third parties to people's wallets: these routes of the API",
            "above have level and U_API_ID too, and ask for the scope by a signature.",
            "",
            *table(
                ["method", "path", "level", "U_API_ID"],
                [
                    [
                        *(f"`{method}`", f"`{path}`", access.interface.level.value),
                        f"`{access.interface.api_id('0' * 6)}`",
                    ]
                    for method, path, _, handler in routes()
                    if (access := access_of(handler.opt)) and access.interface
                ],
            ),
        ]
    )


def cli_page() -> str:
    """Return every command with what it takes."""
    lines = [
        "# Command line",
        GENERATED,
        "",
        "`tongbao [--config FILE] [--json] COMMAND`. Facts go to stdout, progress and refusals to",
        "stderr; `--json` makes facts readable for machines. Exit code 0: done; 1: refused, or",
        "something that was looked at is not right; 2: the command itself is mistyped.",
        "",
        *table(["option of all", "meaning"], _options(tongbao)),
    ]
    for words, command in commands(tongbao):
        taken = [each for each in command.params if isinstance(each, click.Argument)]
        shown = "".join(f" {str(each.name).upper()}" for each in taken)
        lines += ["", f"## `tongbao {words}`", "", prose(house.one_line(command.callback))]
        lines += [prose(rest)] if (rest := house.rest_of_text(command.callback)) else []
        lines += ["", f"Call: `tongbao {words}{shown}`"] if taken else []
        if options := _options(command):
            lines += ["", *table(["option", "meaning"], options)]
    return page(lines)


def commands(group: click.Group, words: str = "") -> list[tuple[str, click.Command]]:
    """Return every command below a group with the words that call it."""
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        called = f"{words} {name}".strip()
        found.append((called, command))
        found += commands(command, called) if isinstance(command, click.Group) else []
    return found


def _options(command: click.Command) -> list[list[str]]:
    rows = []
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_eager:
            value = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
            default = option.default if option.show_default else None
            more = f" Default: `{default}`." if default is not None else ""
            more += " Required." if option.required else ""
            rows.append([f"`{option.opts[0]}{value}`", f"{option.help}{more}"])
    return rows


def metrics() -> list[tuple[Metric, str]]:
    """Return every metric the platform declares, with its labels, by name."""
    found = [
        (metric, ", ".join(f"`{label}`" for label in getattr(each.thing, "_labelnames", ())))
        for each in house.instances_of(MetricWrapperBase)
        for metric in each.thing.describe()
    ]
    return sorted(found, key=lambda pair: pair[0].name)


def routes() -> list[tuple[str, str, str, HTTPRouteHandler]]:
    """Return path, method, needed scope and handler of every route, by path."""
    found = []
    for each in house.instances_of(HTTPRouteHandler):
        handler: HTTPRouteHandler = each.thing
        access = access_of(handler.opt)
        needed = f"`{access.scope}`{' *' if access.idempotent else ''}" if access else ""
        found += [
            (re.sub(r":\w+}", "}", path), str(method), needed, handler)
            for path in handler.paths
            for method in handler.http_methods
        ]
    return sorted(found, key=lambda route: route[:2])


def tagged(kinds: Iterable[type[Struct]]) -> list[str]:
    """Return a section per event or task: its tag, its sentence, its own fields."""
    lines: list[str] = []
    for kind in kinds:
        inherited = kind.__mro__[1].__annotations__
        own = [
            f"- `{name}`: `{type_ if isinstance(type_, str) else inspect.formatannotation(type_)}`"
            for name, type_ in inspect.get_annotations(kind).items()
            if name not in inherited
        ]
        lines += ["", f"## `{house.tag_of(kind)}`", "", house.one_line(kind)]
        lines += ["", *own] if own else []
    return lines or ["", "None yet."]


def prose(text: str) -> str:
    """Return text so that Markdown shows its angle brackets, code spans aside."""
    spans = text.split("`")
    return "`".join(s if place % 2 else s.replace("<", "&lt;") for place, s in enumerate(spans))


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Return a Markdown table."""
    lines = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    rule = ["---"] * len(head)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *lines)]


def page(lines: Iterable[str]) -> str:
    """Return the text of a page."""
    return "\n".join(lines) + "\n"


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/refusals.md": refusals_page,
    "reference/ledger-results.md": ledger_results_page,
    "reference/security.md": security_page,
    "reference/settings.md": settings_page,
    "reference/events.md": events_page,
    "reference/tasks.md": tasks_page,
    "reference/metrics.md": metrics_page,
    "reference/routes.md": routes_page,
    "reference/cli.md": cli_page,
}


def index() -> str:
    """Return docs/README.md with the list of pages made anew."""
    text = (DOCS / "README.md").read_text("utf-8")
    before, _, rest = text.partition(INDEX_START)
    after = rest.partition(INDEX_END)[2]
    lines = [INDEX_START]
    for folder, title in SHELVES.items():
        pages = sorted((DOCS / folder).glob("*.md"))
        lines += ["", f"## {title}", "", *[f"- [{title_of(p)}]({folder}/{p.name})" for p in pages]]
        lines += [] if pages else ["Nothing yet."]
    return before + "\n".join([*lines, "", INDEX_END]) + after


def title_of(path: Path) -> str:
    """Return the first heading of a Markdown page."""
    heading = re.search(r"^# (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return heading[1] if heading else path.stem


def main() -> None:
    """Write every generated page whose text has changed."""
    made = {DOCS / name: write for name, write in PAGES.items()} | {DOCS / "README.md": index}
    for path, write in made.items():
        text = write()
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    typescript.main()
    python_types.main(typescript.document())


if __name__ == "__main__":
    main()
