-- Stores what the invoicing service will be asked for.
INSERT INTO invoice_requests (
    tenant_id, livemode, created_at, billing_period_id, subscription_id, request
)
SELECT $1, $2, $3, u.billing_period_id, u.subscription_id, u.request::jsonb
FROM unnest($4::uuid[], $5::uuid[], $6::text[]) AS u (billing_period_id, subscription_id, request)
