-- A merchant's people sign in at terminals: PINs, who is at which till, and who asked for what.

alter table staff drop constraint staff_state_check;
alter table staff add constraint staff_state_check check (state in ('active', 'suspended', 'left'));

-- Who is suspended keeps the phone.
drop index staff_phone_once;
create unique index staff_phone_once on staff (merchant_id, mode, phone_blind)
    where state <> 'left';

-- A code with which a person chooses a PIN; used up when the PIN is there.
create table staff_pin_code (
    staff_id    uuid primary key references staff (id),
    code_hash   bytea not null check (length(code_hash) = 32),
    misses      int not null check (misses between 0 and 5),
    expires_at  timestamptz not null
);

-- `number` counts the PINs somebody has had; `tries` are those since the last right one.
create table staff_pin (
    staff_id      uuid primary key references staff (id),
    hash          text not null check (hash <> ''),
    number        int not null check (number > 0),
    set_at        timestamptz not null,
    tries         int not null check (tries between 0 and 15),
    locked_until  timestamptz
);

-- Who is at a till now, or was last: one person for a terminal. It is the terminal's key of that
-- moment that signs; who was signed in before is in the audit log.
create table till_session (
    terminal_id  uuid primary key,
    id           uuid not null unique,
    key_number   int not null check (key_number > 0),
    staff_id     uuid not null references staff (id),
    merchant_id  uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    opened_at    timestamptz not null,
    ends_at      timestamptz not null check (ends_at > opened_at),
    ended_at     timestamptz
);
create index till_session_of_staff on till_session (staff_id) where ended_at is null;

-- Which person asked, where it was one at a till; a program's requests name nobody.
alter table idempotency_key add column asked_by uuid;
create index idempotency_key_by_person on idempotency_key (asked_by, created_at)
    where asked_by is not null;
alter table refund add column staff_id uuid;
