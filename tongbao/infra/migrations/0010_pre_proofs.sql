-- Proofs: a Merkle tree over the journal of each book (RFC 6962), the checkpoints signed over it,
-- and the keys that sign. Written behind the commits; nothing that posts waits for it.

-- Private keys, sealed under the file key. One key of a kind is current; a replaced one goes on
-- signing beside it until its end, so that who knows either can check.
create table proof_key (
    id          uuid primary key,
    kind        text not null check (kind in ('ed25519', 'sm2', 'blind')),
    public_key  bytea,
    sealed      bytea not null,
    starts_at   timestamptz not null,
    ends_at     timestamptz,
    check ((kind = 'blind') = (public_key is null)),
    -- Every leaf was made with the one blinding key: it cannot end.
    check (kind <> 'blind' or ends_at is null),
    check (ends_at > starts_at)
);
create unique index proof_key_current on proof_key (kind) where ends_at is null;

-- How far the tree of a book has followed its journal: always up to the end of a batch.
create table ledger_tree (
    book         int not null primary key references ledger_book (book),
    size         bigint not null check (size >= 0),   -- leaves, which is the seq of the last one
    batch        bigint not null check (batch >= 0),
    head_hash    bytea not null check (length(head_hash) = 32),
    frontier     bytea not null check (length(frontier) % 32 = 0),
    block_batch  bigint not null check (block_batch > 0),  -- has the first leaf of the open block
    audited      bigint not null check (audited >= 0),     -- blocks derived anew in this tour
    checkpoints  int not null check (checkpoints >= 0)
) with (fillfactor = 50);

-- Roots of complete subtrees of 256, 65,536, … leaves. What lies below one is derived from the
-- journal again, so the tree takes about half a byte for each transfer.
create table ledger_tree_node (
    book    int not null,
    level   smallint not null check (level > 0 and level % 8 = 0),
    number  bigint not null check (number >= 0),
    hash    bytea not null check (length(hash) = 32),
    batch   bigint check (batch > 0),                 -- has the first leaf of a block of 256
    primary key (book, level, number),
    check ((level = 8) = (batch is not null))
);

-- What was promised and signed. That of each night stays for ever.
create table ledger_checkpoint (
    book        int not null,
    number      int not null check (number > 0),
    size        bigint not null check (size >= 0),
    batch       bigint not null check (batch >= 0),
    root        bytea not null check (length(root) = 32),
    head_hash   bytea not null check (length(head_hash) = 32),
    frontier    bytea not null check (length(frontier) % 32 = 0),
    codes       int not null check (codes >= 0),
    codes_root  bytea not null check (length(codes_root) = 32),
    day         date,                                  -- of a nightly one: the day it closes
    at          timestamptz not null,
    note        text not null,
    primary key (book, number)
);
create unique index ledger_checkpoint_of_day on ledger_checkpoint (book, day) where day is not null;

-- One root over the nightly checkpoints of every book.
create table ledger_day_root (
    day    date not null primary key,
    books  int not null check (books > 0),
    root   bytea not null check (length(root) = 32),
    at     timestamptz not null,
    note   text not null
);

revoke update, delete, truncate on ledger_tree_node, ledger_day_root from current_user;
revoke update, truncate on ledger_checkpoint from current_user;
