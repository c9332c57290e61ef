"""`tongbao new-channel`: a folder for a channel yet to be built, and its place in the suite."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Final

import click

from tongbao.kernel.errors import Conflict, Invalid
from tongbao.surfaces.cli.context import Context, refusals_told

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_NAME_MAX: Final = 24
_WORDS_THAT_SAY_NOTHING: Final = frozenset({"base", "data", "helpers", "info", "manager", "utils"})
_CHANNELS: Final = Path("tongbao/rails/channels")
_TESTS: Final = Path("tests/rails")


class ChannelNameRefused(Invalid):
    """A channel's name is its folder's: lower-case words with underscores that say whose it is."""

    code = "new_channel.name_refused"
    advice = "Use the institution's name in lower case, such as north_bank."
    advice_zh = "请使用机构英文名的小写形式，例如 north_bank。"


class ChannelExists(Conflict):
    """There is a folder or a file of this name already, and nothing is written over."""

    code = "new_channel.exists"
    advice = "Choose another name, or remove what is there."
    advice_zh = "请更换名称，或先删除已有文件。"


class NoSourceTree(Invalid):
    """The folder is not Tongbao's source: a channel is code, and belongs where the code is."""

    code = "new_channel.no_source_tree"
    advice = "Run it in a clone of the repository, or name one with --into."
    advice_zh = "请在源码仓库目录中执行，或用 --into 指定仓库路径。"


_CLIENT: Final = Template('''\
"""$title behind the channel contract. Nothing is built yet, and every call says so."""

from __future__ import annotations

from typing import Final

from tongbao.infra.http import HttpClient
from tongbao.rails.channels.contract.bills import BillTerms
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Answer,
    CloseOutcome,
    NotSent,
    Outcome,
    QueryOutcome,
    RefundOutcome,
    RefundQueryOutcome,
    Unknown,
)
from tongbao.rails.channels.exchange import TimeLimits, Uncalled, Unfiled, unsent

_NOT_BUILT: Final = "$name: not built yet"


class $klass(Uncalled, Unfiled):
    """Keeps no state; fill in one call after the other and run the suite after each.

    Until it has its own, callbacks are refused (`Uncalled`) and there is no bill (`Unfiled`).
    """

    name = "$name"
    modes = frozenset[PayMode]()
    currencies = frozenset({"CNY"})
    no_file = _NOT_BUILT
    bill_terms = BillTerms(
        moved=frozenset(),
        under_way=frozenset(),
        failed=frozenset(),
        returns_refund_fees=False,
        keeps_refund_fees=False,
        quiet_when_empty=True,
    )

    def __init__(self, http: HttpClient, *, limits: TimeLimits | None = None) -> None:
        self._http = http
        self._limits = limits or TimeLimits()

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer the order to the customer."""
        del order
        return Answer(NotSent(_NOT_BUILT), unsent("POST", account.gateway, _NOT_BUILT))

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order: what was not asked is not known."""
        del order
        return Answer(Unknown(_NOT_BUILT), unsent("GET", account.gateway, _NOT_BUILT))

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Make the order unpayable."""
        del order
        return Answer(Unknown(_NOT_BUILT), unsent("POST", account.gateway, _NOT_BUILT))

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back."""
        del refund
        return Answer(NotSent(_NOT_BUILT), unsent("POST", account.gateway, _NOT_BUILT))

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund."""
        del refund
        return Answer(Unknown(_NOT_BUILT), unsent("GET", account.gateway, _NOT_BUILT))
''')
_SECRETS: Final = Template('''\
"""The keys of an account at $title."""

from __future__ import annotations

from msgspec import Struct


class ${klass}Secrets(Struct, frozen=True, forbid_unknown_fields=True):
    """What we sign with. Never logged; put each key the channel gives us here."""

    api_key: str

    def __post_init__(self) -> None:
        """Refuse a key that is none."""
        if not self.api_key:
            raise ValueError("there is no key")

    def __repr__(self) -> str:
        return "${klass}Secrets(***)"
''')
_ERRORS: Final = Template("""\
# What the codes of $title mean for the money. A code that is missing is Unknown.
# Ask of each code: could it also appear when an earlier call of the same number went through?

[[entry]]
code = "EXAMPLE_SYSTEM_ERROR" # replace it by the channel's own codes
meaning = "unknown"
en = "The result of the payment is being checked. Please do not pay again yet."
zh = "正在确认支付结果，请勿重复支付。"
""")
_REGISTRATION: Final = Template('''\
"""$title in the contract suite: `pytest tests/rails/test_connectors.py`."""

from __future__ import annotations

from tests.rails.connector import Connector
from tongbao.rails.channels.$name.client import $klass
from tongbao.rails.channels.$name.secrets import ${klass}Secrets

CONNECTOR = Connector(
    name="$name",
    make=$klass,
    secrets=${klass}Secrets("a key for tests, and nobody's"),
    built=frozenset(),  # add "pay", "query", … as each is built
)
''')
_STEPS: Final = Template("""\
Next:
  1. pytest tests/rails/test_connectors.py -k $name   (it passes: everything says "not built yet")
  2. map the channel's codes in $channels/$name/errors.toml
  3. build one call after the other in client.py; add its name to `built` in
     $tests/connectors/$name.py, and record its answers in $tests/recorded/$name.json
  4. in tongbao/connections.py: the class in `channels`, ${klass}Secrets in SECRETS
  5. docs/how-to/add-a-channel.md tells each step in full""")


def scaffold(root: Path, name: str) -> list[Path]:
    """Write the folder of a channel that is not built yet and return its files.

    Raises:
        ChannelNameRefused, NoSourceTree, ChannelExists
    """
    is_name = _NAME.fullmatch(name) and len(name) <= _NAME_MAX
    if not is_name or _WORDS_THAT_SAY_NOTHING & set(name.split("_")):
        raise ChannelNameRefused(name=name[:64])
    if not (root / _CHANNELS / "contract/channel.py").is_file():
        raise NoSourceTree(folder=str(root))
    words = name.split("_")
    facts = {
        "name": name,
        "title": " ".join(word.capitalize() for word in words),
        "klass": "".join(word.capitalize() for word in words),
    }
    folder = root / _CHANNELS / name
    texts = {
        folder / "__init__.py": Template('"""$title as a payment channel."""\n'),
        folder / "client.py": _CLIENT,
        folder / "secrets.py": _SECRETS,
        folder / "errors.toml": _ERRORS,
        root / _TESTS / "recorded" / f"{name}.json": Template("[]\n"),
        root / _TESTS / "connectors" / f"{name}.py": _REGISTRATION,
    }
    if taken := next((path for path in (folder, *texts) if path.exists()), None):
        raise ChannelExists(path=str(taken))
    for path, template in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.substitute(facts), encoding="utf-8")
    return list(texts)


@click.command("new-channel")
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="The repository's folder; here if not said.",
)
@click.pass_obj
def new_channel(context: Context, name: str, into: Path) -> None:
    """Scaffold the folder of a further channel, with the contract suite wired in."""
    with refusals_told():
        written = scaffold(into, name)
    if context.as_json:
        context.show({"channel": name, "files": [path.as_posix() for path in written]})
        return
    for path in written:
        click.echo(f"wrote {path.as_posix()}")
    klass = "".join(word.capitalize() for word in name.split("_"))
    click.echo(
        _STEPS.substitute(
            name=name, klass=klass, channels=_CHANNELS.as_posix(), tests=_TESTS.as_posix()
        )
    )
