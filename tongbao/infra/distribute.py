"""One database on many machines: which tables Citus spreads over them, and the commands to do it.

Whatever has a book lies with its book on one machine, so a group commit is a transaction of one
machine. What every book reads is copied to each. The rest stays on the coordinator.

The schema and the statements are the same on one PostgreSQL; a test holds every table against this
list and every statement against the rules that the list brings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from tongbao.infra.db import Db, Query, Statement
from tongbao.kernel.errors import Invalid, NotFound, Rejected

SHARDS: Final = 64
"""Pieces that books are hashed to. A cluster is moved and grown by pieces; 64 suit 32 machines."""
ANCHOR: Final = "ledger_book"
"""Every distributed table lies where the head row of its book does."""


class Spread(StrEnum):
    """Where the rows of a table are."""

    DISTRIBUTED = "distributed"  # with their book, on one machine
    REFERENCE = "reference"  # all of them on every machine
    LOCAL = "local"  # on the coordinator


class Placed(Struct, frozen=True):
    """One table and where its rows go."""

    table: str
    spread: Spread
    reason: str


class Reference(Struct, frozen=True):
    """A foreign key: who names whom."""

    table: str
    names: str


class CitusMissing(Rejected):
    """The database is a PostgreSQL without the Citus extension."""

    code = "distribute.citus_missing"
    advice = "Name the coordinator of a Citus cluster with TONGBAO_DSN; --print shows the commands."
    advice_zh = "请用 TONGBAO_DSN 指定 Citus 集群的协调节点；--print 仅显示命令。"


class TablesUnplaced(Rejected):
    """The database has tables of which nobody decided where they go."""

    code = "distribute.tables_unplaced"
    advice = "Run the program version that made the tables."
    advice_zh = "数据库中有未登记分布方式的表，请使用创建该表的程序版本。"


class BookNotPlaced(NotFound):
    """The book has no shard: it does not exist, or the tables are not distributed."""

    code = "distribute.book_not_placed"
    advice = "Name a book that was opened, on a cluster whose tables are distributed."
    advice_zh = "账本不存在，或尚未执行分布，请检查。"


class NodeUnreadable(Invalid):
    """The machine to move to is not host:port."""

    code = "distribute.node_unreadable"
    advice = "Write the worker as host:port, as it was given to citus_add_node."
    advice_zh = "请按 主机:端口 的格式填写目标节点。"


def _with_book(*tables: str) -> Iterable[Placed]:
    return (Placed(each, Spread.DISTRIBUTED, "has a book and lies with it") for each in tables)


def _everywhere(reason: str, *tables: str) -> Iterable[Placed]:
    return (Placed(each, Spread.REFERENCE, reason) for each in tables)


def _at_home(reason: str, *tables: str) -> Iterable[Placed]:
    return (Placed(each, Spread.LOCAL, reason) for each in tables)


TABLES: Final[tuple[Placed, ...]] = (
    *_with_book(
        ANCHOR,
        *("ledger_watermark", "ledger_account", "ledger_transfer", "ledger_mark", "ledger_batch"),
        *("ledger_opening", "ledger_hold", "ledger_request", "ledger_horizon", "ledger_month_book"),
        *("ledger_month_account", "ledger_movement"),
        *("ledger_tree", "ledger_tree_node", "ledger_checkpoint"),
        *("gl_range", "gl_voucher", "gl_voucher_line", "gl_day_total", "gl_day_request"),
        *("person_wallet", "consent_payment"),
        *("wallet", "payment_code", "payment", "payment_state_change", "attempt", "refund"),
        "price_volume",
        *("limit_meter", "e_account", "e_account_freeze", "e_account_order", "e_account_opener"),
        *("e_account_leg", "e_account_batch", "virtual_card", "virtual_card_guess"),
        *("e_account_payment", "e_account_refund"),
        *("split_receiver", "split", "split_share", "split_return"),
        *("exchange", "payment_case", "recon_item", "bill_cost", "routing_decision"),
        *("settlement", "settlement_line", "payout", "payout_exchange", "checkout"),
        "reserve_part",
        *("transfer_batch", "transfer_item", "transfer_exchange"),
        *("suspense_account", "suspense_item", "refund_stop"),
        *("completion", "agreement", "agreement_use", "agreement_exchange"),
        *("combined_payment", "combined_part", "combining_consent"),
        *("parking_visit", "parking_exchange", "refund_redirection"),
        *("offline_key", "offline_code", "offline_allowance"),
        *("terminal_meter", "terminal_use"),
        *("red_packet", "red_packet_split", "red_packet_grab"),
        *("commission_run", "commission", "commission_line"),
        *("dispute", "dispute_change", "evidence_file"),
        *("complaint", "complaint_message", "complaint_reply", "complaint_exchange"),
        *("complaint_image", "complaint_reply_image"),
    ),
    *_everywhere(
        "named by a foreign key of tables with a book; written at a migration or once a month",
        *("ledger_account_kind", "ledger_month"),
    ),
    *_everywhere("named by the wallets of every book; changed by people", "merchant"),
    *_everywhere("read by whoever decides and whoever reads a book; grows only", "ledger_code"),
    *_everywhere("read with every payment, changed by people", "channel_account", "channel_route"),
    *_everywhere("read with every payment, changed by people", "price_plan"),
    *_everywhere("read with every split, changed by people", "split_policy"),
    *_everywhere("read with every red packet, changed by people", "red_packet_limit"),
    *_at_home(
        "facts of the deployment, written at migrations and by hand",
        *("schema_migration", "deployment", "deployment_clock", "number_range", "proof_key"),
        *("dispute_term", "card_bin", "blob_upload", "scheme_file", "scheme_file_row"),
    ),
    *_at_home("one row a day for all books together", "ledger_day_root"),
    *_at_home("how long evidence is kept", "retention_term", "retention_progress"),
    *_at_home("which books an account is split over, read by one task", "ledger_split"),
    *_at_home("who did what, of people and of the program itself", "audit_entry"),
    *_at_home(
        "the audit log's tree: one writer, one place",
        *("audit_tree", "audit_leaf", "audit_node", "audit_checkpoint"),
    ),
    *_at_home(
        "the last word on each invariant, and how far they were looked at",
        *("invariant_light", "invariant_mark"),
    ),
    *_at_home(
        "queues that workers claim from across all books; SKIP LOCKED wants one machine",
        *("task", "dead_letter", "event"),
    ),
    *_at_home(
        "telling merchants: found by endpoint, and behind the answer",
        *("webhook_endpoint", "webhook_key", "webhook_delivery", "webhook_attempt"),
        "jeepay_notice",
    ),
    *_at_home(
        "asked before the merchant's book is known",
        *("api_key", "api_nonce", "idempotency_key", "inbound_callback"),
        *("agreed_rate", "rate_bucket"),
        "change_mark",
        *("login_source_rule", "login_source_use"),
        *("request_line", "request_log_term"),
    ),
    *_at_home(
        "people of the firm itself and how they prove it; none of it is money, none has a book",
        *("person", "person_key", "person_contact", "person_device", "person_session"),
        *("person_push_token", "person_notice_choice"),
        *("person_identity", "person_bar", "real_name_check", "real_name_rule", "retention_rule"),
        *("consent_text", "person_consent", "notification"),
        *("password", "password_before", "message_code", "code_allowance", "authenticator"),
        *("passkey", "challenge", "certificate_anchor", "client_certificate"),
        "revocation_list",
        *("step_up_signal", "step_up_decision", "step_up_payee"),
        *("step_up_rule", "confirmation", "bound_card", "card_binder"),
    ),
    *_at_home(
        "who signed up for the sandbox; asked before a book is known",
        *("developer", "developer_session"),
    ),
    *_at_home(
        "third parties of the open bank and what people let them do; asked before a book is known",
        *("partner", "seen_token", "open_consent", "authorisation", "partner_token"),
        *("partner_access", "lodged_consent", "consent_visit", "message_key"),
    ),
    *_at_home(
        "wallets that merchants' apps open for their users; asked before a book is known",
        *("wallet_programme", "wallet_application", "wallet_proposal", "wallet_session"),
    ),
    *_at_home(
        "people who work at the console", "operator", "operator_session", "operator_recovery_code"
    ),
    *_at_home("decided by people, and applied by tasks", "approval", "api_key_handover"),
    *_at_home("who agrees, and from which amount on two", "second_check", "approval_agreement"),
    *_at_home("keys that wait for a second person", "channel_keys_waiting"),
    *_at_home(
        "keys, of merchants of every book and our own",
        *("sealing_key", "master_key", "key_ceremony"),
    ),
    *_at_home("read by tasks, changed by people", "calendar_day", "calendar_cut_off"),
    *_at_home("read before a movement, changed by migrations", "limit_rule", "opening_rule"),
    *_at_home(
        "settlement: what people agree and look at, and files for banks, of all books together",
        *("settlement_term", "settlement_hold", "settlement_batch", "settlement_left_out"),
        *("payout_file", "payout_answer"),
    ),
    *_at_home(
        "taking merchants on and what they are to us: decided by people, never on the way of money",
        *("application", "application_document", "registration", "registration_exchange"),
        *("merchant_standing", "merchant_term", "term_signature"),
        *("agent", "agent_term", "agent_merchant", "store", "staff", "staff_store"),
        *("staff_pin", "staff_pin_code"),
    ),
    *_at_home("asked before the merchant's book is known", "plate"),
    *_at_home(
        "what shops sell, and who has ordered what: names payments, and none of it is money",
        *("product", "sku", "shop_order", "order_line", "order_refund", "order_review"),
        *("dining_table", "table_tab", "dish"),
    ),
    *_at_home(
        "asked before the merchant's book is known, by machines of every merchant",
        *("terminal", "terminal_batch", "terminal_binding", "terminal_heartbeat"),
        *("terminal_template", "terminal_template_version", "terminal_parameter_version"),
        *("terminal_feed", "terminal_notice", "till_session"),
    ),
    *_at_home(
        "asked before the merchant's book is known; nothing of them is money",
        *("jeepay_app", "jeepay_order", "jeepay_refund"),
    ),
    *_at_home(
        "figures of accounts and rules for them, of all books together",
        *("routing_rule_set", "routing_shadow", "routing_bucket", "routing_breaker"),
        "routing_quota",
    ),
    *_at_home(
        "what banks say, and proofs over all books together",
        *("custody_account", "custody_balance", "reserve_rule", "reserve_proof", "reserve_gap"),
    ),
    *_at_home(
        "a channel's bill has the payments of all books",
        *("bill_file", "bill_row", "bill_fault", "recon_break", "recon_waiting"),
        *("source", "source_file", "source_chunk", "source_row", "source_line_fault"),
        *("recon_case", "recon_slice", "slice_piece", "source_layout", "match_rule"),
        *("batch", "batch_item"),
    ),
)

_HAS_CITUS = Query(bool, "select to_regproc('create_distributed_table') is not null")
_TABLES_HERE = Query(
    str,
    """
    select relname::text as name from pg_class
     where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
     order by relname""",
)
_REFERENCES = Query(
    Reference,
    """
    select distinct named.conrelid::regclass::text as "table",
           named.confrelid::regclass::text as names
      from pg_constraint named
     where named.contype = 'f' and named.connamespace = 'public'::regnamespace
       and named.conrelid <> named.confrelid and named.conparentid = 0
     order by 1, 2""",
)
_LOCK = Statement("lock table schema_migration in share row exclusive mode")

# Citus' own tables: no Query, because a test prepares those on a PostgreSQL without it.
_PLACED_ALREADY = "select logicalrelid::text from pg_dist_partition"
_SHARD_OF_BOOK = f"select get_shard_id_for_distribution_column('{ANCHOR}', $1::int)"
_NODE_OF_SHARD = "select nodename, nodeport from citus_shards where shardid = $1"
_ISOLATE = f"select isolate_tenant_to_new_shard('{ANCHOR}', $1::int, 'CASCADE')"
_MOVE = "select citus_move_shard_placement($1, $2, $3, $4, $5)"


def commands(tables: Sequence[str], references: Sequence[Reference]) -> list[str]:
    """Return the SQL that places these tables, whoever is named before whoever names it.

    Raises:
        TablesUnplaced
    """
    placed = {each.table: each for each in TABLES}
    if unknown := sorted(set(tables) - set(placed)):
        raise TablesUnplaced(tables=", ".join(unknown))
    ordered = in_order(tables, references)
    everywhere = [t for t in ordered if placed[t].spread is Spread.REFERENCE]
    with_book = [t for t in ordered if placed[t].spread is Spread.DISTRIBUTED]
    return [
        *(f"select create_reference_table('{table}')" for table in everywhere),
        *(_distribute(table) for table in with_book),
    ]


def in_order(tables: Sequence[str], references: Sequence[Reference]) -> list[str]:
    """Return the tables with the anchor first, and each after those that it names."""
    named: Mapping[str, set[str]] = {
        table: {each.names for each in references if each.table == table} & set(tables)
        for table in tables
    }
    ordered: list[str] = []
    waiting = sorted(tables, key=lambda table: (table != ANCHOR, table))
    while waiting:
        ready = [table for table in waiting if named[table] <= set(ordered)]
        if not ready:
            raise ValueError(f"foreign keys in a circle: {', '.join(waiting)}")
        ordered += ready
        waiting = [table for table in waiting if table not in ready]
    return ordered


async def distribute(db: Db, *, only_show: bool = False) -> list[str]:
    """Place every table that is not placed yet, and return the commands that did it.

    Empty tables take no time; filled ones are copied to where they belong, and their writers wait.
    Run it again after each migration that brings tables.

    Raises:
        CitusMissing, TablesUnplaced, LockNotFree
    """
    has_citus = await _HAS_CITUS.one(db)
    if not has_citus and not only_show:
        raise CitusMissing
    done = {row[0] for row in await db.fetch(_PLACED_ALREADY, ())} if has_citus else set[str]()
    tables = await _TABLES_HERE.all(db)
    ordered = commands(tables, await _REFERENCES.all(db))
    missing = [sql for sql in ordered if sql.split("'")[1] not in done]
    if not only_show:
        for sql in missing:
            async with db.begin("distribute") as tx:
                await _LOCK.run(tx)
                await tx.fetch(sql, ())
    return missing


async def move_book(db: Db, book: int, node: str) -> str:
    """Give a book a shard of its own, move that to another machine, and return where it was.

    Its poster waits while the last rows are carried over, and goes on by itself.

    Raises:
        CitusMissing, BookNotPlaced, NodeUnreadable
    """
    host, _, port = node.rpartition(":")
    if not host or not port.isdecimal():
        raise NodeUnreadable(given=node)
    if not await _HAS_CITUS.one(db):
        raise CitusMissing
    shard = (await db.fetch(_SHARD_OF_BOOK, (book,)))[0][0]
    if shard is None:
        raise BookNotPlaced(book=book)
    own = (await db.fetch(_ISOLATE, (book,)))[0][0]
    [(from_host, from_port)] = [tuple(row) for row in await db.fetch(_NODE_OF_SHARD, (own,))]
    await db.fetch(_MOVE, (own, from_host, from_port, host, int(port)))
    return f"{from_host}:{from_port}"


def _distribute(table: str) -> str:
    if table == ANCHOR:
        return f"select create_distributed_table('{table}', 'book', shard_count => {SHARDS})"
    return f"select create_distributed_table('{table}', 'book', colocate_with => '{ANCHOR}')"
