"""The SQL of people; nothing outside this package reads these tables."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.parties.people.model import (
    ConsentText,
    Opened,
    Person,
    PersonBar,
    PersonConsent,
    PersonContact,
    PersonDevice,
    PersonIdentity,
    RealNameCheck,
    RealNameRule,
    RetentionRule,
)

_PERSON: Final = (
    "id, mode, state, language, real_name_level, failures, locked_until, created_at, erased_at"
)
_CONTACT: Final = "person_id, mode, kind, blind, masked, sealed, proved_at"
_DEVICE: Final = "id, person_id, name, key_kind, public_key, state, bound_at, removed_at"
_TEXT: Final = (
    "kind, version, language, title, body, sha256, is_required, published_at, published_by"
)
_CONSENT: Final = "id, person_id, kind, version, language, sha256, given_at, withdrawn_at"
_IDENTITY: Final = (
    "person_id, mode, blind, name_masked, number_masked, sealed, face_to_face, given_at"
)
_CHECK: Final = "id, person_id, source, verdict, reference, asked_at, answered_at"

# People and their keys
INSERT_PERSON: Final = Query(
    Person,
    f"""
    insert into person (id, mode, state, language, real_name_level, failures, created_at)
    values ($1, $2, 'active', $3, 0, 0, $4)
    returning {_PERSON}""",
)
GET_PERSON: Final = Query(Person, f"select {_PERSON} from person where id = $1")
LOCK_PERSON: Final = Query(Person, f"select {_PERSON} from person where id = $1 for update")
# Weaker than the lock of an erasure: rows that only name the person may be written meanwhile.
HOLD_PERSON: Final = Query(Person, f"select {_PERSON} from person where id = $1 for no key update")
BARS: Final = Query(
    PersonBar,
    """
    select id, person_id, document, confirmed_on, ends_at, instrument, set_by, set_at, lifted_by,
           lifted_at, lifted_because
      from person_bar where person_id = $1 order by id""",
)
INSERT_BAR: Final = Statement("""
    insert into person_bar (id, person_id, document, confirmed_on, ends_at, instrument, set_by,
                            set_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8)""")
LIFT_BAR: Final = Statement("""
    update person_bar set lifted_by = $2, lifted_at = $3, lifted_because = $4
     where id = $1 and lifted_at is null""")
SET_LANGUAGE: Final = Statement("update person set language = $2 where id = $1")
SET_STATE: Final = Query(
    Person,
    f"""
    update person set state = $2 where id = $1 and state in ('active', 'suspended')
    returning {_PERSON}""",
)
SET_LEVEL: Final = Statement("update person set real_name_level = $2 where id = $1")
ERASE: Final = Query(
    Person,
    f"""
    update person set state = 'erased', erased_at = $2
     where id = $1 and state <> 'erased'
    returning {_PERSON}""",
)
# A try is counted before it is judged, so a burst of guesses in parallel gets no more than five.
COUNT_TRY: Final = Query(
    Person,
    f"""
    update person
       set failures = failures + 1,
           locked_until = case when failures + 1 >= $2 then $4::timestamptz end
     where id = $1 and state = 'active' and (locked_until is null or locked_until <= $3)
    returning {_PERSON}""",
)
CLEAR_TRIES: Final = Statement("update person set failures = 0, locked_until = null where id = $1")
INSERT_KEY: Final = Statement(
    "insert into person_key (person_id, kind, sealed) values ($1, $2, $3)"
)
GET_KEY: Final = Query(bytes, "select sealed from person_key where person_id = $1 and kind = $2")
FORGET_KEY: Final = Statement("delete from person_key where person_id = $1 and kind = $2")

# Addresses
INSERT_CONTACT: Final = Statement("""
    insert into person_contact (person_id, mode, kind, blind, masked, sealed, proved_at)
    values ($1, $2, $3, $4, $5, $6, $7)
        on conflict do nothing""")
REPLACE_CONTACT: Final = Statement("delete from person_contact where person_id = $1 and kind = $2")
FIND_CONTACT: Final = Query(
    PersonContact, f"select {_CONTACT} from person_contact where mode = $1 and blind = $2"
)
CONTACTS: Final = Query(
    PersonContact, f"select {_CONTACT} from person_contact where person_id = $1 order by kind desc"
)
FORGET_CONTACTS: Final = Statement("delete from person_contact where person_id = $1")

# Phones and sessions
INSERT_DEVICE: Final = Query(
    PersonDevice,
    f"""
    insert into person_device (id, person_id, name, key_kind, public_key, state, bound_at)
    values ($1, $2, $3, $4, $5, 'active', $6)
        on conflict (person_id, public_key) where state = 'active' do nothing
    returning {_DEVICE}""",
)
FIND_DEVICE: Final = Query(
    PersonDevice,
    f"""
    select {_DEVICE} from person_device
     where person_id = $1 and public_key = $2 and state = 'active'""",
)
DEVICES: Final = Query(
    PersonDevice,
    f"""
    select {_DEVICE} from person_device
     where person_id = $1 and state = 'active' order by id""",
)
ALL_DEVICES: Final = Query(
    PersonDevice, f"select {_DEVICE} from person_device where person_id = $1 order by id"
)
DEVICE_BOUND_AT: Final = Query(
    datetime, "select bound_at from person_device where id = $1 and state = 'active'"
)
LOCK_DEVICE: Final = Query(
    PersonDevice,
    f"""
    select {_DEVICE} from person_device
     where id = $1 and person_id = $2 and state = 'active' for update""",
)
REMOVE_DEVICE: Final = Statement("""
    update person_device set state = 'removed', removed_at = $3
     where id = $1 and person_id = $2 and state = 'active'""")
FORGET_DEVICES: Final = Statement("delete from person_device where person_id = $1")
INSERT_SESSION: Final = Statement("""
    insert into person_session (token_hash, person_id, device_id, methods, opened_at, seen_at,
                                expires_at)
    values ($1, $2, $3, $4, $5, $5, $6)""")
FIND_SESSION: Final = Query(
    Opened,
    """
    select s.token_hash, s.person_id, s.device_id, s.methods, s.opened_at, s.seen_at,
           s.expires_at, p.mode, p.state, d.key_kind, d.public_key, d.bound_at
      from person_session s
      join person p on p.id = s.person_id
      join person_device d on d.id = s.device_id and d.state = 'active'
     where s.token_hash = $1""",
)
TOUCH_SESSION: Final = Statement(
    "update person_session set seen_at = $2 where token_hash = $1 and seen_at < $2"
)
END_SESSION: Final = Statement("delete from person_session where token_hash = $1")
END_SESSIONS_OF: Final = Statement("delete from person_session where person_id = $1")
END_SESSIONS_BUT: Final = Statement(
    "delete from person_session where person_id = $1 and token_hash <> $2"
)
END_SESSIONS_ON: Final = Statement("delete from person_session where device_id = $1")
SESSIONS_OF: Final = Query(int, "select count(*)::int from person_session where person_id = $1")
PRUNE_SESSIONS: Final = Statement(
    "delete from person_session where expires_at < $1 or seen_at < $2"
)

# Consents
INSERT_TEXT: Final = Query(
    ConsentText,
    f"""
    insert into consent_text ({_TEXT}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict do nothing
    returning {_TEXT}""",
)
GET_TEXT: Final = Query(
    ConsentText,
    f"select {_TEXT} from consent_text where kind = $1 and version = $2 and language = $3",
)
TEXTS_IN_FORCE: Final = Query(
    ConsentText,
    f"""
    select {_TEXT} from consent_text
     where (kind, version) in (select kind, max(version) from consent_text group by kind)
     order by kind, language""",
)
NEWEST_VERSION: Final = Query(
    int, "select coalesce(max(version), 0) as newest from consent_text where kind = $1"
)
GIVE_CONSENT: Final = Statement("""
    insert into person_consent (id, person_id, kind, version, language, sha256, given_at)
    values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (person_id, kind, version) where withdrawn_at is null do nothing""")
WITHDRAW_CONSENT: Final = Statement("""
    update person_consent set withdrawn_at = $3
     where person_id = $1 and kind = $2 and withdrawn_at is null""")
CONSENTS: Final = Query(
    PersonConsent, f"select {_CONSENT} from person_consent where person_id = $1 order by id"
)

# Real names
INSERT_IDENTITY: Final = Query(
    PersonIdentity,
    f"""
    insert into person_identity ({_IDENTITY}) values ($1, $2, $3, $4, $5, $6, false, $7)
        on conflict do nothing
    returning {_IDENTITY}""",
)
GET_IDENTITY: Final = Query(
    PersonIdentity, f"select {_IDENTITY} from person_identity where person_id = $1"
)
DROP_IDENTITY: Final = Statement("delete from person_identity where person_id = $1")
SET_FACE_TO_FACE: Final = Statement(
    "update person_identity set face_to_face = true where person_id = $1"
)
INSERT_CHECK: Final = Query(
    RealNameCheck,
    f"""
    insert into real_name_check (id, person_id, source, asked_at) values ($1, $2, $3, $4)
    returning {_CHECK}""",
)
ANSWER_CHECK: Final = Query(
    RealNameCheck,
    f"""
    update real_name_check set verdict = $2, reference = $3, answered_at = $4
     where id = $1 and (verdict is null or verdict = 'unknown')
    returning {_CHECK}""",
)
CHECKS: Final = Query(
    RealNameCheck, f"select {_CHECK} from real_name_check where person_id = $1 order by id"
)
AGREED: Final = Query(
    int,
    """
    select count(distinct source)::int from real_name_check
     where person_id = $1 and verdict = 'same'""",
)
RULES: Final = Query(
    RealNameRule,
    """
    select level, valid_from, sources_min, instrument from real_name_rule
     order by level, valid_from""",
)

# What the law wants kept, and when it no longer does
RETENTION: Final = Query(
    RetentionRule,
    """
    select kind, valid_from, years, instrument from retention_rule
     where kind = $1 and valid_from <= $2 order by valid_from desc limit 1""",
)
ERASED_BEFORE: Final = Query(
    UUID,
    """
    select id from person p
     where p.erased_at < $1
       and exists (select from person_key k where k.person_id = p.id and k.kind = 'kept')
     order by id limit 1000""",
)
FORGET_CHECKS: Final = Statement("delete from real_name_check where person_id = $1")
FORGET_CONSENTS: Final = Statement("delete from person_consent where person_id = $1")

# For operators
FIND_PEOPLE: Final = Query(
    Person,
    f"""
    select {_PERSON} from person
     where ($1::uuid is null or id = $1) and ($2::text is null or mode = $2)
       and ($3::text is null or state = $3)
       and ($4::bytea is null
            or id in (select person_id from person_contact where blind = $4)
            or id in (select person_id from person_identity where blind = $4))
       and ($5::uuid is null or id < $5)
     order by id desc
     limit $6""",
)
