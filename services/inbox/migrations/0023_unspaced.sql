-- Some scripts set no spaces between words. What is written in them is found by every two characters that stand side by
-- side, wherever in a run they do, and so is now what was kept before, each run as one word (services/inbox/domain.py does
-- the same with what comes from now on: words_of).

-- The owner is held to the policies as well, and none is for it: for what came before.
ALTER TABLE broadcasts NO FORCE ROW LEVEL SECURITY;
UPDATE broadcasts
SET words = array_to_tsvector(array(
    SELECT DISTINCT CASE WHEN run.is_unspaced THEN substr(run.whole, part.place, 2) ELSE run.whole END
    FROM
        unnest(tsvector_to_array(broadcasts.words)) AS word (folded),
        regexp_matches(word.folded, '[' || unspaced.scripts || ']+|[^' || unspaced.scripts || ']+', 'g') AS found (runs),
        LATERAL (
            SELECT found.runs[1] AS whole, found.runs[1] ~ ('^[' || unspaced.scripts || ']') AS is_unspaced
        ) AS run,
        generate_series(1, CASE WHEN run.is_unspaced THEN length(run.whole) ELSE 1 END) AS part (place)
))
FROM (VALUES (
    '\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff'
    '\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff'
)) AS unspaced (scripts)
WHERE broadcasts.words::text ~ ('[' || unspaced.scripts || ']');
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;
