-- What moves a proposal's money marks the proposal in the same commit. Whoever was refused the same
-- movement a moment before may fail the proposal only while it bears no mark.
alter table wallet_proposal
    add column carried_at timestamptz,
    add check (state <> 'failed' or order_id is not null or carried_at is null);
