"""Billing runs and their results."""

from billing.api.converters.values import EnumConverter, encode_optional_id, encode_time
from billing.domain import identifiers
from billing.domain.billing_runs import (
    BillingRun,
    BillingRunResult,
    BillingRunResultStatus,
    BillingRunStatus,
    BillingRunType,
)
from billing.v1 import billing_run_pb2 as pb

run_type = EnumConverter(pb.BillingRunType, "BILLING_RUN_TYPE", BillingRunType)
status = EnumConverter(pb.BillingRunStatus, "BILLING_RUN_STATUS", BillingRunStatus)
result_status = EnumConverter(
    pb.BillingRunResultStatus, "BILLING_RUN_RESULT_STATUS", BillingRunResultStatus
)


def encode_billing_run(run: BillingRun) -> pb.BillingRun:
    """Return the message of a run, without results."""
    return pb.BillingRun(
        id=identifiers.to_typeid(identifiers.BILLING_RUN, run.id),
        run_type=run_type.encode(run.run_type),
        status=status.encode(run.status),
        as_of=encode_time(run.as_of),
        started_at=encode_time(run.started_at),
        completed_at=encode_time(run.completed_at),
        processed_count=run.processed_count,
        succeeded_count=run.succeeded_count,
        failed_count=run.failed_count,
        skipped_count=run.skipped_count,
        pending_count=run.pending_count,
    )


def encode_billing_run_result(result: BillingRunResult) -> pb.BillingRunResult:
    """Return the message of a result."""
    return pb.BillingRunResult(
        id=identifiers.to_typeid(identifiers.BILLING_RUN_RESULT, result.id),
        run_id=identifiers.to_typeid(identifiers.BILLING_RUN, result.run_id),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, result.subscription_id),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, result.billing_period_id
        ),
        period_start=encode_time(result.period_start),
        period_end=encode_time(result.period_end),
        status=result_status.encode(result.status),
        total_amount=result.total_minor,
        currency=result.currency,
        invoice_id=result.invoice_id or "",
        calculation_run_id=encode_optional_id(
            identifiers.CALCULATION_RUN, result.calculation_run_id
        ),
        error_reason=result.error_reason or "",
        error_message=result.error_message or "",
        taken_by_run_id=encode_optional_id(identifiers.BILLING_RUN, result.taken_by_run_id),
        completed_at=encode_time(result.completed_at),
    )
