-- Each service is told of erasures on its own, so that what waits for one that is away is not even looked at for the others.

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX erasures_by_service ON erasures (service, due_at);
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX erasures_by_time;
