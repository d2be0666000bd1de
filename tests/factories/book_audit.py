"""The service's own audit of the books, asked for by a caller."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from billing.v1 import ledger_audit_pb2 as pb
from tests.factories.client import BillingClient


class Finding(NamedTuple):
    """One finding, its check in words."""

    check: str
    message: str
    row: pb.LedgerAuditFinding


async def audit_page(client: BillingClient, **fields: Any) -> pb.AuditLedgerResponse:
    """Ask for one part of an audit."""
    request = pb.AuditLedgerRequest(**{"tenant_id": client.tenant_id, **fields})
    return await client.ledger.AuditLedger(request)  # type: ignore[no-any-return]


async def audit_pages(client: BillingClient, **fields: Any) -> list[pb.AuditLedgerResponse]:
    """Ask for all parts of an audit."""
    pages = [await audit_page(client, **fields)]
    while pages[-1].next_page_token:
        token = pages[-1].next_page_token
        pages.append(await audit_page(client, **fields, page_token=token))
    return pages


async def findings_of(client: BillingClient, **fields: Any) -> list[Finding]:
    """Return all that an audit of a tenant finds."""
    return [
        Finding(word(row.check), row.message, row)
        for page in await audit_pages(client, **fields)
        for row in page.findings
    ]


async def assert_books_agree(client: BillingClient, *, invoices: bool = True) -> None:
    """Fail unless the audit of a tenant looks at everything and finds nothing."""
    pages = await audit_pages(client, skip_invoices=not invoices)
    assert found_in(pages) == []
    assert not any(result.finding_count for page in pages for result in page.checks)
    assert not any(page.unchecked_invoice_count for page in pages)


def found_in(pages: Sequence[pb.AuditLedgerResponse]) -> list[str]:
    """Return the findings of some parts for people."""
    return [f"{word(row.check)}: {row.message}" for page in pages for row in page.findings]


def word(check: pb.LedgerAuditCheck.ValueType) -> str:
    """Return the name of a check."""
    return pb.LedgerAuditCheck.Name(check).removeprefix("LEDGER_AUDIT_CHECK_").lower()
