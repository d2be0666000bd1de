"""Which use case is made of what."""

from billing.api.registrations import CreditUseCases, UseCases
from billing.config import Settings
from billing.observability.tracing import traced
from billing.services.billing_execution import BillingExecution
from billing.services.billing_posting import BillingPosting
from billing.services.billing_runs import BillingRunService
from billing.services.catalog import CatalogService
from billing.services.credit_adjustments import CreditAdjustmentService
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.credits import CreditService
from billing.services.idempotency import Idempotency
from billing.services.invoice_delivery import InvoiceDelivery
from billing.services.ledger import LedgerService
from billing.services.open_periods import PeriodReader
from billing.services.payments import PaymentService
from billing.services.ports import Clock, Invoicing, Metering
from billing.services.realtime_credits import RealtimeCredits
from billing.services.refunds import RefundService
from billing.services.subscriptions import SubscriptionService
from billing.services.usage import UsageService
from billing.store.balances import BalanceStore
from billing.store.billing_periods import BillingPeriodStore
from billing.store.billing_runs import BillingRunStore
from billing.store.bills import BillStore
from billing.store.catalog import CatalogStore
from billing.store.credit_applications import CreditApplicationStore
from billing.store.credits import CreditStore
from billing.store.database import Database
from billing.store.idempotent_requests import IdempotentRequestStore
from billing.store.ledger import LedgerStore
from billing.store.ledger_accounts import LedgerAccountStore
from billing.store.payments import PaymentStore, RefundStore
from billing.store.subscriptions import SubscriptionStore
from billing.store.tenants import TenantStore
from billing.store.usage import UsageStore
from billing.store.usage_meters import SubscriptionUsageMeterStore
from billing.store.work_queue import WorkQueue


class Stores:
    """One of each store: they keep nothing but copies of what never changes."""

    def __init__(self) -> None:
        self.tenants = TenantStore()
        self.catalog = CatalogStore()
        self.subscriptions = SubscriptionStore()
        self.periods = BillingPeriodStore()
        self.usage = UsageStore()
        self.runs = BillingRunStore()
        self.bills = BillStore()
        self.ledger = LedgerStore()
        self.accounts = LedgerAccountStore()
        self.balances = BalanceStore()
        self.usage_meters = SubscriptionUsageMeterStore()
        self.credits = CreditStore()
        self.applications = CreditApplicationStore()
        self.payments = PaymentStore()
        self.refunds = RefundStore()
        self.queue = WorkQueue()
        self.idempotency = Idempotency(IdempotentRequestStore())
        self.period_reader = PeriodReader(self.periods, self.catalog, self.usage)
        self.credit_reader = CreditReader(self.credits, self.applications, self.ledger)
        self.credit_posting = CreditPosting(
            self.credits, self.applications, self.periods, self.ledger, self.accounts
        )


def wire_execution(
    settings: Settings,
    database: Database,
    stores: Stores,
    invoicing: Invoicing,
    metering: Metering,
    clock: Clock,
) -> BillingExecution:
    """Wire what brings billing runs to their end."""
    posting = BillingPosting(
        stores.runs,
        stores.bills,
        stores.subscriptions,
        stores.periods,
        stores.period_reader,
        stores.credit_reader,
        stores.ledger,
        stores.credit_posting,
        clock,
    )
    return BillingExecution(
        database,
        stores.runs,
        stores.subscriptions,
        stores.periods,
        posting,
        InvoiceDelivery(invoicing, concurrency=settings.invoicing_concurrency),
        metering,
        clock,
    )


def wire_use_cases(
    settings: Settings,
    database: Database,
    stores: Stores,
    execution: BillingExecution,
    metering: Metering,
    clock: Clock,
) -> UseCases:
    """Wire the services that the API serves."""
    billing_runs = BillingRunService(
        database,
        stores.runs,
        stores.subscriptions,
        stores.periods,
        stores.queue,
        execution,
        stores.idempotency,
        metering,
        clock,
        batch_size=settings.batch_size,
    )
    expiry = _wire_expiry(database, stores, clock)
    return UseCases(
        catalog=traced(
            CatalogService(
                database, stores.catalog, stores.accounts, stores.tenants, stores.idempotency, clock
            )
        ),
        subscriptions=traced(
            SubscriptionService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.period_reader,
                stores.catalog,
                stores.accounts,
                stores.usage_meters,
                stores.credits,
                billing_runs,
                execution,
                stores.idempotency,
                clock,
            )
        ),
        usage=traced(
            UsageService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.period_reader,
                stores.usage,
                stores.usage_meters,
                stores.ledger,
                stores.accounts,
                RealtimeCredits(stores.credit_reader, stores.credit_posting, expiry),
                metering,
                clock,
            )
        ),
        billing_runs=traced(billing_runs),
        ledger=traced(
            LedgerService(database, stores.ledger, stores.balances, stores.subscriptions, clock)
        ),
        credits=_wire_credits(database, stores, expiry, clock),
    )


def _wire_expiry(database: Database, stores: Stores, clock: Clock) -> CreditExpiry:
    """Wire what expires credits: a use case, and what others do first."""
    return CreditExpiry(
        database,
        stores.subscriptions,
        stores.credits,
        stores.period_reader,
        stores.credit_reader,
        stores.ledger,
        stores.credit_posting,
        clock,
    )


def _wire_credits(
    database: Database, stores: Stores, expiry: CreditExpiry, clock: Clock
) -> CreditUseCases:
    """Wire the services of credits, payments and refunds."""
    return CreditUseCases(
        credits=traced(
            CreditService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.catalog,
                stores.credits,
                stores.applications,
                stores.credit_posting,
                expiry,
                stores.idempotency,
                clock,
            )
        ),
        credit_adjustments=traced(
            CreditAdjustmentService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.credits,
                stores.applications,
                stores.refunds,
                stores.credit_posting,
                expiry,
                stores.idempotency,
                clock,
            )
        ),
        credit_expiry=traced(expiry),
        payments=traced(
            PaymentService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.period_reader,
                stores.applications,
                stores.payments,
                stores.credit_posting,
                expiry,
                stores.idempotency,
                clock,
            )
        ),
        refunds=traced(
            RefundService(
                database,
                stores.subscriptions,
                stores.credits,
                stores.applications,
                stores.payments,
                stores.refunds,
                stores.ledger,
                stores.accounts,
                stores.credit_posting,
                expiry,
                stores.idempotency,
                clock,
            )
        ),
    )
