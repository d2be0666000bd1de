"""One damage for every kind of ledger entry, and what the audit must say of it."""

from typing import Final, NamedTuple

from tests.factories.audited_books import Damage

OPEN: Final = (
    "t.billing_period_id IN"
    " (SELECT p.id FROM billing_periods p WHERE p.tenant_id = t.tenant_id AND p.status = 'open')"
)
CLOSED: Final = OPEN.replace("= 'open'", "<> 'open'")
_OPEN_PERIOD: Final = (
    "(SELECT p.id FROM billing_periods p WHERE p.tenant_id = t.tenant_id AND p.status = 'open')"
)
_OTHER_CREDIT: Final = (
    "(SELECT k.id FROM usage_credits k"
    " WHERE k.tenant_id = t.tenant_id AND k.id <> t.debit_account_id ORDER BY k.id DESC LIMIT 1)"
)


class Case(NamedTuple):
    """A damage, the check that names it and how, and the checks that its consequences show in.

    ``by_id`` is whether the finding names the damaged row itself.
    """

    damage: Damage
    check: str
    message: str
    also: str = ""
    by_id: bool = True


def _entry(row: str, change: str) -> Damage:
    return Damage("ledger_entries", row, change)


_SUMS: Final = "period_receivables closing_receivables balances"

