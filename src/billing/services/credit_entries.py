"""The entries of credits, payments and refunds: who gives, who takes, and what the sources are.

One function an entry type. Amounts are positive minor units; the sign is the entry's.
"""

from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_consumption import NewApplication
from billing.domain.credit_reassignment import LiveApplication
from billing.domain.credits import CreditBalanceAdjustment, UsageCredit
from billing.domain.ledger import LedgerAccountKind, LedgerEntry, LedgerEntryType
from billing.domain.payments import Payment, Refund
from billing.domain.subscriptions import Subscription
from billing.store.credit_applications import ReversibleApplication
from billing.store.ledger import NewLedgerEntry
from billing.store.ledger_accounts import TenantAccounts


def granted(
    credit: UsageCredit, ledger_transaction_id: UUID, accounts: TenantAccounts
) -> NewLedgerEntry:
    """Given value becomes a credit."""
    return NewLedgerEntry(
        credit.subscription_id,
        ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.CREDIT_GRANT_RECOGNIZED,
        credit.issued_minor,
        credit.currency,
        debit_account_id=accounts[LedgerAccountKind.PROMOTIONAL_EXPENSE],
        credit_account_id=credit.id,
        description=f"Credit granted: {credit.source_reference_id or credit.credit_type}",
        source_usage_credit_id=credit.id,
    )


def paid(
    credit: UsageCredit, payment: Payment, ledger_transaction_id: UUID, accounts: TenantAccounts
) -> NewLedgerEntry:
    """Money becomes a credit."""
    return NewLedgerEntry(
        credit.subscription_id,
        ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.PAYMENT_RECOGNIZED,
        credit.issued_minor,
        credit.currency,
        debit_account_id=accounts[LedgerAccountKind.CASH],
        credit_account_id=credit.id,
        description=f"Payment {payment.processor_transaction_id} received",
        source_usage_credit_id=credit.id,
        source_payment_id=payment.id,
    )


def carried(
    credit: UsageCredit,
    subscription: Subscription,
    ledger_transaction_id: UUID,
    *,
    billing_period_id: UUID,
    calculation_run_id: UUID,
) -> NewLedgerEntry:
    """What a billed period has too much becomes a credit."""
    return NewLedgerEntry(
        credit.subscription_id,
        ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.SURPLUS_CREDITED,
        credit.issued_minor,
        credit.currency,
        debit_account_id=subscription.receivable_account_id,
        credit_account_id=credit.id,
        description="Carried to credit",
        source_usage_credit_id=credit.id,
        billing_period_id=billing_period_id,
        calculation_run_id=calculation_run_id,
    )


def applied(
    application: NewApplication,
    subscription: Subscription,
    ledger_transaction_id: UUID,
    *,
    billing_period_id: UUID,
    calculation_run_id: UUID,
) -> NewLedgerEntry:
    """A credit pays usage or a charge. The entry has the application's id."""
    credit, component = application.credit, application.component
    to_usage = LedgerEntryType.CREDIT_APPLIED_TO_USAGE
    return NewLedgerEntry(
        subscription.id,
        ledger_transaction_id,
        application.id,
        to_usage if component else LedgerEntryType.CREDIT_APPLIED_TO_CHARGE,
        application.amount_minor,
        credit.currency,
        debit_account_id=credit.id,
        credit_account_id=subscription.receivable_account_id,
        description=f"Credit applied to {component.name if component else 'charges'}",
        source_usage_credit_id=credit.id,
        source_credit_application_id=application.id,
        applied_to_ledger_entry_id=application.applied_to_ledger_entry_id,
        billing_period_id=billing_period_id,
        usage_meter_id=component.usage_meter_id if component else None,
        calculation_run_id=calculation_run_id,
    )


def unapplied(
    application: ReversibleApplication | LiveApplication,
    amount_minor: int,
    credit: UsageCredit,
    subscription: Subscription,
    ledger_transaction_id: UUID,
    description: str = "Settlement taken back",
) -> NewLedgerEntry:
    """What a credit paid is owed again."""
    return NewLedgerEntry(
        subscription.id,
        ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.CREDIT_APPLICATION_REVERSED,
        -amount_minor,
        credit.currency,
        debit_account_id=subscription.receivable_account_id,
        credit_account_id=credit.id,
        description=description,
        source_usage_credit_id=credit.id,
        source_credit_application_id=application.id,
        billing_period_id=application.billing_period_id,
        usage_meter_id=application.usage_meter_id,
    )


def expired(
    credit: UsageCredit, amount_minor: int, ledger_transaction_id: UUID, accounts: TenantAccounts
) -> NewLedgerEntry:
    """What is left of a credit at its expiry is gone."""
    return NewLedgerEntry(
        credit.subscription_id,
        ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.CREDIT_GRANT_EXPIRED,
        -amount_minor,
        credit.currency,
        debit_account_id=credit.id,
        credit_account_id=accounts[_unused_kind(credit)],
        description=f"Credit expired with {amount_minor} unused",
        source_usage_credit_id=credit.id,
    )


def increased(
    credit: UsageCredit, adjustment: CreditBalanceAdjustment, accounts: TenantAccounts
) -> NewLedgerEntry:
    """A credit gets more value. The entry has the adjustment's id."""
    return NewLedgerEntry(
        credit.subscription_id,
        adjustment.ledger_transaction_id,
        adjustment.id,
        LedgerEntryType.CREDIT_BALANCE_ADJUSTED,
        adjustment.adjusted_minor,
        credit.currency,
        debit_account_id=accounts[LedgerAccountKind.PROMOTIONAL_EXPENSE],
        credit_account_id=credit.id,
        description=adjustment.reason,
        source_usage_credit_id=credit.id,
        source_credit_balance_adjustment_id=adjustment.id,
    )


