"""What a stranger asks every RPC of ``billing.v1`` for, and what gets an answer all the same."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.type.decimal_pb2 import Decimal

from billing.v1 import (
    catalog_pb2,
    ledger_export_pb2,
    payment_pb2,
    subscription_pb2,
    usage_credit_pb2,
)
from tests.factories.client import component
from tests.factories.tenant_world import World

Fields = Mapping[str, Any]


def plan_version(world: World) -> catalog_pb2.PlanVersionInput:
    return world.client.plan_version(components=[component(world.metered.meter_id)])


def subscription_of(world: World) -> Fields:
    return {"subscription_id": world.metered.subscription_id}


def period_of(world: World) -> Fields:
    return {
        **subscription_of(world),
        "billing_period_id": world.recalculation.billing_period_id,
        "request_id": "request-1",
    }


def event_of(world: World) -> Fields:
    return {"usage_event_id": world.usage_event.id}


def correction_of(world: World) -> Fields:
    return {**event_of(world), "reason": "mine", "request_id": "request-1"}


def credit_of(world: World) -> Fields:
    return {"usage_credit_id": world.usage_credit_id}


def money() -> Fields:
    return {"amount": 1, "currency": "USD", "request_id": "request-1"}


# What a stranger asks for: the owner's things, wherever the request can name any.
ASKED: Mapping[str, Callable[[World], Fields]] = {
    "CatalogService.CreateUsageMeter": lambda _: {
        "code": "api_calls",
        "name": "API calls",
        "aggregation": catalog_pb2.USAGE_AGGREGATION_SUM,
        "request_id": "request-1",
    },
    "CatalogService.GetUsageMeter": lambda w: {"usage_meter_id": w.metered.meter_id},
    "CatalogService.ListUsageMeters": lambda _: {},
    "CatalogService.CreatePlan": lambda w: {"currency": "USD", "version": plan_version(w)},
    "CatalogService.UpdatePlan": lambda w: {
        "plan_id": w.metered.plan_id,
        "version": w.client.plan_version(),
    },
    "CatalogService.GetPlan": lambda w: {"plan_id": w.metered.plan_id},
    "CatalogService.ListPlans": lambda _: {},
    "CatalogService.ListPlanVersions": lambda w: {"plan_id": w.metered.plan_id},
    "SubscriptionService.CreateSubscription": lambda w: {
        "plan_id": w.metered.plan_id,
        "customer_id": "cus-1",
    },
    "SubscriptionService.GetSubscription": subscription_of,
    "SubscriptionService.ListSubscriptions": lambda _: {"customer_id": "cus-1"},
    "SubscriptionService.PauseSubscription": subscription_of,
    "SubscriptionService.ResumeSubscription": subscription_of,
    "SubscriptionService.CancelSubscription": lambda w: {
        **subscription_of(w),
        "mode": subscription_pb2.CANCELLATION_MODE_IMMEDIATELY,
        "request_id": "request-1",
    },
    "UsageService.IngestUsageEvents": lambda w: {"events": [w.metered.event()]},
    "UsageService.GetUsageEvent": lambda w: {"usage_event_id": w.usage_event.id},
    "UsageService.ListUsageEvents": subscription_of,
    "UsageService.GetSubscriptionUsageMeter": lambda w: {
        "subscription_usage_meter_id": w.subscription_usage_meter_id
    },
    "UsageService.ListSubscriptionUsageMeters": subscription_of,
    "CreditService.GrantCredit": lambda w: {
        **subscription_of(w),
        **money(),
        "credit_type": usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_PROMO,
    },
    "CreditService.GetCredit": credit_of,
    "CreditService.ListCredits": subscription_of,
    "CreditService.UpdateCredit": lambda w: {
        **credit_of(w),
        "notes": "mine",
        "update_mask": FieldMask(paths=["notes"]),
    },
    "CreditService.VoidCredit": lambda w: {
        **credit_of(w),
        "reason": "mine",
        "request_id": "request-1",
    },
    "CreditService.AdjustCreditBalance": lambda w: {
        **credit_of(w),
        **money(),
        "adjustment_type": usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_ADMIN_REDUCTION,
        "direction": usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_DECREASE,
        "reason": "mine",
        "adjusted_by_user_id": "me",
    },
    "CreditService.ListCreditBalanceAdjustments": credit_of,
    "CreditService.ListCreditApplications": subscription_of,
    "CreditService.ExpireCredits": lambda _: {},
    "CreditService.GetCreditSummary": subscription_of,
    "PaymentService.CreatePayment": lambda w: {
        **subscription_of(w),
        **money(),
        "purpose": payment_pb2.PAYMENT_PURPOSE_TOP_UP,
    },
    "PaymentService.ConfirmPayment": lambda w: {
        "payment_id": w.pending_payment_id,
        "processor_transaction_id": "mine",
        "request_id": "request-1",
    },
    "PaymentService.FailPayment": lambda w: {
        "payment_id": w.pending_payment_id,
        "failure_reason": "mine",
    },
    "PaymentService.GetPayment": lambda w: {"payment_id": w.payment_id},
    "PaymentService.ListPayments": subscription_of,
    "PaymentService.CreateRefund": lambda w: {"payment_id": w.payment_id, **money()},
    "PaymentService.ConfirmRefund": lambda w: {
        "refund_id": w.refund_id,
        "gateway_refund_id": "mine",
        "request_id": "request-1",
    },
    "PaymentService.FailRefund": lambda w: {
        "refund_id": w.refund_id,
        "failure_reason": "mine",
        "request_id": "request-1",
    },
    "PaymentService.GetRefund": lambda w: {"refund_id": w.refund_id},
    "PaymentService.ListRefunds": subscription_of,
    "PaymentService.WriteOffReceivable": lambda w: {
        **period_of(w),
        "currency": "USD",
        "reason": "mine",
    },
    "PaymentService.RecoverWriteOff": lambda w: {
        "write_off_id": w.write_off_id,
        "request_id": "request-1",
    },
    "PaymentService.GetWriteOff": lambda w: {"write_off_id": w.write_off_id},
    "PaymentService.ListWriteOffs": subscription_of,
    "UsageService.AmendUsageEvent": lambda w: {**correction_of(w), "quantity": Decimal(value="1")},
    "UsageService.VoidUsageEvent": correction_of,
    "UsageService.ListUsageEventCorrections": lambda w: {"usage_event_id": w.voided_event_id},
    "CalculationService.EstimateBillingPeriod": lambda w: {
        **subscription_of(w),
        "request_id": "request-1",
    },
    "CalculationService.RecalculateBillingPeriod": lambda w: {**period_of(w), "reason": "mine"},
    "CalculationService.ResolveRecalculationDocument": lambda w: {
        "recalculation_document_id": w.recalculation.documents[0].id,
        "document_id": "mine",
        "request_id": "request-1",
    },
    "CalculationService.GetCalculation": lambda w: {"calculation_id": w.calculation_id},
    "CalculationService.ListCalculations": subscription_of,
    "CalculationService.GetRecalculation": lambda w: {"recalculation_id": w.recalculation.id},
    "CalculationService.ListRecalculations": subscription_of,
    "BillingRunService.RunBilling": lambda _: {"run_type": 2, "request_id": "request-1"},
    "BillingRunService.RunBillingForSubscription": lambda w: {
        **subscription_of(w),
        "request_id": "request-1",
    },
    "BillingRunService.GetBillingRun": lambda w: {"run_id": w.run_id},
    "BillingRunService.ListBillingRuns": lambda _: {},
    "BillingRunService.ListBillingRunResults": lambda w: {"run_id": w.run_id},
    "LedgerService.GetBalance": subscription_of,
    "LedgerService.GetAccountBalances": subscription_of,
    "LedgerService.GetStatement": subscription_of,
    "LedgerService.ListLedgerEntries": subscription_of,
    "LedgerService.ListLedgerTransactions": subscription_of,
    "LedgerService.ExportLedger": lambda w: {
        **subscription_of(w),
        "format": ledger_export_pb2.LEDGER_EXPORT_FORMAT_CSV,
    },
    "LedgerService.GetLedgerTransaction": lambda w: {
        "ledger_transaction_id": w.ledger_transaction_id
    },
    "LedgerService.GetTrialBalance": lambda _: {},
    "LedgerService.AuditLedger": lambda _: {},
    "LedgerService.ListCharges": subscription_of,
    "LedgerService.ExplainCharge": lambda w: {"charge_id": w.charge_id},
    "LedgerService.ExplainBalance": subscription_of,
}

# Requests that name nothing of the owner's, or have an answer for each event: what a stranger,
# who has nothing, gets instead of NOT_FOUND.
ANSWERED: Mapping[str, Callable[[Any], bool]] = {
    "CatalogService.CreateUsageMeter": lambda answer: answer.usage_meter.code == "api_calls",
    "CatalogService.ListUsageMeters": lambda answer: not answer.usage_meters,
    "CatalogService.ListPlans": lambda answer: not answer.plans,
    "SubscriptionService.ListSubscriptions": lambda answer: not answer.subscriptions,
    "UsageService.IngestUsageEvents": lambda answer: (
        answer.results[0].reason == "SUBSCRIPTION_NOT_FOUND"
    ),
    "CreditService.ExpireCredits": lambda answer: not answer.ByteSize(),
    "BillingRunService.RunBilling": lambda answer: answer.billing_run.processed_count == 0,
    "BillingRunService.ListBillingRuns": lambda answer: not answer.billing_runs,
    "LedgerService.GetTrialBalance": lambda answer: not answer.lines,
    "LedgerService.AuditLedger": lambda answer: answer.subscription_count == 0,
}
