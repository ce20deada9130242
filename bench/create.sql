-- name: list_coordinators
-- Coordinators, each with one wedding on whose team they are.
SELECT recipients.user_id, min(team_members.wedding_id::text) AS wedding_id
FROM preferences.recipients
JOIN preferences.team_members ON team_members.recipient_number = recipients.number
WHERE recipients.role = 'coordinator'
GROUP BY recipients.user_id
ORDER BY recipients.user_id
LIMIT $1;

-- name: count_accepted
-- How many broadcasts were accepted, and from how many senders.
SELECT count(*) AS broadcasts, count(DISTINCT created_by) AS senders FROM sender.broadcasts;
