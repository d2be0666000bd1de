-- The next subscriptions to audit, in the order of their ids: at most $4, and fewer where they have
-- more than $5 usage events or $6 billing periods together, but at least one.
WITH candidates AS MATERIALIZED (
    SELECT s.id,
           (
               SELECT coalesce(sum(m.event_count), 0)
               FROM billing_periods p
               JOIN subscription_usage_meters m
                 ON m.tenant_id = $1 AND m.livemode = $2 AND m.billing_period_id = p.id
               WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = s.id
           ) AS event_count,
           (
               SELECT count(*) FROM billing_periods p
               WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = s.id
           ) AS period_count
    FROM subscriptions s
    WHERE s.tenant_id = $1 AND s.livemode = $2 AND ($3::uuid IS NULL OR s.id > $3)
    ORDER BY s.id
    LIMIT $4 + 1
), weighed AS (
    SELECT id, row_number() OVER by_id AS number,
           sum(event_count) OVER by_id AS event_count, sum(period_count) OVER by_id AS period_count
    FROM candidates
    WINDOW by_id AS (ORDER BY id)
)
SELECT id, count(*) OVER () < (SELECT count(*) FROM candidates) AS more_follow
FROM weighed
WHERE number = 1 OR (number <= $4 AND event_count <= $5 AND period_count <= $6)
ORDER BY id
