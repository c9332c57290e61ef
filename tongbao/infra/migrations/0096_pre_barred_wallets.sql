-- A wallet that a barred person made their own pays nothing until the day (银发〔2019〕85号); the
-- moment is on the row that every spending changes, so that none slips by.
alter table if exists wallet add column barred_until timestamptz;
