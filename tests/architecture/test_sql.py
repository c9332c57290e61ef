"""SQL is prepared against the real schema, and its rows are compared with their Structs.

`Query` decodes by position, which is safe only because of this module. The rules that let the same
statements run on Citus are checked in the text.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import asyncpg
import pytest
from msgspec import Struct

from tongbao.infra.db import Db, Query, Statement
from tools import house
from tools.house import ROOT, Found, module_name, source_files, statements

COLUMN_TYPES: Mapping[Any, frozenset[str]] = {
    str: frozenset({"text", "varchar", "bpchar", "name", "char"}),
    int: frozenset({"int2", "int4", "int8"}),
    bool: frozenset({"bool"}),
    bytes: frozenset({"bytea"}),
    float: frozenset({"float4", "float8"}),
    Decimal: frozenset({"numeric"}),
    UUID: frozenset({"uuid"}),
    datetime: frozenset({"timestamptz"}),
    date: frozenset({"date"}),
    timedelta: frozenset({"interval"}),
}
JSON = frozenset({"jsonb"})
_LEDGER = "tongbao.ledger"
SEQUENCES = (list, tuple, set, frozenset, Sequence)

CITUS_RULES = {
    "a sequence: ids are made in Python": r"\b(small|big)?serial\b|\b(next|curr|set)val\s*\("
    r"|\bcreate\s+sequence\b|\bas\s+identity\b",
    "a trigger": r"\bcreate\s+(or\s+replace\s+)?(constraint\s+)?trigger\b",
    "an advisory lock, which is local to a node": r"\bpg_(try_)?advisory_",
    "a notification, which is local to a node": r"\bpg_notify\b|\b(listen|notify)\s+[a-z]",
    "MERGE: write an upsert": r"\bmerge\s+into\b",
}
CLOCK_RULES = {
    "the database's clock: pass tx.now": r"\b(now|clock_timestamp|statement_timestamp|timeofday"
    r"|transaction_timestamp)\s*\(|\bcurrent_(date|time|timestamp)\b|\blocaltime(stamp)?\b",
    "chance: make ids in Python": r"\b(random|gen_random_uuid|uuidv[47])\s*\(",
}


class Column(Struct, frozen=True):
    """One column of the migrated schema."""

    table: str
    name: str
    nullable: bool


@pytest.fixture
async def columns(db: Db) -> list[Column]:
    return [
        Column(record["table_name"], record["column_name"], record["is_nullable"] == "YES")
        for record in await db.fetch(
            """select table_name::text, column_name::text, is_nullable::text
                 from information_schema.columns where table_schema = 'public'
                order by table_name, ordinal_position""",
            (),
        )
    ]


async def test_every_statement_prepares_and_returns_what_its_struct_says(
    db: Db, columns: list[Column]
) -> None:
    problems: list[str] = []

    async with db.pool.acquire() as connection:
        for found in statements():
            try:
                prepared = await connection.prepare(found.thing.sql)
            except asyncpg.UndefinedTableError as failure:
                if house.is_wired():
                    problems.append(f"{found.where}: {failure}")
            except asyncpg.PostgresError as failure:
                problems.append(f"{found.where}: {failure}")
            else:
                attributes = prepared.get_attributes()
                problems += [f"{found.where}: {what}" for what in compare(found, attributes)]
                problems += [f"{found.where}: {what}" for what in nullable(found, columns)]

    assert not problems, "\n" + "\n".join(problems)


async def test_a_form_for_many_rows_takes_an_array_of_each_parameter(db: Db) -> None:
    problems: list[str] = []

    async with db.pool.acquire() as connection:
        for found in statements():
            many = found.thing.many if isinstance(found.thing, Statement) else None
            if many is None or many.startswith("copy "):
                continue
            one, several = [
                [each.name for each in (await connection.prepare(sql)).get_parameters()]
                for sql in (found.thing.sql, many)
            ]
            if several != [f"{name}[]" for name in one]:
                problems.append(f"{found.where}: {one} and {several}")

    assert not problems, "\n" + "\n".join(problems)


async def test_a_stored_struct_is_its_table(columns: list[Column]) -> None:
    """Its fields are the table's columns, all of them, in order, and optional where they may be."""
    problems: list[str] = []
    stored = {each.thing.row for each in statements() if is_struct_query(each)}

    for row in sorted(stored, key=lambda row: row.__name__):
        table = [column for column in columns if column.table == snake(row.__name__)]
        if not table:
            continue  # a view, a join or a count
        names = [column.name for column in table]
        if names != list(row.__struct_fields__):
            problems.append(f"{row.__name__} has {list(row.__struct_fields__)}, its table {names}")
            continue
        hints = get_type_hints(row)
        problems += [
            f"{row.__name__}.{column.name}: the column is "
            f"{'nullable' if column.nullable else 'not null'} and the field says otherwise"
            for column in table
            if column.nullable != is_optional(hints[column.name])
        ]

    assert not problems, "\n" + "\n".join(problems)


_INVARIANTS = "tongbao.surfaces.invariants"


