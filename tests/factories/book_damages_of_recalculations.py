"""One damage for everything about recalculations, and what the audit must say of it."""

from typing import Final

from tests.factories.audited_books import Damage
from tests.factories.book_damages_of_entries import Case

_ESTIMATED: Final = (
    "status = 'pending' AND discarded_at IS NULL AND entry_type = 'credit_applied_to_usage'"
)

RECALCULATED: Final = {
    "what a correction costs": Case(
        Damage("usage_event_corrections", "true", "cost_change_amount = cost_change_amount + 1"),
        "usage_corrections",
        "a correction of usage that is in the ledger with another amount: -20 instead of -21",
    ),
    "the quantity of a correction": Case(
        Damage(
            "usage_event_corrections", "quantity_after > 0", "quantity_after = quantity_after + 1"
        ),
        "usage_aggregates",
        "the quantity is not the sum of the events: 40 instead of 41",
        by_id=False,
    ),
    "a correction that is gone": Case(
        Damage("usage_event_corrections", "true", "DELETE"),
        "usage_corrections",
        "an entry about a correction of usage that was never recorded: -20",
        "usage_aggregates",
        by_id=False,
    ),
    "the entry of a posted correction": Case(
        Damage(
            "ledger_entries",
            "entry_type = 'usage_cost_corrected' AND status = 'posted'",
            "amount = amount - 1",
        ),
        "usage_corrections",
        "a correction of usage that is in the ledger with another amount: -21 instead of -20",
        "usage_aggregates calculation_amounts period_receivables closing_receivables balances",
    ),
    "the entry of a billing adjustment": Case(
        Damage("ledger_entries", "entry_type = 'billing_adjustment'", "amount = amount - 1"),
        "recalculations",
        "differ in what usage costs: 41 instead of 40",
        "usage_aggregates calculation_amounts period_receivables closing_receivables balances",
        by_id=False,
    ),
    "the usage of a recalculation": Case(
        Damage(
            "recalculations",
            "true",
            "raw_change_amount = raw_change_amount + 1, net_change_amount = net_change_amount + 1",
        ),
        "recalculations",
        "differ in what usage costs: 40 instead of 41",
    ),
    "the credits of a recalculation": Case(
        Damage(
            "recalculations",
            "true",
            "credits_change_amount = credits_change_amount + 1,"
            " net_change_amount = net_change_amount - 1",
        ),
        "recalculations",
        "differ in what credits pay: 0 instead of 1",
    ),
    "what a recalculation recovered": Case(
        Damage("recalculations", "recovered_amount > 0", "recovered_amount = recovered_amount + 1"),
        "recalculations",
        "differ in what is recovered of write-offs: 15 instead of 16",
    ),
    "what a recalculation released": Case(
        Damage("recalculations", "released_amount > 0", "released_amount = released_amount + 1"),
        "recalculations",
        "differ in what is released of payments: 10 instead of 11",
    ),
    "what a recalculation carried": Case(
        Damage("recalculations", "true", "surplus_amount = surplus_amount + 1"),
        "recalculations",
        "differ in what becomes credit: 0 instead of 1",
    ),
    "the amount of a write-off": Case(
        Damage("write_offs", "true", "amount = amount + 1"),
        "write_offs",
        "the ledger holds another amount than the write-off: 25 instead of 26",
    ),
    "what was recovered of a write-off": Case(
        Damage("write_offs", "true", "recovered_amount = recovered_amount - 1"),
        "write_offs",
        "the ledger holds another recovery than the write-off says: 25 instead of 24",
    ),
    "the pending quantity of an aggregate": Case(
        Damage(
            "subscription_usage_meters",
            "pending_quantity > 0",
            "pending_quantity = pending_quantity + 1",
        ),
        "usage_aggregates",
        "the pending quantity is not the sum of held events and corrections: 19 instead of 18",
        "usage_rating",
    ),
    "the pending amount of an aggregate": Case(
        Damage(
            "subscription_usage_meters",
            "pending_quantity > 0",
            "pending_amount = pending_amount + 1",
        ),
        "usage_aggregates",
        "not what pending entries hold for events and corrections: 19 instead of 18",
        "usage_rating",
    ),
    "the pending event count of an aggregate": Case(
        Damage("subscription_usage_meters", "pending_quantity > 0", "pending_event_count = 5"),
        "usage_aggregates",
        "the count of held events is not the count of pending events in the ledger: 5 instead of 1",
    ),
    "a held event that was taken in alone": Case(
        Damage(
            "ledger_entries",
            "entry_type = 'usage_cost' AND status = 'pending' AND discarded_at IS NULL",
            "discarded_at = now()",
        ),
        "usage_aggregates",
        "the count of events is not the count of events in the ledger: 1 instead of 2",
        by_id=False,
    ),
    "the credits of an estimate": Case(
        Damage(
            "calculations",
            "status = 'pending_confirmation' AND credits_applied_amount > 0",
            "credits_applied_amount = credits_applied_amount + 1,"
            " net_billed_amount = net_billed_amount - 1",
        ),
        "estimates",
        "the estimate says another sum of credits than it and the ledger hold: 10 instead of 9",
    ),
    "an estimate that was overtaken and still holds": Case(
        Damage(
            "ledger_entries",
            _ESTIMATED,
            "calculation_run_id = gen_random_uuid()",
        ),
        "pending_entries",
        "a pending entry of an estimate that was overtaken: 9",
        "estimates",
    ),
    "a hold of an estimate that was given up": Case(
        Damage(
            "ledger_entries",
            _ESTIMATED,
            "discarded_at = now()",
        ),
        "estimates",
        "the estimate says another sum of credits than it and the ledger hold: 9 instead of 0",
        "credit_holds balances",
        by_id=False,
    ),
    "a chain of calculations that leads nowhere": Case(
        Damage(
            "calculations",
            "status = 'superseded'",
            "superseded_by_calculation_id = gen_random_uuid()",
        ),
        "calculation_chains",
        "the calculation was superseded, and none that is active took its place",
    ),
    "a chain of calculations that goes round": Case(
        Damage("calculations", "status = 'superseded'", "superseded_by_calculation_id = t.id"),
        "calculation_chains",
        "the calculation was superseded, and none that is active took its place",
    ),
    "the amount of an additional invoice": Case(
        Damage("recalculation_documents", "kind = 'invoice'", "amount = amount + 1"),
        "invoice_requests",
        "what is asked to be invoiced is not the total of the period: 41 instead of 40",
        "invoices",
        by_id=False,
    ),
    "the amount of a credit note": Case(
        Damage("recalculation_documents", "kind = 'credit_note'", "amount = amount - 1"),
        "invoices",
        "has other credit notes than it was asked for: 60 instead of 61",
        "invoice_requests",
        by_id=False,
    ),
    "a document that was never asked for": Case(
        Damage("recalculation_documents", "kind = 'void'", "DELETE"),
        "invoices",
        "was voided by the invoicing service: 40 expected",
        "invoice_requests",
        by_id=False,
    ),
}
