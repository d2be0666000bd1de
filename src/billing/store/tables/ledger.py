"""Accounts, transactions, entries."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.domain.ledger import (
    LedgerAccountKind,
    LedgerEntryStatus,
    LedgerEntryType,
    LedgerSourceType,
)
from billing.store.tables.columns import (
    SCOPE,
    amount_column,
    currency_column,
    id_column,
    metadata,
    one_of,
    primary_key,
    references,
    scope_columns,
    text_column,
    time_column,
)

ledger_accounts = sa.Table(
    "ledger_accounts",
    metadata,
    *scope_columns(),
    id_column("id"),
    text_column("kind"),
    currency_column(),
    id_column("subscription_id", nullable=True),
    time_column("created_at"),
    primary_key("id"),
    one_of("kind", LedgerAccountKind),
    sa.CheckConstraint(
        "(kind IN ('receivable', 'credit', 'refund_clearing')) = (subscription_id IS NOT NULL)",
        name="subscription_id",
    ),
    # Credits have an account each, with the credit's id.
    sa.Index(
        "uq_ledger_accounts_kind",
        *SCOPE,
        "kind",
        "currency",
        "subscription_id",
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("kind <> 'credit'"),
    ),
)


ledger_transactions = sa.Table(
    "ledger_transactions",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    text_column("initiating_source_type"),
    id_column("initiating_source_id"),
    text_column("description"),
    sa.Column("metadata", JSONB, nullable=True),
    time_column("created_at"),
    primary_key("id"),
    # What entries refer to: the transaction together with its subscription.
    sa.UniqueConstraint(*SCOPE, "subscription_id", "id"),
    references("subscriptions", ["subscription_id"], ["id"]),
    one_of("initiating_source_type", LedgerSourceType),
)


LEDGER_ENTRY_SOURCES = (
    "source_usage_event_id",
    "source_charge_id",
    "source_usage_credit_id",
    "source_credit_application_id",
    "source_credit_balance_adjustment_id",
    "source_billing_period_calculation_id",
    "source_payment_id",
    "source_refund_id",
    "source_write_off_id",
)


def _entry_rule(
    entry_type: LedgerEntryType, sign: str | None, *required: str, optional: tuple[str, ...] = ()
) -> str:
    """Sign, if it has one, and sources of an entry type: the required are there, no others."""
    others = [source for source in LEDGER_ENTRY_SOURCES if source not in required + optional]
    needed = " AND ".join(f"{column} IS NOT NULL" for column in required)
    return (
        f"WHEN entry_type = '{entry_type}' THEN {f'amount {sign} 0 AND ' if sign else ''}{needed}"
        f" AND num_nonnulls({', '.join(others)}) = 0"
    )


_CREDIT = "source_usage_credit_id"
_APPLICATION = "source_credit_application_id"
_ADJUSTMENT = "source_credit_balance_adjustment_id"
_PERIOD = "billing_period_id"

_ENTRY_RULES = " ".join(
    [
        "CASE",
        _entry_rule(
            LedgerEntryType.USAGE_COST, "<=", "source_usage_event_id", _PERIOD, "usage_meter_id"
        ),
        # Zero where the quantity changed and the charge did not: the correction has its entry.
        _entry_rule(
            LedgerEntryType.USAGE_COST_CORRECTED,
            None,
            "source_usage_event_id",
            _PERIOD,
            "usage_meter_id",
        ),
        _entry_rule(LedgerEntryType.CHARGE_BILLED, "<>", "source_charge_id", _PERIOD),
        _entry_rule(LedgerEntryType.PAYMENT_RECOGNIZED, ">", "source_payment_id", _CREDIT),
        _entry_rule(LedgerEntryType.CREDIT_GRANT_RECOGNIZED, ">", _CREDIT),
        _entry_rule(LedgerEntryType.SURPLUS_CREDITED, ">", _CREDIT, _PERIOD),
        _entry_rule(
            LedgerEntryType.CREDIT_APPLIED_TO_USAGE,
            ">",
            _CREDIT,
            _APPLICATION,
            _PERIOD,
            "usage_meter_id",
        ),
        _entry_rule(LedgerEntryType.CREDIT_APPLIED_TO_CHARGE, ">", _CREDIT, _APPLICATION, _PERIOD),
        _entry_rule(
            LedgerEntryType.CREDIT_APPLICATION_REVERSED, "<", _CREDIT, _APPLICATION, _PERIOD
        ),
        _entry_rule(
            LedgerEntryType.CREDIT_BALANCE_ADJUSTED,
            "<>",
            _CREDIT,
            _ADJUSTMENT,
            optional=("source_refund_id",),
        ),
        _entry_rule(
            LedgerEntryType.CREDIT_DEFICIT_CHARGED,
            "<",
            _CREDIT,
            _ADJUSTMENT,
            _PERIOD,
            optional=("source_refund_id",),
        ),
        _entry_rule(LedgerEntryType.CREDIT_GRANT_EXPIRED, "<", _CREDIT),
        _entry_rule(LedgerEntryType.PAYMENT_REFUNDED, "<", "source_payment_id", "source_refund_id"),
        _entry_rule(LedgerEntryType.REFUND_ABSORBED, ">", "source_refund_id"),
        _entry_rule(
            LedgerEntryType.BILLING_ADJUSTMENT,
            "<>",
            "source_billing_period_calculation_id",
            _PERIOD,
            "usage_meter_id",
        ),
        _entry_rule(LedgerEntryType.RECEIVABLE_WRITTEN_OFF, "<>", "source_write_off_id", _PERIOD),
        "ELSE false END",
    ]
)


def _one_entry(name: str, columns: tuple[str, ...], *entry_types: LedgerEntryType) -> sa.Index:
    """A natural key: at most one entry of these types, for ever."""
    listed = ", ".join(f"'{entry_type}'" for entry_type in entry_types)
    return sa.Index(
        f"uq_ledger_entries_{name}",
        *SCOPE,
        *columns,
        unique=True,
        postgresql_where=sa.text(f"entry_type IN ({listed})"),
    )


ledger_entries = sa.Table(
    "ledger_entries",
    metadata,
    *scope_columns(),
    id_column("subscription_id"),
    id_column("ledger_transaction_id"),
    id_column("id"),
    text_column("entry_type"),
    text_column("status"),
    amount_column("amount"),
    currency_column(),
    id_column("debit_account_id"),
    id_column("credit_account_id"),
    *[id_column(source, nullable=True) for source in LEDGER_ENTRY_SOURCES],
    id_column("applied_to_ledger_entry_id", nullable=True),
    id_column("billing_period_id", nullable=True),
    id_column("usage_meter_id", nullable=True),
    id_column("calculation_run_id", nullable=True),
    text_column("description"),
    sa.Column("metadata", JSONB, nullable=True),
    time_column("entry_timestamp"),
    time_column("posted_at", nullable=True),
    time_column("discarded_at", nullable=True),
    # In this order one index serves a subscription's entries, in the order they were made, and
    # the entries of a transaction.
    primary_key("subscription_id", "ledger_transaction_id", "id"),
    references(
        "ledger_transactions",
        ["subscription_id", "ledger_transaction_id"],
        ["subscription_id", "id"],
    ),
    references("usage_events", ["source_usage_event_id"], ["id"]),
    references("charges", ["source_charge_id"], ["id"]),
    one_of("status", LedgerEntryStatus),
    sa.CheckConstraint(
        "(status = 'posted') = (posted_at IS NOT NULL)"
        " AND (discarded_at IS NULL OR status = 'pending')",
        name="lifecycle",
    ),
    sa.CheckConstraint("debit_account_id <> credit_account_id", name="two_accounts"),
    sa.CheckConstraint(_ENTRY_RULES, name="entry_type"),
    sa.Index(
        "uq_ledger_entries_usage_cost",
        *SCOPE,
        "source_usage_event_id",
        unique=True,
        postgresql_where=sa.text("entry_type = 'usage_cost'"),
    ),
    sa.Index(
        "uq_ledger_entries_charge_billed",
        *SCOPE,
        "source_charge_id",
        unique=True,
        postgresql_where=sa.text("entry_type = 'charge_billed'"),
    ),
    # A credit has one origin.
    _one_entry(
        "credit_origin",
        (_CREDIT,),
        LedgerEntryType.CREDIT_GRANT_RECOGNIZED,
        LedgerEntryType.PAYMENT_RECOGNIZED,
        LedgerEntryType.SURPLUS_CREDITED,
    ),
    _one_entry("payment_recognized", ("source_payment_id",), LedgerEntryType.PAYMENT_RECOGNIZED),
    _one_entry(
        "credit_applied",
        (_APPLICATION,),
        LedgerEntryType.CREDIT_APPLIED_TO_USAGE,
        LedgerEntryType.CREDIT_APPLIED_TO_CHARGE,
    ),
    _one_entry(
        "credit_grant_expired",
        (_CREDIT, "ledger_transaction_id"),
        LedgerEntryType.CREDIT_GRANT_EXPIRED,
    ),
    _one_entry("payment_refunded", ("source_refund_id",), LedgerEntryType.PAYMENT_REFUNDED),
    _one_entry("refund_absorbed", ("source_refund_id",), LedgerEntryType.REFUND_ABSORBED),
    _one_entry(
        "billing_adjustment",
        ("source_billing_period_calculation_id",),
        LedgerEntryType.BILLING_ADJUSTMENT,
    ),
    _one_entry(
        "usage_cost_corrected",
        ("source_usage_event_id", "ledger_transaction_id"),
        LedgerEntryType.USAGE_COST_CORRECTED,
    ),
    # A write-off is posted once; an operation recovers of it once.
    sa.Index(
        "uq_ledger_entries_receivable_written_off",
        *SCOPE,
        "source_write_off_id",
        unique=True,
        postgresql_where=sa.text("entry_type = 'receivable_written_off' AND amount > 0"),
    ),
    sa.Index(
        "uq_ledger_entries_write_off_recovered",
        *SCOPE,
        "source_write_off_id",
        "ledger_transaction_id",
        unique=True,
        postgresql_where=sa.text("entry_type = 'receivable_written_off' AND amount < 0"),
    ),
    # For statements of a span of time: small, and of next to no cost to those who write.
    sa.Index(
        "ix_ledger_entries_posted_at",
        "posted_at",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32},
    ),
    sa.Index(
        "ix_ledger_entries_reversals",
        *SCOPE,
        _APPLICATION,
        postgresql_where=sa.text("entry_type = 'credit_application_reversed'"),
    ),
)
