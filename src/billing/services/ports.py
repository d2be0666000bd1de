"""What the use cases need from outside, as they see it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from billing.domain.billing_runs import BillingRunStatus, BillingRunType
from billing.domain.invoices import CreditNoteRequest, FoundInvoice, InvoiceRequest, VoidRequest
from billing.domain.ledger_audit import LedgerAuditCheck
from billing.domain.scope import Scope
from billing.domain.usage import UsageEventOutcome


class Clock(Protocol):
    """Tells the present moment, in UTC."""

    def __call__(self) -> datetime: ...


class Invoicing(Protocol):
    """The invoicing service."""

    async def create_invoice(self, request: InvoiceRequest) -> str:
        """Create the invoice, or find the one made before with its key, and return its id.

        Raises InvoicingUnavailable (worth a later attempt) and InvoiceRefused.
        """
        ...


class InvoiceCorrections(Invoicing, Protocol):
    """The invoicing service, for those who correct what it has invoiced.

    All raise what ``create_invoice`` raises.
    """

    async def create_credit_note(self, request: CreditNoteRequest) -> str:
        """Create the credit note, or find the one made before with its key, and return its id."""
        ...

    async def void_invoice(self, request: VoidRequest) -> None:
        """Void the invoice; nothing happens where it is void already."""
        ...

    async def find_invoice(self, *, tenant_id: str, invoice_id: str) -> FoundInvoice | None:
        """Return how the invoice stands, None if the tenant has no such invoice."""
        ...


class Metering(Protocol):
    """Counts what the service does."""

    def record_billing_run(
        self,
        tenant_id: str,
        run_type: BillingRunType,
        status: BillingRunStatus,
        *,
        seconds: float,
    ) -> None:
        """Count a run that ended, so long after its start."""
        ...

    def record_billing_run_subscriptions(
        self, tenant_id: str, *, processed: int, succeeded: int, failed: int
    ) -> None:
        """Count results that came to their outcome."""
        ...

    def record_invoice_created(self, tenant_id: str, *, count: int = 1) -> None:
        """Count invoices."""
        ...

    def record_usage_events(
        self, tenant_id: str, outcome: UsageEventOutcome, *, count: int
    ) -> None:
        """Count usage events of a call by outcome."""
        ...


class InvoiceLookUp(Protocol):
    """The invoicing service, as far as it tells."""

    async def find_invoice(self, *, tenant_id: str, invoice_id: str) -> FoundInvoice | None:
        """Return how the invoice stands, None if the tenant has no such invoice.

        Raises InvoicingUnavailable, and InvoiceRefused for an answer of no use.
        """
        ...


class AuditMetering(Protocol):
    """Tells what audits find."""

    def record_ledger_audit(self, scope: Scope, counts: Mapping[LedgerAuditCheck, int]) -> None:
        """Tell how much each check of an audit found that has ended."""
        ...
