-- What the operator console asks over all merchants: every few seconds the day's payments by the
-- time they were made (business time, which the ids do not tell); a payment by the number that
-- somebody reads out, the merchant's or the channel's own; the cases that people closed.
create index payment_by_time on payment (created_at);
create index payment_by_order_no on payment (merchant_order_no);
create index attempt_by_channel_ref on attempt (channel_ref) where channel_ref is not null;
create index payment_case_by_time on payment_case (opened_at, id);
