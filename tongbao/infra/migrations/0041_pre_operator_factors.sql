-- Second factors of operators beside TOTP: passkeys lie in `passkey`; here are the codes on paper.
create table operator_recovery_code (
    operator_id  uuid not null references operator (id),
    code_hash    bytea not null check (length(code_hash) = 32),
    made_at      timestamptz not null,
    used_at      timestamptz,
    primary key (operator_id, code_hash)
);
