"""Which servicer serves which service of the contract."""

from dataclasses import dataclass

from billing.api.server import Registration
from billing.api.servicers.billing_runs import BillingRunServicer
from billing.api.servicers.calculations import CalculationServicer
from billing.api.servicers.catalog import CatalogServicer
from billing.api.servicers.credits import CreditServicer
from billing.api.servicers.ledger import LedgerServicer
from billing.api.servicers.payments import PaymentServicer
from billing.api.servicers.subscriptions import SubscriptionServicer
from billing.api.servicers.usage import UsageServicer
from billing.services.billing_runs import BillingRunService
from billing.services.calculations import CalculationService
from billing.services.catalog import CatalogService
from billing.services.credit_adjustments import CreditAdjustmentService
from billing.services.credit_expiry import CreditExpiry
from billing.services.credits import CreditService
from billing.services.explanations import ExplanationService
from billing.services.ledger import LedgerService
from billing.services.ledger_audit import LedgerAuditService
from billing.services.ledger_export import LedgerExportService
from billing.services.ledger_statements import LedgerStatementService
from billing.services.payments import PaymentService
from billing.services.recalculations import RecalculationService
from billing.services.refunds import RefundService
from billing.services.subscriptions import SubscriptionService
from billing.services.usage import UsageService
from billing.services.usage_corrections import UsageCorrectionService
from billing.services.write_offs import WriteOffService
from billing.v1 import (
    billing_run_pb2,
    billing_run_pb2_grpc,
    calculation_pb2,
    calculation_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    credit_pb2,
    credit_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    payment_pb2,
    payment_pb2_grpc,
    subscription_pb2,
    subscription_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditUseCases:
    """The services of credits, and of the money behind them."""

    credits: CreditService
    credit_adjustments: CreditAdjustmentService
    credit_expiry: CreditExpiry
    payments: PaymentService
    refunds: RefundService
    write_offs: WriteOffService


@dataclass(frozen=True, slots=True, kw_only=True)
class CalculationUseCases:
    """The services that say what periods cost, before and after they are billed."""

    calculations: CalculationService
    recalculations: RecalculationService
    usage_corrections: UsageCorrectionService


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerUseCases:
    """The services that read the ledger."""

    ledger: LedgerService
    statements: LedgerStatementService
    exports: LedgerExportService
    explanations: ExplanationService
    audit: LedgerAuditService


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """The services that the API serves."""

    catalog: CatalogService
    subscriptions: SubscriptionService
    usage: UsageService
    billing_runs: BillingRunService
    ledger: LedgerUseCases
    credits: CreditUseCases
    calculations: CalculationUseCases


def registrations(use_cases: UseCases) -> list[Registration]:
    """Return every service of ``billing.v1`` with its servicer."""
    return [
        (
            catalog_pb2_grpc.add_CatalogServiceServicer_to_server,
            CatalogServicer(use_cases.catalog),
            catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"],
        ),
        (
            subscription_pb2_grpc.add_SubscriptionServiceServicer_to_server,
            SubscriptionServicer(use_cases.subscriptions),
            subscription_pb2.DESCRIPTOR.services_by_name["SubscriptionService"],
        ),
        (
            usage_pb2_grpc.add_UsageServiceServicer_to_server,
            UsageServicer(use_cases.usage, use_cases.calculations.usage_corrections),
            usage_pb2.DESCRIPTOR.services_by_name["UsageService"],
        ),
        (
            billing_run_pb2_grpc.add_BillingRunServiceServicer_to_server,
            BillingRunServicer(use_cases.billing_runs),
            billing_run_pb2.DESCRIPTOR.services_by_name["BillingRunService"],
        ),
        (
            ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
            LedgerServicer(
                use_cases.ledger.ledger,
                use_cases.ledger.statements,
                use_cases.ledger.exports,
                use_cases.ledger.explanations,
                use_cases.ledger.audit,
            ),
            ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"],
        ),
        (
            credit_pb2_grpc.add_CreditServiceServicer_to_server,
            CreditServicer(
                use_cases.credits.credits,
                use_cases.credits.credit_adjustments,
                use_cases.credits.credit_expiry,
            ),
            credit_pb2.DESCRIPTOR.services_by_name["CreditService"],
        ),
        (
            payment_pb2_grpc.add_PaymentServiceServicer_to_server,
            PaymentServicer(
                use_cases.credits.payments,
                use_cases.credits.refunds,
                use_cases.credits.write_offs,
            ),
            payment_pb2.DESCRIPTOR.services_by_name["PaymentService"],
        ),
        (
            calculation_pb2_grpc.add_CalculationServiceServicer_to_server,
            CalculationServicer(
                use_cases.calculations.calculations, use_cases.calculations.recalculations
            ),
            calculation_pb2.DESCRIPTOR.services_by_name["CalculationService"],
        ),
    ]
