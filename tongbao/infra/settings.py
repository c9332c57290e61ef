"""Settings: one frozen Struct, read once from the environment and a TOML file, and passed on.

The environment wins over the file. A name nobody knows is refused, so that a typing slip cannot
silently leave a default in force. `SETTINGS` is the table that the reference page repeats.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from tongbao.infra.embedded import default_data_dir
from tongbao.kernel.errors import Invalid
from tongbao.kernel.licence import Licence

PREFIX: Final = "TONGBAO_"
CONFIG_VARIABLE: Final = "TONGBAO_CONFIG"
# Read by others than the program: where the file is, which tests may not be skipped, how many times
# as many examples they try, how many histories of the ledger are simulated, and which one alone.
_NOT_SETTINGS: Final = frozenset(
    {
        CONFIG_VARIABLE,
        "TONGBAO_REQUIRE",
        "TONGBAO_CAMPAIGN",
        "TONGBAO_SIMULATION_SEEDS",
        "TONGBAO_SIMULATION_SEED",
    }
)
MASK: Final = "********"
_SCANNER: Final = r"^(unix:///[^\s?#]+|tcp://[^/\s?#@]+:[0-9]{1,5})$"
_SOCKET_DIR_MAX: Final = 85  # the kernel's limit for the whole socket path is 107 bytes


class SettingUnknown(Invalid):
    """A variable or key looks like a setting and is none."""

    code = "settings.unknown"
    advice = "Remove it or correct its name; docs/reference/settings.md lists all settings."
    advice_zh = "请删除或更正该名称；全部配置项见 docs/reference/settings.md。"


class SettingInvalid(Invalid):
    """A setting's value is not one of those allowed; the value is not repeated here."""

    code = "settings.invalid"
    advice = "Give the setting a value as docs/reference/settings.md describes it."
    advice_zh = "请按 docs/reference/settings.md 的说明设置该值。"


class SettingsFileUnreadable(Invalid):
    """The settings file is missing, or is not TOML."""

    code = "settings.file_unreadable"
    advice = "Check the path given with --config or TONGBAO_CONFIG and the file's syntax."
    advice_zh = "请检查 --config 或 TONGBAO_CONFIG 指定的路径及文件语法。"


