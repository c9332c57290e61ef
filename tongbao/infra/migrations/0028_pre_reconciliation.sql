-- Reconciliation at scale. Of a lean bill the rows that agreed are counted and not kept.
alter table bill_file add column is_lean boolean not null default false;
