"""The entries that move what a billed period owes: adjustments and write-offs.

Amounts are positive minor units; the sign is the entry's.
"""

from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import Calculation
from billing.domain.ledger import LedgerAccountKind, LedgerEntryType
from billing.domain.subscriptions import Subscription
from billing.domain.write_offs import WriteOff
from billing.services.credit_journal import CreditJournal
from billing.store.ledger import NewLedgerEntry


def adjust(
    journal: CreditJournal,
    calculation: Calculation,
    change_minor: int,
    subscription: Subscription,
    *,
    billing_period_id: UUID,
    calculation_run_id: UUID,
    ledger_transaction_id: UUID,
    description: str,
) -> None:
    """The usage of a billed period costs so much more than before; less, if it is negative."""
    receivable = subscription.receivable_account_id
    revenue = journal.accounts[subscription.currency][LedgerAccountKind.USAGE_REVENUE]
    journal.posted.append(
        NewLedgerEntry(
            subscription.id,
            ledger_transaction_id,
            identifiers.new_id(),
            LedgerEntryType.BILLING_ADJUSTMENT,
            -change_minor,
            subscription.currency,
            debit_account_id=receivable if change_minor > 0 else revenue,
            credit_account_id=revenue if change_minor > 0 else receivable,
            description=description,
            source_billing_period_calculation_id=calculation.id,
            billing_period_id=billing_period_id,
            usage_meter_id=calculation.usage_meter_id,
            calculation_run_id=calculation_run_id,
        )
    )
    journal.receivables[billing_period_id] += change_minor


def write_off(journal: CreditJournal, given_up: WriteOff, subscription: Subscription) -> None:
    """What is owed becomes a bad debt."""
    bad_debt = journal.accounts[given_up.currency][LedgerAccountKind.BAD_DEBT]
    journal.posted.append(
        NewLedgerEntry(
            subscription.id,
            given_up.ledger_transaction_id,
            identifiers.new_id(),
            LedgerEntryType.RECEIVABLE_WRITTEN_OFF,
            given_up.amount_minor,
            given_up.currency,
            debit_account_id=bad_debt,
            credit_account_id=subscription.receivable_account_id,
            description=given_up.reason,
            source_write_off_id=given_up.id,
            billing_period_id=given_up.billing_period_id,
        )
    )
    journal.receivables[given_up.billing_period_id] -= given_up.amount_minor


def recover(
    journal: CreditJournal,
    given_up: WriteOff,
    amount_minor: int,
    subscription: Subscription,
    ledger_transaction_id: UUID,
) -> None:
    """A bad debt is owed again."""
    bad_debt = journal.accounts[given_up.currency][LedgerAccountKind.BAD_DEBT]
    journal.posted.append(
        NewLedgerEntry(
            subscription.id,
            ledger_transaction_id,
            identifiers.new_id(),
            LedgerEntryType.RECEIVABLE_WRITTEN_OFF,
            -amount_minor,
            given_up.currency,
            debit_account_id=subscription.receivable_account_id,
            credit_account_id=bad_debt,
            description=f"Recovered: {given_up.reason}",
            source_write_off_id=given_up.id,
            billing_period_id=given_up.billing_period_id,
        )
    )
    journal.receivables[given_up.billing_period_id] += amount_minor
