"""An audit from its first call to its last."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc

from billing.caller.calls import CallPolicy, ServiceCaller
from billing.v1 import ledger_audit_pb2 as pb
from billing.v1 import ledger_pb2_grpc

MAX_KEPT_FINDINGS: Final = 1_000
"""So many findings are kept to be shown; the others are counted."""

_POLICY: Final = CallPolicy(deadline_seconds=300.0)
_CHECK_PREFIX: Final = "LEDGER_AUDIT_CHECK_"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What to audit. ``page_size`` is how many subscriptions a call looks at; 0 is the default."""

    tenant_id: str
    subscription_id: str = ""
    with_invoices: bool = True
    page_size: int = 0


@dataclass(slots=True)
class AuditSummary:
    """What an audit came to; ``finding_counts`` has every check that was made, by its name."""

    finding_counts: Counter[str] = field(default_factory=Counter)
    findings: list[pb.LedgerAuditFinding] = field(default_factory=list)
    subscription_count: int = 0
    invoice_count: int = 0
    unchecked_invoice_count: int = 0
    unchecked_invoice_reason: str = ""

    @property
    def finding_count(self) -> int:
        """How much was found in all."""
        return self.finding_counts.total()

    def add(self, answer: pb.AuditLedgerResponse) -> None:
        """Take in the answer of a call."""
        for result in answer.checks:
            self.finding_counts[check_name(result.check)] += result.finding_count
        self.findings += answer.findings[: MAX_KEPT_FINDINGS - len(self.findings)]
        self.subscription_count += answer.subscription_count
        self.invoice_count += answer.invoice_count
        self.unchecked_invoice_count += answer.unchecked_invoice_count
        self.unchecked_invoice_reason = (
            self.unchecked_invoice_reason or answer.unchecked_invoice_reason
        )


class AuditObserver(Protocol):
    """Watches an audit."""

    def progressed(self, summary: AuditSummary) -> None:
        """See how far it came."""
        ...

    def noticed(self, text: str) -> None:
        """Hear of a call that is tried again."""
        ...


def check_name(check: int) -> str:
    """Return the name of a check as people read it; of one that is newer, its number."""
    if check not in pb.LedgerAuditCheck.values():
        return f"check {check}"
    name = pb.LedgerAuditCheck.Name(pb.LedgerAuditCheck.ValueType(check))
    return name.removeprefix(_CHECK_PREFIX).lower()


def audit_books(
    options: AuditOptions,
    channel: grpc.Channel,
    *,
    read_token: Callable[[], str],
    observer: AuditObserver,
    policy: CallPolicy = _POLICY,
) -> AuditSummary:
    """Audit call by call until all is looked at; raises CallFailed."""
    caller = ServiceCaller(
        read_token=read_token,
        policy=policy,
        notice=observer.noticed,
        too_large_advice="ask for fewer subscriptions at a time",
    )
    untyped: Any = channel  # the stubs' types are of asynchronous channels
    stub: Any = ledger_pb2_grpc.LedgerServiceStub(untyped)
    request = pb.AuditLedgerRequest(
        tenant_id=options.tenant_id,
        subscription_id=options.subscription_id,
        skip_invoices=not options.with_invoices,
        page_size=options.page_size,
    )
    summary = AuditSummary()
    is_first = True
    while is_first or request.page_token:
        answer = caller.call("AuditLedger", stub.AuditLedger, request, first=is_first)
        summary.add(answer)
        observer.progressed(summary)
        request.page_token = answer.next_page_token
        is_first = False
    return summary
