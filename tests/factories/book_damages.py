"""One damage for everything that the audit compares, and what it must say of each."""

from typing import Final

from tests.factories.audited_books import Damage
from tests.factories.book_damages_of_entries import CLOSED, ENTRIES, OPEN, Case

CREDITS: Final = {
    "what a credit was issued with": Case(
        Damage("usage_credits", "credit_type = 'granted_promo'", "issued_amount = 121"),
        "credit_origins",
        "another amount than it was issued with: 120 instead of 121",
        "credit_history",
    ),
    "what remains of a credit": Case(
        Damage("usage_credit_balances", "remaining_amount > 0", "remaining_amount = 501"),
        "credit_balances",
        "what is left of the credit is not what its account holds: 501 instead of 500",
        "balances",
    ),
    "what is held of a credit": Case(
        Damage("usage_credit_balances", "held_amount > 0", "held_amount = held_amount + 1"),
        "credit_holds",
        "what is held of the credit is not what pending entries hold: 41 instead of 40",
        "credit_balances balances",
    ),
    "the status of a credit": Case(
        Damage("usage_credit_balances", "status = 'partially_used'", "status = 'available'"),
        "credit_status",
        "the credit is available, and should be partially_used",
    ),
    "the expiry of a balance": Case(
        Damage("usage_credit_balances", "status = 'partially_used'", "expires_at = now()"),
        "credit_status",
        "the balance of the credit has another expiry than the credit",
    ),
    "a voided credit that holds something": Case(
        Damage("usage_credit_balances", "status = 'voided'", "remaining_amount = 5"),
        "credit_status",
        "the credit is voided, and something is left of it: 5 instead of 0",
        "credit_balances balances",
    ),
    "a balance that is gone": Case(
        Damage("usage_credit_balances", "remaining_amount > 0", "DELETE"),
        "credit_balances",
        "a credit without its balance: 0 instead of 500",
        "balances",
    ),
    "an application": Case(
        Damage(
            "usage_credit_applications",
            "kind = 'run' AND component_id IS NOT NULL",
            "amount_applied = amount_applied + 1",
        ),
        "application_entries",
        "the use of a credit is in the ledger with another amount: 70 instead of 71",
        "credit_history",
    ),
    "an application that is gone": Case(
        Damage("usage_credit_applications", "kind = 'settlement'", "DELETE"),
        "application_entries",
        "an entry about the use of a credit that was never recorded",
        "credit_history",
    ),
    "an adjustment": Case(
        Damage(
            "usage_credit_balance_adjustments", "direction = 'increase'", "amount_adjusted = 11"
        ),
        "adjustment_entries",
        "another change of the credit than the adjustment says: 10 instead of 11",
        "credit_history",
    ),
    "a payment that succeeded by hand": Case(
        Damage(
            "payments",
            "status = 'pending'",
            "status = 'succeeded', processor_transaction_id = 'by-hand', processed_at = now(),"
            " usage_credit_id = gen_random_uuid()",
        ),
        "payment_entries",
        "a payment that succeeded and is not in the ledger: 0 instead of 60",
    ),
    "a payment that never succeeded": Case(
        Damage(
            "payments",
            "status = 'succeeded' AND purpose = 'top_up'",
            "status = 'failed', processor_transaction_id = NULL, processed_at = NULL,"
            " usage_credit_id = NULL, failure_reason = 'by hand'",
        ),
        "payment_entries",
        "a payment that is in the ledger and did not succeed: 400 instead of 0",
        "credit_history",
    ),
    "a payment below its refunds": Case(
        Damage("payments", "status = 'succeeded' AND purpose = 'period_settlement'", "amount = 1"),
        "payment_entries",
        "the refunds of a payment are more than the payment: 261 instead of 1",
    ),
    "a part of a refund": Case(
        Damage("refunds", "reversed_amount > 0 AND status = 'succeeded'", "reversed_amount = 199"),
        "refund_entries",
        "what is taken back of what the credit settled: 200 instead of 199",
        "credit_history",
    ),
    "a refund that failed by hand": Case(
        Damage("refunds", "status = 'pending'", "status = 'failed', failure_reason = 'by hand'"),
        "refund_entries",
        "the refund and its entries differ in what is paid back: 40 instead of 0",
        "pending_entries",
    ),
}

