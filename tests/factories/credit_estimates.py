"""Provisional applications of credits: pending entries that hold value until a run decides."""

from decimal import Decimal

from billing.domain import identifiers
from billing.domain.catalog import Component
from billing.domain.credit_consumption import NewApplication
from billing.domain.credits import CreditApplicationKind, UsageCredit
from billing.domain.ledger import LedgerEntryStatus, LedgerSourceType
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.services import credit_entries
from billing.store.credit_applications import CreditApplicationStore, NewCreditApplication
from billing.store.credits import BalanceChange, CreditStore
from billing.store.database import Database, Transaction
from billing.store.ledger import LedgerStore, NewLedgerTransaction
from billing.store.subscriptions import SubscriptionStore
from tests.factories.credited_subscription import Credit, CreditedSubscription


async def leave_estimate(
    database: Database, metered: CreditedSubscription, granted: Credit, amount_minor: int
) -> str:
    """Apply a credit to calls of the current period provisionally; return the entry's id."""
    async with database.transaction(Scope(metered.client.tenant_id, metered.client.livemode)) as tx:
        subscription = await SubscriptionStore().lock_subscription(
            tx, identifiers.from_typeid(identifiers.SUBSCRIPTION, metered.id)
        )
        credit = await CreditStore().lock_credit(
            tx, identifiers.from_typeid(identifiers.USAGE_CREDIT, granted.id)
        )
        component = Component(
            identifiers.from_typeid(identifiers.COMPONENT, metered.component_ids[0]),
            identifiers.from_typeid(identifiers.USAGE_METER, metered.calls),
            "calls",
            Decimal(1),
            Decimal(0),
        )
        application = NewApplication(identifiers.new_id(), credit, component, amount_minor)
        await _write(tx, metered, subscription, application)
        await _hold(tx, metered, credit, amount_minor)
    return identifiers.to_typeid(identifiers.LEDGER_ENTRY, application.id)


async def _write(
    tx: Transaction,
    metered: CreditedSubscription,
    subscription: Subscription,
    application: NewApplication,
) -> None:
    now = metered.clock()
    transaction = NewLedgerTransaction(identifiers.new_id(), subscription.id, "Estimate")
    await LedgerStore().insert_transactions(
        tx,
        [transaction],
        source_type=LedgerSourceType.BILLING_RUN,
        source_id=identifiers.new_id(),
        now=now,
    )
    entry = credit_entries.applied(
        application,
        subscription,
        transaction.id,
        billing_period_id=subscription.current_period_id,
        calculation_run_id=identifiers.new_id(),
    )
    assert application.component is not None
    assert entry.calculation_run_id is not None
    row = NewCreditApplication(
        application.id,
        subscription.id,
        application.credit.id,
        CreditApplicationKind.RUN,
        entry.calculation_run_id,
        subscription.current_period_id,
        application.component.id,
        application.component.usage_meter_id,
        application.amount_minor,
        entry.currency,
        None,
        None,
        transaction.id,
    )
    await CreditApplicationStore().insert_applications(tx, [row], now=now)
    await LedgerStore().insert_entries(tx, [entry], now=now, status=LedgerEntryStatus.PENDING)


async def _hold(
    tx: Transaction, metered: CreditedSubscription, credit: UsageCredit, amount_minor: int
) -> None:
    change = BalanceChange(credit.id, -amount_minor, amount_minor, credit.status, None, None)
    await CreditStore().update_balances(tx, [change], now=metered.clock())
