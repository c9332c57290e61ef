-- What the operator console asks over all merchants: every few seconds the day's payments by the
-- time they were made (business time, which the ids do not tell); a payment by the number that
-- somebody reads out, the merchant's or the channel's own; the cases that people closed.
-- (The numbers have unique keys of their own, which begin with them.) Payments lie on the disk in
-- the order they were made, so their places say when.
create index payment_by_time on payment using brin (created_at) with (pages_per_range = 32);
create index payment_case_by_time on payment_case (opened_at, id);
