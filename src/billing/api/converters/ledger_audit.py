"""The audit of the ledger."""

from uuid import UUID

from billing.api.converters.values import (
    EnumConverter,
    encode_decimal,
    encode_optional_id,
    encode_time,
)
from billing.api.page_tokens import next_page_token, page_request
from billing.domain import identifiers
from billing.domain.ledger_audit import (
    LedgerAudit,
    LedgerAuditCheck,
    LedgerAuditFinding,
    LedgerAuditPosition,
)
from billing.domain.pages import Page
from billing.v1 import ledger_audit_pb2 as pb

audit_check = EnumConverter(pb.LedgerAuditCheck, "LEDGER_AUDIT_CHECK", LedgerAuditCheck)

_CHECKS = tuple(LedgerAuditCheck)


def decode_position(request: pb.AuditLedgerRequest) -> LedgerAuditPosition:
    """Return how far the audit came; raises PageTokenInvalid.

    The token carries how much was found so far, check by check: the calls of an audit may be
    answered by several servers, and the one that answers the last tells the figures.
    """
    page = page_request(request, key_length=1 + len(_CHECKS))
    if page.after is None:
        return LedgerAuditPosition(page.size)
    after, *counts = page.after
    found = {check: count.int for check, count in zip(_CHECKS, counts, strict=True)}
    return LedgerAuditPosition(page.size, after, found)


def encode_audit(
    audit: LedgerAudit, request: pb.AuditLedgerRequest, position: LedgerAuditPosition
) -> pb.AuditLedgerResponse:
    """Return the message of a part of an audit."""
    return pb.AuditLedgerResponse(
        findings=[
            _encode_finding(finding)
            for check in audit.checks.values()
            for finding in check.findings
        ],
        checks=[
            pb.LedgerAuditCheckResult(check=audit_check.encode(check), finding_count=count)
            for check, count in audit.finding_counts.items()
        ],
        subscription_count=audit.subscription_count,
        invoice_count=audit.invoices.compared_count,
        unchecked_invoice_count=audit.invoices.unchecked_count,
        unchecked_invoice_reason=audit.invoices.unchecked_reason,
        as_of=encode_time(audit.as_of),
        next_page_token=_next_page_token(audit, request, position),
    )


def _next_page_token(
    audit: LedgerAudit, request: pb.AuditLedgerRequest, position: LedgerAuditPosition
) -> str:
    if audit.next_after is None:
        return ""
    found = position.found_with(audit)
    counts = [UUID(int=found.get(check, 0)) for check in _CHECKS]
    return next_page_token(Page((), (audit.next_after, *counts)), request)


def _encode_finding(finding: LedgerAuditFinding) -> pb.LedgerAuditFinding:
    expected, actual = finding.expected_quantity, finding.actual_quantity
    return pb.LedgerAuditFinding(
        check=audit_check.encode(finding.check),
        message=finding.message,
        subscription_id=encode_optional_id(identifiers.SUBSCRIPTION, finding.subscription_id),
        billing_period_id=encode_optional_id(identifiers.BILLING_PERIOD, finding.billing_period_id),
        resource_ids=finding.resource_ids,
        currency=finding.currency,
        expected_amount=finding.expected_minor,
        actual_amount=finding.actual_minor,
        expected_quantity=encode_decimal(expected) if expected is not None else None,
        actual_quantity=encode_decimal(actual) if actual is not None else None,
    )
