"""The SQL of terminals; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.parties.terminals.model import (
    Binding,
    Heartbeat,
    Meter,
    ParametersVersion,
    Template,
    Terminal,
)

_TERMINAL: Final = """id, serial_number, model, batch_id, state, merchant_id, mode, name, store_id,
    plate_id, template_id, own_parameters, parameters_version, key_sealed, key_number, code_hash,
    code_expires_at, code_misses, changed_at"""
_BINDING: Final = """id, terminal_id, merchant_id, mode, name, store_id, plate_id, bound_at,
    bound_by, ended_at, ended_by, why"""
_BEAT: Final = """terminal_id, seen_at, signed_at, firmware, battery, signal, parameters_version,
    heard, is_offline"""
_VERSION: Final = "terminal_id, version, template_version, own, effective, why, made_at, made_by"
_TEMPLATE: Final = "id, name, version, parameters, changed_at"
_METER: Final = """book, terminal_id, currency, limit_each, limit_count, limit_amount, cap_each,
    cap_count, cap_amount, used_on, used_count, used_amount, since"""

# Inventory

INSERT_BATCH: Final = Statement("""
    insert into terminal_batch (id, name, model, digest, terminals, imported_at, imported_by)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict (digest) do nothing""")
BATCH_WITH_DIGEST: Final = Query(UUID, "select id from terminal_batch where digest = $1")
KNOWN_SERIALS: Final = Query(
    str,
    """
    select serial_number from terminal
     where serial_number = any($1::text[]) order by serial_number limit 1""",
)
INSERT_TERMINALS: Final = Statement("""
    insert into terminal (id, serial_number, model, batch_id, state, name, own_parameters,
                          parameters_version, key_number, code_misses, changed_at)
    select asked.id, asked.serial_number, $3, $4, 'stock', '', '{}'::jsonb, 0, 0, 0, $5
      from unnest($1::uuid[], $2::text[]) as asked (id, serial_number)
        on conflict (serial_number) do nothing""")
GET_TERMINAL: Final = Query(Terminal, f"select {_TERMINAL} from terminal where id = $1")
TERMINALS: Final = Query(Terminal, f"select {_TERMINAL} from terminal where id = any($1::uuid[])")
LOCK_TERMINAL: Final = Query(Terminal, f"select {_TERMINAL} from terminal where id = $1 for update")
FIND_SERIAL: Final = Query(Terminal, f"select {_TERMINAL} from terminal where serial_number = $1")
OF_MERCHANT: Final = Query(
    Terminal,
    f"select {_TERMINAL} from terminal where id = $1 and merchant_id = $2 and mode = $3",
)
OF_PLATES: Final = Query(
    Terminal,
    f"""
    select {_TERMINAL} from terminal
     where plate_id = any($1::uuid[]) and state = 'bound' order by id""",
)
LIST_TERMINALS: Final = Query(
    Terminal,
    f"""
    select {_TERMINAL} from terminal
     where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
       and ($3::text is null or state = $3) and ($4::text is null or serial_number = $4)
       and (not $5::boolean or exists (select 1 from terminal_heartbeat h
                                        where h.terminal_id = terminal.id and h.seen_at < $6))
       and ($7::uuid is null or id < $7)
     order by id desc
     limit $8""",
)
SET_STATE: Final = Query(
    Terminal,
    f"update terminal set state = $2, changed_at = $3 where id = $1 returning {_TERMINAL}",
)
PLACE_TERMINAL: Final = Query(
    Terminal,
    f"""
    update terminal
       set state = $2, merchant_id = $3, mode = $4, name = $5, store_id = $6, plate_id = $7,
           changed_at = $8
     where id = $1
    returning {_TERMINAL}""",
)
# What a merchant told it, and every way in, ends with the binding.
CLEAR_TERMINAL: Final = Query(
    Terminal,
    f"""
    update terminal
       set state = $2, merchant_id = null, mode = null, name = '', store_id = null,
           plate_id = null, own_parameters = '{{}}'::jsonb, key_sealed = null, code_hash = null,
           code_expires_at = null, code_misses = 0, changed_at = $3
     where id = $1
    returning {_TERMINAL}""",
)
INSERT_BINDING: Final = Statement("""
    insert into terminal_binding (id, terminal_id, merchant_id, mode, name, store_id, plate_id,
                                  bound_at, bound_by, why)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""")
END_BINDING: Final = Statement("""
    update terminal_binding set ended_at = greatest(bound_at, $2::timestamptz), ended_by = $3
     where terminal_id = $1 and ended_at is null""")
BINDINGS: Final = Query(
    Binding,
    f"select {_BINDING} from terminal_binding where terminal_id = $1 order by id desc limit 50",
)

# Keys and heartbeats

GIVE_CODE: Final = Statement("""
    update terminal set code_hash = $2, code_expires_at = $3, code_misses = 0 where id = $1""")
MISS_CODE: Final = Statement("update terminal set code_misses = code_misses + 1 where id = $1")
GIVE_KEY: Final = Query(
    Terminal,
    f"""
    update terminal
       set key_sealed = $2, key_number = key_number + 1, code_hash = null, code_expires_at = null,
           code_misses = 0, changed_at = $3
     where id = $1
    returning {_TERMINAL}""",
)
FIRST_BEAT: Final = Statement("""
    insert into terminal_heartbeat (terminal_id, seen_at, signed_at, firmware, parameters_version,
                                    heard, is_offline)
    values ($1, $2, 0, '', 0, 0, false)
    on conflict (terminal_id) do update
       set seen_at = excluded.seen_at, is_offline = false""")
FORGET_BEAT: Final = Statement("delete from terminal_heartbeat where terminal_id = $1")
# One that was signed before the last one, or with it, is a repeat of somebody else's: it is passed
# over. So no nonce need be kept of any.
BEAT: Final = Statement(f"""
    insert into terminal_heartbeat as known ({_BEAT})
    select asked.id, $2, asked.signed_at, asked.firmware, asked.battery, asked.signal,
           asked.parameters_version, asked.heard, false
      from unnest($1::uuid[], $3::bigint[], $4::text[], $5::int[], $6::int[], $7::int[],
                  $8::bigint[])
        as asked (id, signed_at, firmware, battery, signal, parameters_version, heard)
        on conflict (terminal_id) do update
       set seen_at = greatest(known.seen_at, excluded.seen_at), signed_at = excluded.signed_at,
           firmware = excluded.firmware, battery = excluded.battery, signal = excluded.signal,
           parameters_version = excluded.parameters_version,
           heard = greatest(known.heard, excluded.heard)
     where excluded.signed_at > known.signed_at""")
GET_BEAT: Final = Query(Heartbeat, f"select {_BEAT} from terminal_heartbeat where terminal_id = $1")
BEATS: Final = Query(
    Heartbeat, f"select {_BEAT} from terminal_heartbeat where terminal_id = any($1::uuid[])"
)
# A row whose heartbeat came while its lock was waited for is looked at again, and left.
GONE: Final = Query(
    Heartbeat,
    f"""
    update terminal_heartbeat set is_offline = true
     where terminal_id in (select terminal_id from terminal_heartbeat
                            where not is_offline and seen_at < $1
                            limit $2 for update skip locked)
    returning {_BEAT}""",
)
BACK: Final = Query(
    Heartbeat,
    f"""
    update terminal_heartbeat set is_offline = false
     where terminal_id in (select terminal_id from terminal_heartbeat
                            where is_offline and seen_at >= $1
                            limit $2 for update skip locked)
    returning {_BEAT}""",
)

# Parameters

INSERT_TEMPLATE: Final = Query(
    Template,
    f"""
    insert into terminal_template ({_TEMPLATE}) values ($1, $2, 1, $3, $4)
    on conflict (name) do update
       set version = terminal_template.version + 1, parameters = excluded.parameters,
           changed_at = excluded.changed_at
    returning {_TEMPLATE}""",
)
INSERT_TEMPLATE_VERSION: Final = Statement("""
    insert into terminal_template_version (template_id, version, parameters, why, made_at, made_by)
    values ($1, $2, $3, $4, $5, $6)""")
TEMPLATES: Final = Query(Template, f"select {_TEMPLATE} from terminal_template order by name")
FIND_TEMPLATE: Final = Query(Template, f"select {_TEMPLATE} from terminal_template where name = $1")
GET_TEMPLATE: Final = Query(Template, f"select {_TEMPLATE} from terminal_template where id = $1")
# The locks of everybody who follows it are taken in one order, before any version is made.
LOCK_FOLLOWERS: Final = Query(
    Terminal,
    f"select {_TERMINAL} from terminal where template_id = $1 order by id for update",
)
TELL_FOLLOWERS: Final = Statement("""
    insert into terminal_parameter_version (terminal_id, version, template_version, own, effective,
                                            why, made_at, made_by)
    select id, parameters_version + 1, $2, own_parameters,
           $3::jsonb || $4::jsonb || own_parameters, $5, $6, $7
      from terminal where template_id = $1""")
BUMP_FOLLOWERS: Final = Statement("""
    update terminal set parameters_version = parameters_version + 1 where template_id = $1""")
INSERT_VERSION: Final = Query(
    ParametersVersion,
    f"""
    insert into terminal_parameter_version ({_VERSION}) values ($1, $2, $3, $4, $5, $6, $7, $8)
    returning {_VERSION}""",
)
SET_PARAMETERS: Final = Statement("""
    update terminal set own_parameters = $2, template_id = $3, parameters_version = $4,
                        changed_at = $5
     where id = $1""")
GET_VERSION: Final = Query(
    ParametersVersion,
    f"select {_VERSION} from terminal_parameter_version where terminal_id = $1 and version = $2",
)
VERSIONS: Final = Query(
    ParametersVersion,
    f"""
    select {_VERSION} from terminal_parameter_version
     where terminal_id = $1 order by version desc limit 50""",
)

# Limits

# Whoever had the terminal before leaves nothing of theirs: no limit, no cap, nothing counted.
OPEN_METER: Final = Statement("""
    insert into terminal_meter (book, terminal_id, currency, used_on, used_count, used_amount,
                                since)
    values ($1, $2, 'CNY', $3, 0, 0, $4)
    on conflict (book, terminal_id) do update
       set currency = 'CNY', limit_each = null, limit_count = null, limit_amount = null,
           cap_each = null, cap_count = null, cap_amount = null, used_on = excluded.used_on,
           used_count = 0, used_amount = 0, since = excluded.since""")
GET_METER: Final = Query(
    Meter, f"select {_METER} from terminal_meter where book = $1 and terminal_id = $2"
)
SET_LIMITS: Final = Query(
    Meter,
    f"""
    update terminal_meter
       set used_amount = case when currency = $3 then used_amount else 0 end, currency = $3,
           limit_each = $4, limit_count = $5, limit_amount = $6
     where book = $1 and terminal_id = $2
    returning {_METER}""",
)
SET_CAPS: Final = Query(
    Meter,
    f"""
    update terminal_meter
       set used_amount = case when currency = $3 then used_amount else 0 end, currency = $3,
           cap_each = $4, cap_count = $5, cap_amount = $6
     where book = $1 and terminal_id = $2
    returning {_METER}""",
)
# Decided on the row as it is when its lock is had: of two payments that would both fit, and do not
# fit together, one is refused; what comes late from the day before counts on the day that has
# begun. `least` passes over what is null.
COUNT_PAYMENT: Final = Statement("""
    update terminal_meter
       set used_count = case when used_on >= $3 then used_count else 0 end + 1,
           used_amount = case when used_on >= $3 then used_amount else 0 end
                         + case when currency = $5 then $4::bigint else 0 end,
           used_on = greatest(used_on, $3)
     where book = $1 and terminal_id = $2
       and (currency = $5
            or coalesce(limit_each, limit_amount, cap_each, cap_amount) is null)
       and $4 <= coalesce(least(limit_each, cap_each), $4)
       and case when used_on >= $3 then used_count else 0 end
           < coalesce(least(limit_count, cap_count), 2147483647)
       and case when used_on >= $3 then used_amount else 0 end + $4
           <= coalesce(least(limit_amount, cap_amount), 9223372036854775807)""")
INSERT_USE: Final = Statement("""
    insert into terminal_use (book, payment_id, terminal_id, amount, used_on, at)
    select $1, $2, $3, case when m.currency = $6 then $4::bigint else 0 end,
           greatest($5, m.used_on), $7
      from terminal_meter m where m.book = $1 and m.terminal_id = $3""")
# What was counted on a day that is over counts no more, and cannot come back.
RETURN_USED: Final = Statement("""
    update terminal_meter m
       set used_count = greatest(m.used_count - 1, 0),
           used_amount = greatest(m.used_amount - u.amount, 0)
      from terminal_use u
     where u.book = $1 and u.payment_id = $2 and u.released_at is null
       and m.book = $1 and m.terminal_id = u.terminal_id and m.used_on = u.used_on
       and u.at >= m.since""")
RELEASE_USE: Final = Statement("""
    update terminal_use set released_at = $3
     where book = $1 and payment_id = $2 and released_at is null""")
