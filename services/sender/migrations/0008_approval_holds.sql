-- The rules about decisions hold for every row, also for those that were there before: looked at apart from the change that
-- brought them, so that nobody has to wait for it.

ALTER TABLE broadcasts VALIDATE CONSTRAINT decider_is_another;
ALTER TABLE broadcasts VALIDATE CONSTRAINT decider_has_a_name;
ALTER TABLE broadcasts VALIDATE CONSTRAINT decision_is_whole;
ALTER TABLE broadcasts VALIDATE CONSTRAINT decision_reason_has_a_decision;
ALTER TABLE broadcasts VALIDATE CONSTRAINT decision_reason_has_its_length;
ALTER TABLE broadcasts VALIDATE CONSTRAINT decision_fits_state;
