-- Adds to a run's counts. The update's row lock puts concurrent batches in order, so exactly the
-- one that brings the last outcome ends the run.
UPDATE billing_runs
SET result_count = result_count + $5,
    succeeded_count = succeeded_count + $6,
    failed_count = failed_count + $7,
    skipped_count = skipped_count + $8,
    status = CASE
        WHEN result_count + $5 > succeeded_count + $6 + failed_count + $7 + skipped_count + $8
            THEN 'running'
        WHEN failed_count + $7 > 0 THEN 'failed'
        ELSE 'completed'
    END,
    completed_at = CASE
        WHEN result_count + $5 = succeeded_count + $6 + failed_count + $7 + skipped_count + $8
            THEN coalesce(completed_at, $4::timestamptz)
    END
WHERE tenant_id = $1 AND livemode = $2 AND id = $3
RETURNING status
