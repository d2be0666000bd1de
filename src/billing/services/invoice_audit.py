"""Compares the invoices that periods name with those of the invoicing service."""

import asyncio
from collections.abc import Iterator, Sequence

from billing.domain.errors import BillingError, InvoicingUnavailable
from billing.domain.invoices import FoundInvoice
from billing.domain.ledger_audit import (
    AskedInvoice,
    AuditedInvoices,
    LedgerAuditCheck,
    LedgerAuditFinding,
)
from billing.domain.scope import Scope
from billing.services.ports import InvoiceLookUp


class InvoiceAudit:
    """Looks invoices up with bounded concurrency; of a service that is away it says so."""

    def __init__(self, invoicing: InvoiceLookUp, *, concurrency: int) -> None:
        self._invoicing = invoicing
        self._concurrency = concurrency

    async def compare(self, scope: Scope, asked: Sequence[AskedInvoice]) -> AuditedInvoices:
        """Return what differs.

        After the first look-up that is left unanswered no other begins: each costs several
        attempts, and a hanging service must not hold the audit.
        """
        slots = asyncio.Semaphore(self._concurrency)
        silent: list[BillingError] = []

        async def find(invoice: AskedInvoice) -> FoundInvoice | BillingError | None:
            async with slots:
                if silent:
                    return silent[0]
                try:
                    return await self._invoicing.find_invoice(
                        tenant_id=scope.tenant_id, invoice_id=invoice.invoice_id
                    )
                except BillingError as error:
                    if isinstance(error, InvoicingUnavailable):
                        silent.append(error)
                    return error

        answers = await asyncio.gather(*[find(invoice) for invoice in asked])
        errors = [answer for answer in answers if isinstance(answer, BillingError)]
        return AuditedInvoices(
            findings=tuple(
                finding
                for invoice, answer in zip(asked, answers, strict=True)
                if not isinstance(answer, BillingError)
                for finding in _differences(invoice, answer)
            ),
            compared_count=len(asked) - len(errors),
            unchecked_count=len(errors),
            unchecked_reason=str(errors[0]) if errors else "",
        )


def _differences(asked: AskedInvoice, found: FoundInvoice | None) -> Iterator[LedgerAuditFinding]:
    def finding(
        problem: str, *, expected: int | None = None, actual: int | None = None
    ) -> LedgerAuditFinding:
        return LedgerAuditFinding(
            LedgerAuditCheck.INVOICES,
            f"invoice {asked.invoice_id} {problem}",
            subscription_id=asked.subscription_id,
            billing_period_id=asked.billing_period_id,
            currency=asked.currency,
            expected_minor=expected,
            actual_minor=actual,
        )

    if found is None:
        yield finding("is not known to the invoicing service", expected=asked.total_minor)
        return
    if found.is_voided and not asked.is_voided:
        yield finding("was voided by the invoicing service", expected=asked.total_minor)
    if asked.is_voided and not found.is_voided:
        yield finding("should be void", actual=found.total_minor)
    if found.credited_minor != asked.credited_minor:
        yield finding(
            "has other credit notes than it was asked for",
            expected=asked.credited_minor,
            actual=found.credited_minor,
        )
    if found.total_minor != asked.total_minor:
        yield finding(
            "has another total than it was asked for with",
            expected=asked.total_minor,
            actual=found.total_minor,
        )
    if (found.currency, found.customer_id) != (asked.currency, asked.customer_id):
        yield finding(f"is for {found.customer_id} in {found.currency}, not {asked.customer_id}")
