"""Statements of others in the console: a source by two people, files row by row, rules, re-runs."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stage import Stage
from tests.surfaces.test_console_clearing import finance
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.clearing.sources import ingest
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.parties.identity.model import Role
from tongbao.rails import channels
from tongbao.surfaces import operator_console
from tongbao.surfaces.page_kit.requests import FIELDS_MAX, FormMalformed, Sent, read_request
from tongbao.surfaces.page_kit.texts import load_texts

assert finance
SOURCES, MATCHING = "/console/sources", "/console/matching"
LAYOUT = """
name = "partner.daily"
en = "A partner's daily list"
zh = "合作方日清单"
format = "delimited"
separator = "|"
header = "number"
[fields]
number = { column = "number" }
amount = { column = "amount" }
at = { column = "at", format = "%Y%m%d" }
[trailer]
begins = "TOTAL"
pattern = "TOTAL\\\\|(?P<count>\\\\d+)\\\\|"
"""
RULE = """
name = "{name}"
en = "Partner against bank"
zh = "合作方与银行"
left = "source:{left}"
right = "source:{right}"
waits_days = 0
[[passes]]
left = ["number"]
right = ["number"]
"""


def listing(day: date, *rows: str, total: int | None = None) -> bytes:
    lines = ["number|amount|at", *(f"{row}|{day:%Y%m%d}" for row in rows)]
    count = len([row for row in rows if "|" in row]) if total is None else total
    return "\n".join([*lines, f"TOTAL|{count}|", ""]).encode()


class Room:
    """Finance at the desk, and a colleague who agrees."""

    def __init__(self, stage: Stage, finance: Reader) -> None:
        self.stage, self.finance = stage, finance
        self.day = business_date(stage.db.clock.now()) - timedelta(days=1)

    async def agreed(self, reply: httpx.Response) -> str:
        """Have the colleague agree to what was proposed, and the worker do it."""
        inbox = str((await self.finance.follow(reply)).url.path)
        async with reader(
            self.stage, await hire(self.stage, Role.FINANCE, f"li.{new_id().hex}"[:20])
        ) as second:
            seen = await second.get(inbox)
            await second.follow(await second.send(f"{inbox}/approve"))
        await self.stage.idle()
        return seen.text

    async def source(self, name: str, layout: str = LAYOUT) -> str:
        await self.finance.get(SOURCES)
        fields = {"name": name, "layout": layout, "mode": "live", "reason": "a new partner"}
        return await self.agreed(
            await self.finance.send(SOURCES, **fields, valid_from="2026-01-01")
        )

    async def send(self, name: str, content: bytes, day: date | None = None) -> httpx.Response:
        await self.finance.get(f"{SOURCES}/{name}")
        form = self.finance.form(f"{SOURCES}/{name}/files")
        reply = await self.finance.client.post(
            f"{self.finance.url}{form.action}",
            data={**form.fields, "day": str(day or self.day)},
            files={"file": ("list <1>.txt", content, "text/plain")},
            headers={"sec-fetch-site": "same-origin"},
        )
        return await self.finance.follow(reply) if reply.status_code == 303 else reply


@pytest.fixture
async def room(stage: Stage, finance: Reader) -> Room:
    return Room(stage, finance)


async def test_a_source_begins_with_two_people_and_its_files_are_shown_row_by_row(
    room: Room,
) -> None:
    seen = await room.source("desk.partner")
    rows = [f"n{n}|{n}.00" for n in range(60)]
    spoilt = "<b>=x|1.2.3"
    file = await room.send("desk.partner", listing(room.day, *rows, spoilt, total=61))
    further = await room.finance.get(re.findall(r'href="([^"]+\?row=50)"', file.text)[0])
    again = await room.send("desk.partner", listing(room.day, *rows, spoilt, total=61))
    refused = await room.send("desk.partner", listing(room.day, *rows, total=7))
    async with reader(
        room.stage, await hire(room.stage, Role.VIEWER, "viewer"), language="zh"
    ) as viewer:
        in_chinese = (await viewer.get(str(file.url.path))).text
        closed = (await viewer.get(f"{SOURCES}/desk.partner")).text
        token = viewer.form("/console/logout").fields["form_token"]
        denied = await viewer.post(SOURCES, {"form_token": token})
    page = (await room.finance.get(f"{SOURCES}/desk.partner")).text
    listed = (await room.finance.get(SOURCES)).text

    assert "partner.daily" in seen
    assert "The file is taken in." in file.text
    assert "The amount is no amount" in file.text
    assert "source.amount_malformed" in file.text
    assert "&lt;b&gt;=x" in file.text
    assert "<b>=x" not in file.text
    assert (file.text.count("<code>n"), "n59" in file.text, "n59" in further.text) == (
        50, False, True,
    )  # fmt: skip
    assert "was taken in before" in again.text
    assert again.url.path == file.url.path
    assert "nothing of it counts" in refused.text
    assert "The file counts other rows than it has" in refused.text
    assert "金额格式错误" in in_chinese
    assert (denied.status_code, "multipart" in closed) == (403, False)
    assert page.count("· 1</a>") + page.count("· 2</a>") == 2
    assert "desk.partner" in listed


async def test_another_layout_counts_from_its_day_on(room: Room) -> None:
    await room.source("desk.dated")
    newer = LAYOUT.replace('separator = "|"', 'separator = ";"')
    await room.finance.get(f"{SOURCES}/desk.dated")
    asked = await room.finance.send(
        f"{SOURCES}/desk.dated/layout",
        layout=newer,
        valid_from=str(room.day),
        reason="they changed",
    )
    before = await room.send("desk.dated", listing(room.day - timedelta(days=2), "a|1.00"),
                             room.day - timedelta(days=1))  # fmt: skip
    await room.agreed(asked)
    old = await room.send("desk.dated", listing(room.day, "a|1.00"))
    semicolons = listing(room.day, "a|1.00").replace(b"|", b";").replace(b"TOTAL;1;", b"TOTAL|1|")
    new = await room.send("desk.dated", semicolons)
    earlier = await room.send("desk.dated", listing(room.day, "b|1.00"),
                              room.day - timedelta(days=1))  # fmt: skip
    await room.finance.get(f"{SOURCES}/desk.dated")
    same = await room.finance.send(
        f"{SOURCES}/desk.dated/layout", layout=newer, valid_from=str(room.day), reason="once more"
    )

    assert [("Complete" in each.text) for each in (before, old, new, earlier)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert "reconciliation.rule_unchanged" in same.text


async def test_a_rule_runs_when_a_file_comes_and_again_when_asked(room: Room) -> None:
    for name in ("desk.ours", "desk.theirs"):
        await room.source(name)
    await room.finance.get(MATCHING)
    text = RULE.format(name="desk_rule", left="desk.ours", right="desk.theirs")
    seen = await room.agreed(
        await room.finance.send(MATCHING, layout=text, valid_from="2026-01-01", reason="agreed")
    )
    await room.send("desk.ours", listing(room.day, "a|1.00", "b|2.00"))
    await room.send("desk.theirs", listing(room.day, "a|1.00", "b|2.50"))
    await room.stage.idle()
    first = (await room.finance.get(f"{MATCHING}/desk_rule")).text
    await room.send("desk.theirs", listing(room.day, "a|1.00", "b|2.00"))
    await room.stage.idle()
    own = f"{MATCHING}/desk_rule"
    await room.finance.get(own)
    done = await room.finance.follow(await room.finance.send(f"{own}/again", day=str(room.day)))
    await room.stage.idle()
    corrected = (await room.finance.get(own)).text
    wrong = await room.finance.send(f"{own}/again", day="tomorrow")
    await room.agreed(await room.finance.send(f"{own}/end", valid_from="2026-01-02", reason="over"))
    ended = (await room.finance.get(own)).text
    listed = (await room.finance.get(MATCHING)).text

    assert "source:desk.ours" in seen
    assert re.search(r"1 / 2</td>.*?<b class=\"bad\">1</b>", first, re.DOTALL)
    assert re.search(r"2 / 2</td><td class=\"right\">0</td>", corrected)
    assert "the worker does it now" in done.text
    assert wrong.status_code == 400
    assert "Matches nothing any more" in ended
    assert "desk_rule" not in listed
    assert (await room.finance.get(f"{MATCHING}/no_such_rule")).status_code == 404


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (SOURCES, {"name": "Bad Name", "layout": LAYOUT}),
        (SOURCES, {"name": "desk.bad", "layout": "name = 3"}),
        (SOURCES, {"name": "desk.bad", "layout": LAYOUT, "valid_from": "soon"}),
        (SOURCES, {"name": "desk.bad", "layout": LAYOUT, "reason": "x"}),
        (SOURCES, {"name": "desk.bad", "layout": LAYOUT, "mode": "other"}),
        (MATCHING, {"layout": "left = 1"}),
    ],
)
async def test_what_cannot_count_is_not_proposed(
    room: Room, path: str, fields: dict[str, str]
) -> None:
    await room.finance.get(path)
    sent = {"valid_from": "2026-01-01", "reason": "a new partner", "mode": "live"}
    if path == MATCHING:
        del sent["mode"]
    assert (await room.finance.send(path, **{**sent, **fields})).status_code == 400
    assert "desk.bad" not in [each.name for each in await ingest.sources(room.stage.db)]


def test_every_reason_that_a_line_has_is_said_in_words() -> None:
    own, rails = Path(ingest.__file__).parent, Path(channels.__file__).parent
    read = ("cells", "documents", "text_files", "reading")
    code = "".join((own / f"{name}.py").read_text() for name in read)
    bills = [rails / "bill_text.py", rails / "wechat_pay/statements.py", *rails.glob("*/bills.py")]
    said = set(re.findall(r'"(source\.[a-z_]+)"', code))
    said |= {
        f"source.{each}"
        for path in bills
        for each in re.findall(r'"bill\.([a-z_]+)"', path.read_text())
    }
    said |= {"source.too_many_faults", "source.truncated", "source.no_row_left"}

    for texts in load_texts(Path(operator_console.__path__[0]) / "texts").values():
        known = {key for key in texts.by_key if key.startswith("line_fault.")}
        assert known == {f"line_fault.{each.replace('.', '_')}" for each in said}


def posted(body: bytes, boundary: str = "XX") -> Any:
    kind = f"multipart/form-data; boundary={boundary}".encode()
    return read_request({
        "method": "POST", "path": "/", "query_string": b"", "headers": [(b"Content-Type", kind)],
        "state": {"body": body},
    })  # fmt: skip


PART = b'--XX\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FILE = (
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n'
    b"Content-Type: text/csv\r\n\r\n1\r\n--X\r\n\x00\xff\r\n"
)


def test_a_form_with_a_file_is_read_to_the_byte() -> None:
    found = posted(PART % (b"day", "日".encode()) + FILE + b"--XX--\r\n")

    assert found.form == {"day": "日"}
    assert found.files == {"file": Sent("a.csv", b"1\r\n--X\r\n\x00\xff")}
    empty = FILE.replace(b"a.csv", b"")
    assert posted(empty + b"--XX--").files == {}
    assert posted(b"", boundary="").form == {}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"--XX", b"x--XX--", b"--XX--x", FILE, b"--XX\r\n\r\n\r\n--XX--",
        PART.replace(b"form-data", b"attachment") + b"--XX--",
        PART % (b"a", b"b") * (FIELDS_MAX + 1) + b"--XX--",
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(FormMalformed):
        posted(body)
