-- Records what the invoicing service made of a document, once, also on the calculations of its
-- recalculation. A void adds no document to them.
WITH delivered AS (
    UPDATE recalculation_documents d
    SET document_id = $4, delivered_at = $5, failure = NULL
    WHERE d.tenant_id = $1 AND d.livemode = $2 AND d.id = $3 AND d.delivered_at IS NULL
    RETURNING d.recalculation_id, d.kind
), noted AS (
    UPDATE calculations c
    SET source_invoice_id = CASE WHEN delivered.kind = 'invoice' THEN $4 ELSE c.source_invoice_id END,
        source_credit_note_id = CASE
            WHEN delivered.kind = 'credit_note' THEN $4 ELSE c.source_credit_note_id
        END
    FROM delivered
    WHERE c.tenant_id = $1 AND c.livemode = $2
      AND c.calculation_run_id = delivered.recalculation_id
)
SELECT count(*) > 0 FROM delivered
