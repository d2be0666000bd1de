"""Which use case is made of what."""

from billing.api.registrations import CalculationUseCases, CreditUseCases, LedgerUseCases, UseCases
from billing.bootstrap.stores import Stores
from billing.config import Settings
from billing.observability.tracing import traced
from billing.services.billing_execution import BillingExecution
from billing.services.billing_posting import BillingPosting
from billing.services.billing_runs import BillingRunService
from billing.services.calculations import CalculationService
from billing.services.catalog import CatalogService
from billing.services.charge_explaining import ChargeExplainer
from billing.services.credit_adjustments import CreditAdjustmentService
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_reassignment import CreditReassigner
from billing.services.credits import CreditService
from billing.services.explanations import ExplanationService
from billing.services.invoice_audit import InvoiceAudit
from billing.services.invoice_delivery import InvoiceDelivery
from billing.services.ledger import LedgerService
from billing.services.ledger_audit import LedgerAuditService
from billing.services.ledger_export import LedgerExportService
from billing.services.ledger_statements import LedgerStatementService
from billing.services.payments import PaymentService
from billing.services.ports import (
    AuditMetering,
    Clock,
    InvoiceCorrections,
    InvoiceLookUp,
    Invoicing,
    Metering,
)
from billing.services.realtime_credits import RealtimeCredits
from billing.services.recalculation_delivery import RecalculationDelivery
from billing.services.recalculation_posting import RecalculationPosting
from billing.services.recalculations import RecalculationService
from billing.services.receivable_restoring import ReceivableRestorer
from billing.services.refunds import RefundService
from billing.services.subscriptions import SubscriptionService
from billing.services.usage import UsageService
from billing.services.usage_corrections import UsageCorrectionService
from billing.services.write_offs import WriteOffService
from billing.store.charges import ChargeStore
from billing.store.database import Database
from billing.store.explained_usage import ExplainedUsageStore


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
        stores.calculations,
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


def wire_delivery(
    database: Database, stores: Stores, invoicing: InvoiceCorrections, clock: Clock
) -> RecalculationDelivery:
    """Wire what brings the documents of recalculations to the invoicing service."""
    return RecalculationDelivery(database, stores.tenants, stores.recalculations, invoicing, clock)


def wire_ledger_audit(
    settings: Settings,
    database: Database,
    stores: Stores,
    invoicing: InvoiceLookUp,
    metering: AuditMetering,
    clock: Clock,
) -> LedgerAuditService:
    """Wire what proves the books."""
    return LedgerAuditService(
        database,
        stores.audits,
        stores.balances,
        stores.subscriptions,
        InvoiceAudit(invoicing, concurrency=settings.invoicing_concurrency),
        metering,
        clock,
    )


def wire_use_cases(
    settings: Settings,
    database: Database,
    stores: Stores,
    execution: BillingExecution,
    delivery: RecalculationDelivery,
    ledger_audit: LedgerAuditService,
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
    realtime = _wire_realtime(stores, expiry)
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
                realtime,
                metering,
                clock,
            )
        ),
        billing_runs=traced(billing_runs),
        ledger=_wire_ledger(database, stores, ledger_audit, clock),
        credits=_wire_credits(database, stores, expiry, clock),
        calculations=_wire_calculations(database, stores, expiry, realtime, delivery, clock),
    )


def _wire_ledger(
    database: Database, stores: Stores, audit: LedgerAuditService, clock: Clock
) -> LedgerUseCases:
    """Wire the services that read the ledger."""
    return LedgerUseCases(
        ledger=traced(
            LedgerService(database, stores.ledger, stores.balances, stores.subscriptions, clock)
        ),
        statements=traced(
            LedgerStatementService(
                database, stores.ledger_statements, stores.subscriptions, stores.periods, clock
            )
        ),
        exports=traced(LedgerExportService(database, stores.ledger_exports, stores.subscriptions)),
        explanations=traced(
            ExplanationService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.catalog,
                ChargeStore(),
                stores.recalculations,
                stores.balances,
                stores.explanations,
                ChargeExplainer(stores.explanations, ExplainedUsageStore()),
                clock,
            )
        ),
        audit=traced(audit),
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


def _wire_realtime(stores: Stores, expiry: CreditExpiry) -> RealtimeCredits:
    return RealtimeCredits(
        stores.credit_reader,
        stores.period_reader,
        stores.periods,
        stores.usage_corrections,
        stores.credit_posting,
        expiry,
    )


def _wire_payments(
    database: Database, stores: Stores, expiry: CreditExpiry, clock: Clock
) -> PaymentService:
    return PaymentService(
        database,
        stores.subscriptions,
        stores.periods,
        stores.period_reader,
        stores.applications,
        stores.payments,
        stores.write_offs,
        stores.credit_posting,
        expiry,
        stores.idempotency,
        clock,
    )


def _wire_credits(
    database: Database, stores: Stores, expiry: CreditExpiry, clock: Clock
) -> CreditUseCases:
    """Wire the services of credits, payments, refunds and write-offs."""
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
        payments=traced(_wire_payments(database, stores, expiry, clock)),
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
        write_offs=traced(
            WriteOffService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.write_offs,
                stores.credit_posting,
                stores.idempotency,
                clock,
            )
        ),
    )


def _wire_calculations(
    database: Database,
    stores: Stores,
    expiry: CreditExpiry,
    realtime: RealtimeCredits,
    delivery: RecalculationDelivery,
    clock: Clock,
) -> CalculationUseCases:
    """Wire the services of corrections, estimates and recalculations."""
    reassigner = CreditReassigner(stores.credit_reader, stores.credits, stores.periods)
    return CalculationUseCases(
        calculations=traced(
            CalculationService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.period_reader,
                stores.credit_reader,
                stores.bills,
                stores.calculations,
                stores.credit_posting,
                stores.idempotency,
                clock,
            )
        ),
        recalculations=traced(
            RecalculationService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.calculations,
                stores.recalculations,
                _wire_recalculation_posting(stores, reassigner),
                expiry,
                delivery,
                stores.idempotency,
                clock,
            )
        ),
        usage_corrections=traced(
            UsageCorrectionService(
                database,
                stores.subscriptions,
                stores.periods,
                stores.period_reader,
                stores.usage,
                stores.usage_corrections,
                stores.credit_reader,
                stores.credit_posting,
                reassigner,
                expiry,
                realtime,
                stores.idempotency,
                clock,
            )
        ),
    )


def _wire_recalculation_posting(
    stores: Stores, reassigner: CreditReassigner
) -> RecalculationPosting:
    return RecalculationPosting(
        stores.periods,
        stores.period_reader,
        stores.usage,
        stores.usage_corrections,
        stores.credit_reader,
        stores.bills,
        stores.calculations,
        stores.recalculations,
        stores.ledger,
        stores.credit_posting,
        reassigner,
        ReceivableRestorer(stores.write_offs, stores.credit_reader, reassigner),
    )