async def test_a_table_is_touched_by_one_room_only(columns: list[Column]) -> None:
    """Others ask the room that owns it: a table read elsewhere cannot be changed any more.

    The rooms of the ledger share the journal: who decides, who proves, who sums up, who archives.
    The invariants read everybody's tables, and change none: they are the check on all of them.
    """
    tables = {column.table for column in columns}
    users: dict[str, set[str]] = {}
    for found in statements():
        room = found.where.rpartition(".")[0].rpartition(".")[0]
        room = _LEDGER if room.startswith(f"{_LEDGER}.") else room
        if room == _INVARIANTS and found.thing.sql.startswith("select"):
            continue
        for table in tables_in(without_comments(found.thing.sql)) & tables:
            users.setdefault(table, set()).add(room)

    assert not {table: rooms for table, rooms in users.items() if len(rooms) > 1}


def test_every_statement_can_run_on_citus() -> None:
    """Tested against Citus 14: what these rules forbid is refused or unsafe there."""
    problems = []

    for found in statements():
        text = without_comments(found.thing.sql)
        problems += [f"{found.where} has {rule}" for rule in broken(text, CITUS_RULES)]
        if subquery_in_values(text):
            problems.append(
                f"{found.where} has a sub-query inside INSERT … VALUES: compute it first"
            )

    assert not problems, "\n" + "\n".join(problems)


def test_sql_that_matters_reads_no_clock_and_no_chance() -> None:
    problems = [
        f"{found.where} has {rule}"
        for found in statements()
        for rule in broken(without_comments(found.thing.sql), CLOCK_RULES)
    ]

    assert not problems, "\n" + "\n".join(problems)


def test_columns_are_always_named() -> None:
    """`select *` would change its shape with the next migration, under a decoder by position."""
    star = re.compile(r"\b(select|returning)\s+\*|[.,]\s*\*", re.IGNORECASE)

    assert not [each.where for each in statements() if star.search(each.thing.sql)]


def test_sql_lies_in_stores_at_module_level() -> None:
    """A statement in a function is one that nobody prepares."""
    problems = []

    for path in source_files("tongbao"):
        text = path.read_text("utf-8")
        if "Query(" not in text and "Statement(" not in text:
            continue
        tree = ast.parse(text)
        top = {id(node) for statement in tree.body for node in ast.walk(statement)}
        top -= {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if not isinstance(call.func, ast.Name) or call.func.id not in {"Query", "Statement"}:
                continue
            place = f"{module_name(path)}:{call.lineno}"
            if id(call) not in top:
                problems.append(f"{place} builds SQL inside a function")
            if "infra" not in path.parts and not path.stem.startswith("_"):
                problems.append(f"{place} has SQL outside a private store module")

    assert not problems, "\n" + "\n".join(problems)


def test_the_checks_see_what_they_look_for() -> None:
    """The lint is text matching; these are its own test cases."""
    assert subquery_in_values("insert into a (x) values ($1, (select max(y) from b))")
    assert not subquery_in_values("insert into a (x) select y from (values ($1)) v (y)")
    assert not subquery_in_values("insert into a (x) values ($1) returning (select 1)")
    assert broken("id bigserial primary key", CITUS_RULES)
    assert broken("select pg_advisory_xact_lock(1)", CITUS_RULES)
    assert broken("update a set at = now()", CLOCK_RULES)
    assert not broken("select known, notify_url from a where snow = $1", CITUS_RULES | CLOCK_RULES)
    assert allowed_types(int | None) == COLUMN_TYPES[int]
    assert "uuid[]" in allowed_types(list[UUID])
    assert "jsonb" in allowed_types(dict[str, Any])
    assert not allowed_types(datetime) & {"timestamp"}


class Swapped(Struct, frozen=True):
    """The right names in the wrong order."""

    checksum: str
    name: str
    applied_at: datetime


class Mistyped(Struct, frozen=True):
    """The right names with a wrong type."""

    name: str
    checksum: int
    applied_at: datetime


class ByKeyword(Struct, frozen=True, kw_only=True):
    """A Struct that cannot be filled by position."""

    name: str


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (Query(Swapped, "select name, checksum, applied_at from schema_migration"), "columns"),
        (Query(Mistyped, "select name, checksum, applied_at from schema_migration"), "text"),
        (Query(ByKeyword, "select name from schema_migration"), "kw_only"),
        (Query(UUID, "select name from schema_migration"), "text"),
        (Query(str, "select name, checksum from schema_migration"), "2 columns"),
        (Statement("delete from schema_migration returning name"), "nobody reads"),
    ],
)
async def test_the_comparison_sees_a_wrong_row(
    db: Db, query: Query[Any] | Statement, complaint: str
) -> None:
    async with db.pool.acquire() as connection:
        attributes = (await connection.prepare(query.sql)).get_attributes()

    assert complaint in " ".join(compare(Found("here", query), attributes))


