-- What the operator console asks every few seconds, over all merchants: the day's payments by the
-- time they were made (business time, which the ids do not tell), a payment by the channel's own
-- number, the cases that people closed.
create index payment_by_time on payment (created_at);
create index attempt_by_channel_ref on attempt (channel_ref) where channel_ref is not null;
create index payment_case_by_time on payment_case (opened_at, id);
