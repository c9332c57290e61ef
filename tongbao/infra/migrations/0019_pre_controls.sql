-- Four eyes: what one person proposes and another approves, and what became of it.

create table approval (
    id             uuid not null primary key,
    act            text not null check (length(act) between 1 and 64),
    subject        text not null check (length(subject) between 1 and 200),
    merchant_id    uuid,
    mode           text check (mode in ('live', 'sandbox')),
    terms          text not null check (length(terms) between 2 and 65536),
    digest         bytea not null check (length(digest) = 32),
    reason         text not null check (length(reason) between 4 and 500),
    maker          text not null check (maker <> ''),
    made_at        timestamptz not null,
    expires_at     timestamptz not null,
    state          text not null check (state in ('proposed', 'approved', 'applied', 'rejected',
                                                  'withdrawn', 'expired', 'failed')),
    checker        text,
    decided_at     timestamptz,
    note           text check (length(note) <= 500),
    ended_at       timestamptz,
    code           text,             -- failed: the refusal that stopped the effect
    superseded_by  uuid,             -- withdrawn: the proposal in whose favour
    check (expires_at > made_at),
    constraint approval_four_eyes check (checker <> maker),
    check ((state in ('approved', 'applied', 'rejected', 'failed')) = (checker is not null)),
    check ((checker is null) = (decided_at is null)),
    check ((state in ('proposed', 'approved')) = (ended_at is null)),
    check ((state = 'failed') = (code is not null)),
    check (superseded_by is null or state = 'withdrawn'),
    check (state <> 'rejected' or length(note) >= 4)
);
-- One thing changes in one way at a time.
create unique index approval_open on approval (act, subject) where state in ('proposed', 'approved');
create index approval_waiting on approval (id) where state in ('proposed', 'approved');
create index approval_of_subject on approval (subject, id);

-- What was proposed stays as it was: only what became of it may be written later.
revoke update, delete, truncate on approval from current_user;
grant update (state, checker, decided_at, note, ended_at, code, superseded_by)
    on approval to current_user;
