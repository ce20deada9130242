-- Who searches leaves accents out, so the words of what was kept before are found without them, as those of what comes from
-- now on are (services/inbox/domain.py folds both).

-- The owner is held to the policies as well, and none is for it: for what came before.
ALTER TABLE broadcasts NO FORCE ROW LEVEL SECURITY;
UPDATE broadcasts
SET words = array_to_tsvector(array(
    SELECT DISTINCT normalize(regexp_replace(normalize(word.folded, NFKD), '[\u0300-\u036f]', '', 'g'), NFKC)
    FROM unnest(tsvector_to_array(broadcasts.words)) AS word (folded)
))
WHERE broadcasts.words::text ~ '[^\u0001-\u007f]';
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;
