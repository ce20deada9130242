-- One plan for good for what is asked hundreds of times a second. Postgres thought it worth making a new one for each call,
-- from the values of that call, which takes longer than the query itself does; the indexes are walked in order either way.

ALTER FUNCTION count_my_items(bigint, integer, integer, timestamptz, bigint, bigint)
SET plan_cache_mode = force_generic_plan;

ALTER FUNCTION list_items(
    integer, boolean, smallint[], text, text, tsquery, uuid, boolean, bigint, integer,
    bigint, integer, integer, timestamptz, bigint, bigint
) SET plan_cache_mode = force_generic_plan;

ALTER FUNCTION get_item(integer, uuid) SET plan_cache_mode = force_generic_plan;

ALTER FUNCTION record_receipts(integer[], integer[], uuid[], text[], text[])
SET plan_cache_mode = force_generic_plan;

ALTER FUNCTION mark_all_read(integer) SET plan_cache_mode = force_generic_plan;
