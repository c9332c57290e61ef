"""`tongbao listen`, `trigger` and `logs`: for whoever writes a program against the API.

They are clients of the API like that program: with a key of the merchant, never at the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import click
import msgspec

from tongbao.infra.http import Anywhere, HttpClient, NoAnswerError, NotSentError
from tongbao.infra.webhooks.signing import new_signing_key, signed_headers
from tongbao.kernel.clock import real_now
from tongbao.surfaces.cli.context import Context, refusals_told, run
from tongbao.surfaces.portal.following import follow
from tongbao.surfaces.portal.happenings import HAPPENINGS, read_override
from tongbao.surfaces.portal.theatre import Theatre
from tongbao_sdk import Refused, Tongbao, Unanswered

_TIMEOUT_S: Final = 15.0
_READ_MAX: Final = 65_536


def _with_key(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say whose program it plays."""
    for option in (
        click.option(
            "--secret",
            envvar="TONGBAO_SECRET",
            prompt=True,
            hide_input=True,
            help="The key's secret; better in TONGBAO_SECRET than in the shell's history.",
        ),
        click.option(
            "--key", "key_id", envvar="TONGBAO_KEY", required=True, help="The API key's id."
        ),
        click.option(
            "--url",
            envvar="TONGBAO_URL",
            default="http://127.0.0.1:8000",
            show_default=True,
            help="The platform's address.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--forward-to", required=True, metavar="URL", help="Where webhooks are to go.")
@click.option("--type", "types", multiple=True, help="Only events of this type. Repeatable.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@click.option("--past", type=click.IntRange(0, 100), default=0, help="First, so many of before.")
@_with_key
def listen(
    *,
    forward_to: str,
    types: Sequence[str],
    count: int | None,
    past: int,
    url: str,
    key_id: str,
    secret: str,
) -> None:
    """Bring the merchant's events to a program that runs here, signed as webhooks are.

    The signing key is new at each start and is printed first. What the program answers is printed;
    an event is brought once, and not again when it is refused.
    """
    key = new_signing_key()
    with _told(), Tongbao(url, key_id=key_id, secret=secret) as shop:
        click.echo(f"secret={key.secret_text}  public_key={key.public_text}")

        def events() -> Iterator[Any]:
            return iter(shop.events.list())

        wanted = (each for each in follow(events, past=past) if not types or each["type"] in types)
        for event in islice(wanted, count):
            body = msgspec.json.encode(event)
            headers = signed_headers([key], event["id"], int(real_now().timestamp()), body)
            answered = run(_bring(forward_to, headers, body))
            click.echo(f"{event['id']}  {event['type']}  {answered}")


async def _bring(url: str, headers: dict[str, str], body: bytes) -> str:
    """Return how the program answered: a status, or why there is none."""
    client = HttpClient(Anywhere())
    try:
        reply = await client.send(
            *("POST", url, {"content-type": "application/json", **headers}, body),
            timeout_s=_TIMEOUT_S,
            reply_max_bytes=_READ_MAX,
        )
    except (NotSentError, NoAnswerError) as failure:
        return f"no answer: {failure}"
    finally:
        await client.close()
    return str(reply.status)


@click.command()
@click.argument("event", type=click.Choice(sorted(HAPPENINGS)))
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="A.B=C",
    help="A field of the payment, as metadata.table=4 or amount=100. Repeatable.",
)
@click.option(
    "--channel",
    type=click.Choice(["wechat_pay", "alipay", "unionpay"]),
    default="wechat_pay",
    show_default=True,
    help="Over which channel.",
)
@click.option(
    "--sandbox-url",
    envvar="TONGBAO_SANDBOX_URL",
    required=True,
    help="The simulated channels, which have the customer.",
)
@_with_key
def trigger(
    *,
    event: str,
    overrides: Sequence[str],
    channel: str,
    sandbox_url: str,
    url: str,
    key_id: str,
    secret: str,
) -> None:
    """Make something happen in the sandbox, in earnest: the event tells of a real payment there."""
    with _told(), Tongbao(url, key_id=key_id, secret=secret) as shop:
        theatre = Theatre(shop, sandbox_url, channel, [read_override(each) for each in overrides])
        for made in HAPPENINGS[event](theatre):
            click.echo(made)


@click.group()
def logs() -> None:
    """Logs: what the merchant's programs asked of the API."""


@logs.command("tail")
@click.option("--method", help="Only requests of this method.")
@click.option("--route", help="Only of this route, as /v1/payments/{payment_id}.")
@click.option("--status", type=click.IntRange(100, 599), help="Only with this status.")
@click.option("--code", help="Only refused with this code.")
@click.option("--past", type=click.IntRange(0, 100), default=10, help="First, so many of before.")
@click.option("--no-follow", is_flag=True, help="Show what is there and end.")
@_with_key
@click.pass_obj
def tail(
    context: Context,
    *,
    method: str | None,
    route: str | None,
    status: int | None,
    code: str | None,
    past: int,
    no_follow: bool,
    url: str,
    key_id: str,
    secret: str,
) -> None:
    """Show requests as they come, each with how it went; looking at the log is left out."""
    with _told(), Tongbao(url, key_id=key_id, secret=secret) as shop:

        def lines() -> Iterator[Any]:
            listed = shop.request_log.list(method=method, route=route, status=status, code=code)
            return (each for each in listed if not each["route"].startswith("/v1/request_log"))

        found = reversed(list(islice(lines(), past))) if no_follow else follow(lines, past=past)
        for each in found:
            shown = {name: each.get(name, "") for name in ("created_at", "id", "method")}
            shown |= {"route": each["route"], "status": each["status"]}
            context.show({**shown, "ms": each["duration_us"] // 1000, "code": each.get("code", "")})


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the platform refuses into one line on stderr and exit code 1."""
    try:
        with refusals_told():
            yield
    except (Refused, Unanswered) as failure:
        raise click.ClickException(str(failure)) from None


COMMANDS: Final = (listen, trigger, logs)
