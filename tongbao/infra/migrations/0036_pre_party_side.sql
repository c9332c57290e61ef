-- The party side, finished: checkouts at terminals, card numbers' beginnings, terms of disputes with
-- how well their source is known, files of chargebacks, and pictures of complaints.

-- Where a checkout is shown. Each of its tries counts against that terminal's limits.
alter table checkout add column terminal_id uuid;