def decreased(
    credit: UsageCredit,
    adjustment: CreditBalanceAdjustment,
    amount_minor: int,
    accounts: TenantAccounts,
) -> NewLedgerEntry:
    """Value of a credit is taken back. The entry has the adjustment's id."""
    taker = accounts[_unused_kind(credit)]
    return _taken(credit, adjustment, amount_minor, taker, entry_id=adjustment.id)


def clawed_back(
    credit: UsageCredit,
    adjustment: CreditBalanceAdjustment,
    amount_minor: int,
    clearing_account_id: UUID,
) -> NewLedgerEntry:
    """Unused value of a credit goes to a refund. The entry has the adjustment's id."""
    return _taken(credit, adjustment, amount_minor, clearing_account_id, entry_id=adjustment.id)


def passed_on(
    refund: Refund, credit: UsageCredit, adjustment_id: UUID, clearing_account_id: UUID
) -> NewLedgerEntry:
    """What a credit had settled, and has back, goes to the refund that took it back."""
    return NewLedgerEntry(
        refund.subscription_id,
        refund.ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.CREDIT_BALANCE_ADJUSTED,
        -refund.reversed_minor,
        refund.currency,
        debit_account_id=credit.id,
        credit_account_id=clearing_account_id,
        description=f"Refund {refund.typeid}",
        source_usage_credit_id=credit.id,
        source_credit_balance_adjustment_id=adjustment_id,
        source_refund_id=refund.id,
    )


def _taken(
    credit: UsageCredit,
    adjustment: CreditBalanceAdjustment,
    amount_minor: int,
    taker_account_id: UUID,
    *,
    entry_id: UUID,
) -> NewLedgerEntry:
    return NewLedgerEntry(
        credit.subscription_id,
        adjustment.ledger_transaction_id,
        entry_id,
        LedgerEntryType.CREDIT_BALANCE_ADJUSTED,
        -amount_minor,
        credit.currency,
        debit_account_id=credit.id,
        credit_account_id=taker_account_id,
        description=adjustment.reason,
        source_usage_credit_id=credit.id,
        source_credit_balance_adjustment_id=adjustment.id,
        source_refund_id=adjustment.source_refund_id,
    )


def deficit(
    credit: UsageCredit,
    adjustment: CreditBalanceAdjustment,
    subscription: Subscription,
    taker_account_id: UUID,
    *,
    billing_period_id: UUID,
) -> NewLedgerEntry:
    """The subscription owes what a credit could not give back."""
    return NewLedgerEntry(
        subscription.id,
        adjustment.ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.CREDIT_DEFICIT_CHARGED,
        -adjustment.deficit_minor,
        credit.currency,
        debit_account_id=subscription.receivable_account_id,
        credit_account_id=taker_account_id,
        description=adjustment.reason,
        source_usage_credit_id=credit.id,
        source_credit_balance_adjustment_id=adjustment.id,
        source_refund_id=adjustment.source_refund_id,
        billing_period_id=billing_period_id,
    )


def moved(entry: LedgerEntry, *, billing_period_id: UUID) -> NewLedgerEntry:
    """The same deficit, owed for another period."""
    return NewLedgerEntry(
        entry.subscription_id,
        entry.ledger_transaction_id,
        identifiers.new_id(),
        entry.entry_type,
        entry.amount_minor,
        entry.currency,
        debit_account_id=entry.debit_account_id,
        credit_account_id=entry.credit_account_id,
        description=entry.description,
        source_usage_credit_id=entry.source_usage_credit_id,
        source_credit_balance_adjustment_id=entry.source_credit_balance_adjustment_id,
        source_refund_id=entry.source_refund_id,
        billing_period_id=billing_period_id,
    )


def refunded(
    refund: Refund, payment: Payment, clearing_account_id: UUID, accounts: TenantAccounts
) -> NewLedgerEntry:
    """Money goes back."""
    return NewLedgerEntry(
        refund.subscription_id,
        refund.ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.PAYMENT_REFUNDED,
        -refund.amount_minor,
        refund.currency,
        debit_account_id=clearing_account_id,
        credit_account_id=accounts[LedgerAccountKind.CASH],
        description=f"Refund of {payment.processor_transaction_id}",
        source_payment_id=payment.id,
        source_refund_id=refund.id,
    )


def absorbed(refund: Refund, clearing_account_id: UUID, accounts: TenantAccounts) -> NewLedgerEntry:
    """The part of a refund that nothing is taken back for is given."""
    return NewLedgerEntry(
        refund.subscription_id,
        refund.ledger_transaction_id,
        identifiers.new_id(),
        LedgerEntryType.REFUND_ABSORBED,
        refund.absorbed_minor,
        refund.currency,
        debit_account_id=accounts[LedgerAccountKind.REFUNDS_AND_ALLOWANCES],
        credit_account_id=clearing_account_id,
        description="Refund beyond what was taken back",
        source_refund_id=refund.id,
    )


def _unused_kind(credit: UsageCredit) -> LedgerAccountKind:
    """Who gets value that nobody used: paid value is earned, given value was never spent."""
    return LedgerAccountKind.BREAKAGE if credit.is_paid else LedgerAccountKind.PROMOTIONAL_EXPENSE
