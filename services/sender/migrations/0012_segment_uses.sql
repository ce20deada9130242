-- Who removes a segment is told how many broadcasts are still to go out to it. These are few, and most broadcasts name no
-- segment, so the index has hardly anything in it and costs the others nothing.

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX broadcasts_waiting_for_segments ON broadcasts (scheduled_for)
WHERE cardinality(segment_ids) > 0 AND state IN ('awaiting_approval', 'pending');