ENTRIES: Final = {
    "the account of a grant does not exist": Case(
        _entry("entry_type = 'credit_grant_recognized'", "debit_account_id = gen_random_uuid()"),
        "entry_rules",
        "one of its accounts does not exist: 120",
        "trial_balance",
    ),
    "the sides of an application": Case(
        _entry(
            "entry_type = 'credit_applied_to_usage'",
            "debit_account_id = t.credit_account_id, credit_account_id = t.debit_account_id",
        ),
        "entry_rules",
        "credit_applied_to_usage of this sign cannot debit receivable and credit credit: 70",
        f"credit_balances credit_history {_SUMS}",
    ),
    "the account of an application": Case(
        _entry("entry_type = 'credit_applied_to_charge'", f"debit_account_id = {_OTHER_CREDIT}"),
        "entry_rules",
        "the credit that it moves is not the one that it names: 330",
        "credit_balances credit_history balances",
    ),
    "the currency of a charge's entry": Case(
        _entry("entry_type = 'charge_billed'", "currency = 'EUR'"),
        "entry_rules",
        "its currency is not the subscription's",
        "charge_entries",
    ),
    "the period of a refund's deficit": Case(
        _entry("entry_type = 'credit_deficit_charged'", f"billing_period_id = {_OPEN_PERIOD}"),
        "period_receivables",
        "what the period is owed is not what its entries leave: 633 instead of 603",
        "closing_receivables balances",
        by_id=False,
    ),
    "the cost of usage in the open period": Case(
        _entry(f"entry_type = 'usage_cost' AND {OPEN}", "amount = amount - 1"),
        "usage_aggregates",
        "the rated amount is not what the ledger holds for the events: 34 instead of 35",
        "balances",
        by_id=False,
    ),
    "the cost of usage in a billed period": Case(
        _entry(f"entry_type = 'usage_cost' AND {CLOSED}", "amount = amount - 1"),
        "calculation_amounts",
        "the raw usage of the calculation is not what the ledger holds: 306 instead of 307",
        f"usage_aggregates {_SUMS}",
        by_id=False,
    ),
    "the period of the cost of usage": Case(
        _entry(f"entry_type = 'usage_cost' AND {CLOSED}", f"billing_period_id = {_OPEN_PERIOD}"),
        "usage_entries",
        "an entry for another period than its usage event was counted in: -300",
        f"calculation_amounts {_SUMS}",
    ),
    "the meter of the cost of usage": Case(
        _entry(f"entry_type = 'usage_cost' AND {OPEN}", "usage_meter_id = gen_random_uuid()"),
        "usage_entries",
        "an entry for another meter than its usage event's",
    ),
    "the event of the cost of usage": Case(
        _entry(
            f"entry_type = 'usage_cost' AND {OPEN}", "source_usage_event_id = gen_random_uuid()"
        ),
        "usage_entries",
        "an entry whose usage event does not exist",
        "usage_aggregates",
    ),
    "the amount of a charge's entry": Case(
        _entry("entry_type = 'charge_billed'", "amount = amount - 1"),
        "charge_entries",
        "a charge that is posted with another amount: -1,001 instead of -1,000",
        _SUMS,
    ),
    "the amount of a grant": Case(
        _entry("entry_type = 'credit_grant_recognized'", "amount = amount + 1"),
        "credit_origins",
        "begins with another amount than it was issued with: 121 instead of 120",
        "credit_balances credit_history balances",
    ),
    "the amount of a payment's entry": Case(
        _entry("entry_type = 'payment_recognized'", "amount = amount + 1"),
        "payment_entries",
        "a payment that is in the ledger with another amount: 401 instead of 400",
        "credit_origins credit_balances credit_history balances",
    ),
    "the amount of an application's entry": Case(
        _entry("entry_type = 'credit_applied_to_usage'", "amount = amount + 1"),
        "application_entries",
        "the use of a credit is in the ledger with another amount: 71 instead of 70",
        f"credit_balances credit_history calculation_amounts period_charges {_SUMS}",
    ),
    "the amount of a reversal": Case(
        _entry(
            "entry_type = 'credit_application_reversed' AND status = 'posted'",
            "amount = amount - 1",
        ),
        "refund_entries",
        "what is taken back of what the credit settled: 201 instead of 200",
        f"credit_balances {_SUMS}",
        by_id=False,
    ),
    "a reversal above what was applied": Case(
        _entry(
            "entry_type = 'credit_application_reversed' AND status = 'posted'",
            "amount = amount - 10000",
        ),
        "application_entries",
        "more is taken back of the use of a credit than it paid",
        f"refund_entries credit_balances {_SUMS}",
        by_id=False,
    ),
    "the amount of an adjustment's entry": Case(
        _entry(
            "entry_type = 'credit_balance_adjusted' AND source_refund_id IS NULL AND amount < 0",
            "amount = amount - 1",
        ),
        "adjustment_entries",
        "another change of the credit than the adjustment says: -31 instead of -30",
        "credit_balances credit_history balances",
    ),
    "the amount of a deficit's entry": Case(
        _entry("entry_type = 'credit_deficit_charged'", "amount = amount - 1"),
        "adjustment_entries",
        "the ledger charges another deficit than the adjustment says: -31 instead of -30",
        _SUMS,
    ),
    "the amount of an expiry": Case(
        _entry("entry_type = 'credit_grant_expired'", "amount = amount - 1"),
        "credit_balances",
        "what is left of the credit is not what its account holds: 0 instead of -1",
        "balances",
        by_id=False,
    ),
    "the amount of a refund's entry": Case(
        _entry("entry_type = 'payment_refunded' AND status = 'posted'", "amount = amount - 1"),
        "refund_clearing",
        "refund clearing is not zero after the transaction: 1 instead of 0",
        "refund_entries",
        by_id=False,
    ),
    "the amount of what a refund absorbs": Case(
        _entry("entry_type = 'refund_absorbed'", "amount = amount + 1"),
        "refund_entries",
        "the refund and its entries differ in what is absorbed: 51 instead of 50",
        "refund_clearing",
        by_id=False,
    ),
    "a hold that is discarded too soon": Case(
        _entry(
            "entry_type = 'credit_balance_adjusted' AND status = 'pending'"
            " AND discarded_at IS NULL",
            "discarded_at = now()",
        ),
        "credit_holds",
        "what is held of the credit is not what pending entries hold: 40 instead of 0",
        "refund_entries balances",
        by_id=False,
    ),
    "a hold that outlives its refund": Case(
        _entry(
            "entry_type = 'credit_balance_adjusted' AND discarded_at IS NOT NULL",
            "discarded_at = NULL",
        ),
        "pending_entries",
        "a pending entry of a refund that has failed: -20",
        "refund_entries credit_holds balances",
    ),
    "an expiry that was never posted": Case(
        _entry("entry_type = 'credit_grant_expired'", "status = 'pending', posted_at = NULL"),
        "pending_entries",
        "a pending entry that nothing will post or discard: -19",
        "credit_balances credit_holds balances",
    ),
}
