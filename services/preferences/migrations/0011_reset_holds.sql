-- What 0010_reset.sql demands of new rows is true of those that were there before: looked at here, without keeping anybody from
-- writing meanwhile.
ALTER TABLE preferences VALIDATE CONSTRAINT preferences_are_whole_or_reset;