USAGE_AND_BILLS: Final = {
    "the quantity of an aggregate": Case(
        Damage("subscription_usage_meters", OPEN, "quantity = quantity + 1"),
        "usage_aggregates",
        "the quantity is not the sum of the events: 18 instead of 17",
        "usage_rating",
    ),
    "the rated amount of an aggregate": Case(
        Damage("subscription_usage_meters", OPEN, "rated_amount = rated_amount + 1"),
        "usage_rating",
        "the rated amount is not what the quantity costs: 35 instead of 34",
        "usage_aggregates balances",
    ),
    "the event count of an aggregate": Case(
        Damage("subscription_usage_meters", CLOSED, "event_count = event_count + 1"),
        "usage_aggregates",
        "the count of events is not the count of events in the ledger: 3 instead of 2",
    ),
    "the quantity of an event": Case(
        Damage("usage_events", "true", "quantity = quantity + 1"),
        "usage_aggregates",
        "the quantity is not the sum of the events: 153 instead of 154",
        by_id=False,
    ),
    "an event that is gone": Case(
        Damage("usage_events", "true", "DELETE"),
        "usage_entries",
        "an entry whose usage event does not exist: -300",
        "usage_aggregates",
    ),
    "the raw usage of a calculation": Case(
        Damage(
            "calculations",
            "true",
            "total_raw_usage_amount = total_raw_usage_amount + 1,"
            " net_billed_amount = net_billed_amount + 1",
        ),
        "calculation_amounts",
        "the raw usage of the calculation is not what the ledger holds: 307 instead of 306",
        "period_charges",
    ),
    "the credits of a calculation": Case(
        Damage(
            "calculations",
            "credits_applied_amount > 0",
            "credits_applied_amount = credits_applied_amount + 1,"
            " net_billed_amount = net_billed_amount - 1",
        ),
        "calculation_amounts",
        "the credits of the calculation are not what the ledger holds: 127 instead of 126",
    ),
    "a calculation that is gone": Case(
        Damage("calculations", "true", "DELETE"),
        "calculation_amounts",
        "the period is billed, and the meter has no active calculation: 0 instead of 306",
        "period_charges",
        by_id=False,
    ),
    "a calculation that nothing supersedes": Case(
        Damage(
            "calculations",
            "true",
            "status = 'superseded', superseded_by_calculation_id = gen_random_uuid()",
        ),
        "calculation_chains",
        "the calculation was superseded, and none that is active took its place",
        "calculation_amounts period_charges",
    ),
    "a charge for usage": Case(
        Damage("charges", "charge_type = 'usage'", "amount = amount + 1"),
        "period_charges",
        "a charge for usage is not what its calculation says: 307 instead of 306",
    ),
    "a recurring charge": Case(
        Damage("charges", "charge_type = 'recurring'", "amount = amount + 1"),
        "charge_entries",
        "a charge that is posted with another amount: -1,000 instead of -1,001",
        "period_charges",
    ),
    "the charge about credits": Case(
        Damage("charges", "charge_type = 'credit'", "amount = amount + 1"),
        "period_charges",
        "the charge about credits is not what credits paid: -525 instead of -526",
    ),
    "the currency of a charge": Case(
        Damage("charges", "charge_type = 'usage'", "currency = 'EUR'"),
        "period_charges",
        "a charge in another currency than the subscription's",
    ),
    "the total of a period": Case(
        Damage("billing_periods", "status = 'invoiced'", "total_amount = total_amount + 1"),
        "period_charges",
        "the total of the period is not the sum of its charges: 934 instead of 933",
        "invoice_requests",
    ),
    "what a billed period is owed": Case(
        Damage(
            "billing_periods", "status = 'invoiced'", "receivable_amount = receivable_amount + 1"
        ),
        "period_receivables",
        "what the period is owed is not what its entries leave: 634 instead of 633",
    ),
    "what an open period is owed": Case(
        Damage("billing_periods", "status = 'open'", "receivable_amount = 1"),
        "period_receivables",
        "what the period is owed is not what its entries leave: 1 instead of 0",
        "balances",
    ),
    "a closing snapshot": Case(
        Damage("billing_periods", "status = 'invoiced'", "closing_receivable_amount = 634"),
        "closing_receivables",
        "the closing snapshot is not what the entries leave of the closed periods: 634",
        "balances",
    ),
    "an invoice that nobody made": Case(
        Damage("billing_periods", "status = 'invoiced'", "invoice_id = 'inv-of-nobody'"),
        "invoices",
        "invoice inv-of-nobody is not known to the invoicing service: 933 expected",
    ),
    "an invoice that is not named": Case(
        Damage("billing_periods", "status = 'invoiced'", "invoice_id = NULL"),
        "invoice_requests",
        "the period is invoiced, and names no invoice",
    ),
    "a request that is gone": Case(
        Damage("invoice_requests", "true", "DELETE"),
        "invoice_requests",
        "the period has charges, and there is no request for its invoice",
    ),
    "the total of a request": Case(
        Damage("invoice_requests", "true", "request = jsonb_set(request, '{total_minor}', '1')"),
        "invoice_requests",
        "what is asked to be invoiced is not the total of the period: 1 instead of 933",
        "invoices",
    ),
    "a line of a request": Case(
        Damage(
            "invoice_requests",
            "true",
            "request = jsonb_set(request, '{line_items,0,amount_minor}', '1')",
        ),
        "invoice_requests",
        "the lines of the invoice that is asked for are not its total",
    ),
    "a result of a run that has ended": Case(
        Damage("billing_run_results", "true", "status = 'pending', completed_at = NULL"),
        "pending_results",
        "a pending result of a billing run that has ended",
    ),
}

CASES: Final = {**ENTRIES, **CREDITS, **USAGE_AND_BILLS}
