"""One of each store, and what is made of them alone."""

from billing.services.credit_journal import CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.idempotency import Idempotency
from billing.services.open_periods import PeriodReader
from billing.store.balances import BalanceStore
from billing.store.billing_periods import BillingPeriodStore
from billing.store.billing_runs import BillingRunStore
from billing.store.bills import BillStore
from billing.store.calculations import CalculationStore
from billing.store.catalog import CatalogStore
from billing.store.credit_applications import CreditApplicationStore
from billing.store.credits import CreditStore
from billing.store.explanations import ExplanationStore
from billing.store.idempotent_requests import IdempotentRequestStore
from billing.store.ledger import LedgerStore
from billing.store.ledger_accounts import LedgerAccountStore
from billing.store.ledger_audits import LedgerAuditStore
from billing.store.ledger_exports import LedgerExportStore
from billing.store.ledger_statements import LedgerStatementStore
from billing.store.payments import PaymentStore, RefundStore
from billing.store.recalculations import RecalculationStore
from billing.store.subscriptions import SubscriptionStore
from billing.store.tenants import TenantStore
from billing.store.usage import UsageStore
from billing.store.usage_corrections import UsageCorrectionStore
from billing.store.usage_meters import SubscriptionUsageMeterStore
from billing.store.work_queue import WorkQueue
from billing.store.write_offs import WriteOffStore


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
        self.calculations = CalculationStore()
        self.recalculations = RecalculationStore()
        self.usage_corrections = UsageCorrectionStore()
        self.write_offs = WriteOffStore()
        self.ledger = LedgerStore()
        self.ledger_statements = LedgerStatementStore()
        self.ledger_exports = LedgerExportStore()
        self.explanations = ExplanationStore()
        self.accounts = LedgerAccountStore()
        self.balances = BalanceStore()
        self.audits = LedgerAuditStore()
        self.usage_meters = SubscriptionUsageMeterStore()
        self.credits = CreditStore()
        self.applications = CreditApplicationStore()
        self.payments = PaymentStore()
        self.refunds = RefundStore()
        self.queue = WorkQueue()
        self.idempotency = Idempotency(IdempotentRequestStore())
        self.period_reader = PeriodReader(self.periods, self.catalog, self.usage)
        self.credit_reader = CreditReader(
            self.credits, self.applications, self.calculations, self.ledger
        )
        self.credit_posting = CreditPosting(
            self.credits, self.applications, self.periods, self.ledger, self.accounts
        )