def test_the_comparison_sees_a_value_that_may_be_missing() -> None:
    columns = [Column("schema_migration", "name", nullable=True)]
    certain = "select name from schema_migration where name is not null"

    assert nullable(Found("here", Query(ByKeyword, "select name from schema_migration")), columns)
    assert not nullable(Found("here", Query(ByKeyword, certain)), columns)


def compare(found: Found, attributes: Sequence[Any]) -> list[str]:
    """Return how the statement's columns differ from what its declaration promises."""
    if not isinstance(found.thing, Query):
        if attributes and re.search(r"\breturning\b", found.thing.sql, re.IGNORECASE):
            return ["a Statement returns rows nobody reads; make it a Query or drop RETURNING"]
        return []
    row = found.thing.row
    if not is_struct_query(found):
        if len(attributes) != 1:
            return [f"{len(attributes)} columns where {row} takes one"]
        return mismatch("its column", row, attributes[0])
    names = [attribute.name for attribute in attributes]
    if names != list(row.__struct_fields__):
        return [f"columns {names}, but {row.__name__} has {list(row.__struct_fields__)}"]
    by_keyword = inspect.Parameter.KEYWORD_ONLY
    if any(each.kind is by_keyword for each in inspect.signature(row).parameters.values()):
        return [f"{row.__name__} is kw_only, but rows are decoded by position"]
    hints = get_type_hints(row)
    return [
        problem
        for attribute in attributes
        for problem in mismatch(attribute.name, hints[attribute.name], attribute)
    ]


def nullable(found: Found, columns: list[Column]) -> list[str]:
    """Return fields that cannot be None and are read from a column that can.

    PostgreSQL does not tell whether a result may be null, so this looks the name up in the tables
    the text mentions; an expression (``… as name``) and ``name is not null`` count as certain.
    """
    if not is_struct_query(found):
        return []
    text = without_comments(found.thing.sql)
    tables = tables_in(text)
    problems = []
    for name, hint in get_type_hints(found.thing.row).items():
        same = [column for column in columns if column.table in tables and column.name == name]
        certain = re.search(rf"\bas\s+{name}\b|\b{name}\s+is\s+not\s+null", text, re.IGNORECASE)
        if same and all(column.nullable for column in same) and not (certain or is_optional(hint)):
            problems.append(f"{found.thing.row.__name__}.{name} may be null in {same[0].table}")
    return problems


def mismatch(name: str, hint: Any, attribute: Any) -> list[str]:
    allowed = allowed_types(hint)
    if not allowed or attribute.type.name in allowed:
        return []
    return [f"{name} is {attribute.type.name}, which is not {hint}"]


def allowed_types(hint: Any) -> frozenset[str]:
    """Return the column types a hint can be read from; an empty set allows every type."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return frozenset()
    if origin is Annotated:
        return allowed_types(args[0])
    if origin in (Union, types.UnionType):
        members = [allowed_types(arg) for arg in args if arg is not type(None)]
        return frozenset().union(*members)
    if origin is Literal:
        return frozenset().union(*[allowed_types(type(value)) for value in args])
    if hasattr(hint, "__supertype__"):
        return allowed_types(hint.__supertype__)
    if (origin or hint) in SEQUENCES:
        return JSON | {f"{name}[]" for arg in args if arg is not ... for name in allowed_types(arg)}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return COLUMN_TYPES[int] if issubclass(hint, int) else COLUMN_TYPES[str]
    return COLUMN_TYPES.get(hint, JSON)


def is_optional(hint: Any) -> bool:
    return hint is Any or type(None) in get_args(hint)


def is_struct_query(found: Found) -> bool:
    row = getattr(found.thing, "row", None)
    return isinstance(row, type) and issubclass(row, Struct)


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def tables_in(sql: str) -> set[str]:
    return set(re.findall(r"\b(?:from|join|into|update|using)\s+([a-z_]+)", sql, re.IGNORECASE))


def without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)


def broken(sql: str, rules: Mapping[str, str]) -> list[str]:
    return [rule for rule, pattern in rules.items() if re.search(pattern, sql, re.IGNORECASE)]


def subquery_in_values(sql: str) -> bool:
    """Whether a row of an INSERT's VALUES list contains a SELECT."""
    insert = re.search(
        r"\binsert\s+into\s+\w+\s*(\([^()]*\))?\s*values\s*(?=\()", sql, re.IGNORECASE
    )
    if insert is None:
        return False
    depth = 0
    for place in range(insert.end(), len(sql)):
        if sql[place] == "(":
            depth += 1
            if depth > 1 and re.match(r"\(\s*select\b", sql[place:], re.IGNORECASE):
                return True
        elif sql[place] == ")":
            depth -= 1
        elif depth == 0 and sql[place] not in ", \n\t":
            return False
    return False


def test_migrations_follow_the_same_rules() -> None:
    problems = [
        f"{path.name} has {rule}"
        for path in sorted((ROOT / "tongbao/infra/migrations").glob("*.sql"))
        for rule in broken(without_comments(path.read_text()), CITUS_RULES | CLOCK_RULES)
    ]

    assert not problems, "\n" + "\n".join(problems)
