"""Between which kinds of account entries move value, as the design has it."""

from typing import Final

ENTRY_RULES: Final = {
    ("usage_cost", -1, "receivable", "usage_revenue"),
    ("usage_cost", 0, "receivable", "usage_revenue"),
    ("usage_cost_corrected", -1, "receivable", "usage_revenue"),
    ("usage_cost_corrected", 0, "receivable", "usage_revenue"),
    ("usage_cost_corrected", 1, "usage_revenue", "receivable"),
    ("billing_adjustment", -1, "receivable", "usage_revenue"),
    ("billing_adjustment", 1, "usage_revenue", "receivable"),
    ("receivable_written_off", 1, "bad_debt", "receivable"),
    ("receivable_written_off", -1, "receivable", "bad_debt"),
    ("charge_billed", -1, "receivable", "subscription_revenue"),
    ("charge_billed", 1, "subscription_revenue", "receivable"),
    ("payment_recognized", 1, "cash", "credit"),
    ("credit_grant_recognized", 1, "promotional_expense", "credit"),
    ("surplus_credited", 1, "receivable", "credit"),
    ("credit_applied_to_usage", 1, "credit", "receivable"),
    ("credit_applied_to_charge", 1, "credit", "receivable"),
    ("credit_application_reversed", -1, "receivable", "credit"),
    ("credit_balance_adjusted", 1, "promotional_expense", "credit"),
    ("credit_balance_adjusted", -1, "credit", "refund_clearing"),
    ("credit_balance_adjusted", -1, "credit", "breakage"),
    ("credit_balance_adjusted", -1, "credit", "promotional_expense"),
    ("credit_deficit_charged", -1, "receivable", "refund_clearing"),
    ("credit_deficit_charged", -1, "receivable", "promotional_expense"),
    ("credit_grant_expired", -1, "credit", "breakage"),
    ("credit_grant_expired", -1, "credit", "promotional_expense"),
    ("payment_refunded", -1, "refund_clearing", "cash"),
    ("refund_absorbed", 1, "refunds_and_allowances", "refund_clearing"),
}
"""Entry type, sign, debit, credit."""