class Secret:
    """A text that prints as stars; only `reveal` gives it out, and nothing serialises it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not serialised")


class Settings(Struct, frozen=True, kw_only=True):
    """Everything a deployment can choose; `SETTINGS` says what each means."""

    dsn: Secret | None = None
    data_dir: Path
    kek_file: Path
    kms_provider: Literal["file", "pkcs11"] = "file"
    kms_module: Path | None = None
    kms_token: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    kms_pin: Secret | None = None
    sealing_cipher: Literal["aes-256-gcm", "sm4-gcm"] = "aes-256-gcm"
    socket_dir: Path
    licence: Licence = Licence.AGGREGATOR
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    public_url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+$")]
    console_url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+$")] | None = None
    portal_url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+$")] | None = None
    sandbox_url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+$")] | None = None
    sandbox_sign_up: bool = False
    test_clock: bool = False
    test_clock_shared: bool = False
    jeepay_facade: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    worker_concurrency: Annotated[int, Meta(ge=1, le=1000)] = 8
    db_connections_max: Annotated[int, Meta(ge=2, le=1000)] = 10
    rate_units_per_s: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    rate_burst: Annotated[int, Meta(ge=1, le=10_000_000)] = 2000
    blob_s3_url: Annotated[str, Meta(pattern=r"^https?://[^/\s?#]+(/[^/\s?#]+)+$")] | None = None
    blob_s3_region: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}$")] = "us-east-1"
    blob_s3_key_id: Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,128}$")] | None = None
    blob_s3_secret: Secret | None = None
    scanner_url: Annotated[str, Meta(pattern=_SCANNER)] | None = None
    ledger_balances: Literal["behind", "with_commit"] = "behind"
    password_policy: Literal["asvs", "mlps3"] = "mlps3"  # noqa: S105 - the name of a policy
    operator_second_factor: Literal["any", "passkey"] = "any"
    message_gateway_url: Annotated[str, Meta(pattern=r"^https?://[^\s?#]+$")] | None = None
    message_gateway_token: Secret | None = None
    registers_url: Annotated[str, Meta(pattern=r"^https?://[^\s?#]+$")] | None = None
    registers_token: Secret | None = None
    uk_open_banking: bool = False
    uk_message_signing: bool = True
    dpop_nonces: bool = False
    certificate_proxies: Annotated[str, Meta(pattern=r"^[0-9a-fA-F.:/, ]{1,1024}$")] | None = None
    mtls_url: Annotated[str, Meta(pattern=r"^https://[^/\s]+$")] | None = None
    partner_anchors_file: Path | None = None
    bank_code: Annotated[str, Meta(pattern=r"^[0-9]{6}$")] = "000000"
    failpoint: str | None = None

    @property
    def webhooks_reach_loopback(self) -> bool:
        """Whether sandbox webhooks may go to this machine: not where strangers sign up from afar.

        Their addresses would have us call what listens here for ourselves alone.
        """
        is_local = urlsplit(self.public_url).hostname in {"localhost", "127.0.0.1", "::1"}
        return self.sandbox_url is not None and (is_local or not self.sandbox_sign_up)

    def masked(self) -> dict[str, str | int | bool | None]:
        """Return every setting as it may be printed."""
        return {name: _printable(getattr(self, name)) for name in self.__struct_fields__}


class Setting(Struct, frozen=True):
    """One row of the reference: the TOML key, the variable, the default as text, the meaning."""

    name: str
    env: str
    default: str
    meaning: str


_DERIVED: Final = {
    "data_dir": "`.tongbao` in the working directory, or a folder under `/var/lib/tongbao`",
    "kek_file": "`kek` in the data folder",
    "socket_dir": "`posters` in the data folder, or where that is too long a name for a socket,"
    " a folder under the system's temporary one",
    "public_url": "`http://host:port`",
}
_MEANINGS: Final = {
    "dsn": "Database to use, as a libpq URI; unset starts a private PostgreSQL in the data folder.",
    "data_dir": "Folder of everything the program keeps outside the database, and of the private"
    " PostgreSQL.",
    "kek_file": "File with the key that encrypts all other keys; made on first use. Back it up:"
    " without it channel keys and webhook secrets are lost.",
    "kms_provider": "Who keeps the master keys: file, the key file itself, or pkcs11, a security"
    " module, whose master key wraps the lines of the key file.",
    "kms_module": "Library of the security module, as `/usr/lib/softhsm/libsofthsm2.so`.",
    "kms_token": "Label of the module's token.",
    "kms_pin": "PIN of the token's user.",
    "sealing_cipher": "Cipher of new sealing keys: aes-256-gcm, or sm4-gcm (GB/T 32907).",
    "socket_dir": "Folder of this user alone, on this machine, in which processes that keep books"
    " listen for the others.",
    "licence": "Kind of firm that runs this deployment: aggregator, payment_institution or bank."
    " Fixed at the first migration.",
    "host": "Address the HTTP server listens on.",
    "port": "Port the HTTP server listens on; 0 lets the system choose.",
    "public_url": "Origin under which others reach the HTTP server, used in notification"
    " addresses and links.",
    "console_url": "Origin of a name of its own for the operators' console, so that no other page"
    " shares its origin with it; there is then nothing else at that name, and no console at others."
    " Passkeys are enrolled for one name. Unset, it is at `public_url`.",
    "portal_url": "The same for the developers' portal.",
    "sandbox_url": "Origin of the sandbox that plays the channels; unset where there is none.",
    "sandbox_sign_up": "Whether anybody may sign up for a test shop at `/portal`; needs the"
    " sandbox. Unless `public_url` is this machine, sandbox webhooks then go to public addresses"
    " only.",
    "test_clock": "Whether business time may be advanced by hand. Never on where real money moves.",
    "test_clock_shared": "Whether a merchant may advance it although others have sandbox keys,"
    " whose time moves along; otherwise only whoever is alone may.",
    "jeepay_facade": "Whether programs written for jeepay are answered, where their merchants were"
    " let in. They sign with MD5, which nothing else here accepts.",
    "log_level": "Least level that is logged: debug, info, warning or error.",
    "log_format": "json for machines, console for people.",
    "worker_concurrency": "How many tasks one worker process runs at a time.",
    "db_connections_max": "Most database connections one process opens.",
    "rate_units_per_s": "Units of requests a second that a merchant, and each of its keys, may send"
    " unless it has a limit of its own; most requests are one unit.",
    "rate_burst": "Units that may come at once after a quiet while.",
    "blob_s3_url": "Bucket of an S3-compatible store that keeps documents, as"
    " `https://host/bucket`; unset keeps them in the folder `blobs` of the data folder.",
    "blob_s3_region": "Region that requests to the bucket are signed for.",
    "blob_s3_key_id": "Access key id for the bucket.",
    "blob_s3_secret": "Secret access key for the bucket.",
    "scanner_url": "Scanner for malware that every document passes before it is kept, by clamd's"
    " protocol: `unix:///run/clamav/clamd.ctl` or `tcp://host:3310`. Unset scans none.",
    "ledger_balances": "When balances follow the journal: behind, a moment after the commit that"
    " answers, or with_commit, inside it, which costs half the speed.",
    "password_policy": "Rules for people's passwords: mlps3 (等保: three kinds of characters, a"
    " history, a reminder after 90 days) or asvs (OWASP: length and no common ones).",
    "operator_second_factor": "Second factor at the console: any (TOTP, passkey, recovery code), or"
    " passkey, after which TOTP is good only until the first passkey is enrolled.",
    "message_gateway_url": "Where SMS, mail and push go out for people with real accounts; unset"
    " sends none. The sandbox's people are always sent to the sandbox.",
    "message_gateway_token": "Bearer token for that gateway.",
    "registers_url": "Where registers are asked who people are, each below it, as `/residents`;"
    " unset asks none.",
    "registers_token": "Bearer token for the registers.",
    "uk_open_banking": "Whether the open bank is also there in the shapes of UK Open Banking 4.0.",
    "uk_message_signing": "Whether payments in those shapes have to be signed (`x-jws-signature`)"
    " and are answered signed.",
    "dpop_nonces": "Whether partners' DPoP proofs must have a nonce of ours in them (RFC 9449 §8).",
    "certificate_proxies": "Addresses or networks, commas between them, of proxies in front that"
    " hand on partners' TLS certificates in `Client-Cert` (RFC 9440). Unset believes nobody, and"
    " mutual TLS is not offered.",
    "mtls_url": "Origin where those proxies ask for a certificate, if it is not `public_url`.",
    "partner_anchors_file": "PEM file of the authorities that vouch for partners' certificates, and"
    " of their revocation lists. Unset leaves partners certificates of their own only.",
    "bank_code": "The firm's six digits as of JR/T 0124; part of every U_API_ID of the open bank.",
    "failpoint": "For tests: where the process dies, as name:kill9 or name:raise.",
}


def _table() -> tuple[Setting, ...]:
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = _DERIVED.get(field.name)
        if default is None:
            value = _printable(field.default)
            default = "unset" if value is None else f"`{str(value).lower()}`"
        rows.append(Setting(field.name, _variable(field.name), default, _MEANINGS[field.name]))
    return tuple(rows)


def load_settings(environ: Mapping[str, str], toml: Path | None = None) -> Settings:
    """Return the settings; an empty variable counts as unset.

    Raises:
        SettingUnknown, SettingInvalid, SettingsFileUnreadable
    """
    if toml is None and environ.get(CONFIG_VARIABLE):
        toml = Path(environ[CONFIG_VARIABLE])
    given: dict[str, Any] = _from_file(toml) if toml else {}
    given.update(_from_environment(environ))
    hints = get_type_hints(Settings, include_extras=True)
    values = {name: _convert(name, value, hints[name]) for name, value in given.items()}
    values.setdefault("data_dir", default_data_dir())
    values.setdefault("kek_file", values["data_dir"] / "kek")
    values.setdefault("socket_dir", default_socket_dir(values["data_dir"]))
    host, port = values.get("host", "127.0.0.1"), values.get("port", 8000)
    values.setdefault("public_url", f"http://{host}:{port}")
    return Settings(**values)


def default_socket_dir(data_dir: Path) -> Path:
    """Return the folder that every process of this user with these files comes to."""
    folder = data_dir.absolute() / "posters"
    if len(os.fsencode(folder)) <= _SOCKET_DIR_MAX:
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tongbao-{os.geteuid()}-{name}"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise SettingsFileUnreadable(path=str(path), reason=type(failure).__name__) from None
    for key in content:
        if key not in Settings.__struct_fields__:
            raise SettingUnknown(name=key, nearest=_nearest(key, Settings.__struct_fields__))
    return content


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {_variable(name): name for name in Settings.__struct_fields__}
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in known | dict.fromkeys(_NOT_SETTINGS):
            raise SettingUnknown(name=variable, nearest=_nearest(variable, list(known)))
    return {name: environ[variable] for variable, name in known.items() if environ.get(variable)}


def _convert(name: str, value: object, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint, strict=False, dec_hook=_decode)
    except (msgspec.ValidationError, ValueError, TypeError):
        raise SettingInvalid(name=name, variable=_variable(name)) from None


def _decode(kind: Any, value: object) -> object:
    if kind in {Secret, Path} and isinstance(value, str):
        return kind(value)
    raise TypeError(kind)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, 1)), None)


def _printable(value: object) -> str | int | bool | None:
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)


SETTINGS: Final = _table()
