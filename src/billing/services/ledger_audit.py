"""The use case of the ledger audit: what does not agree in the books of a tenant."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from billing.domain.ledger_audit import (
    BOOK_CHECKS,
    MAX_FINDINGS_PER_CHECK,
    TENANT_CHECKS,
    AskedInvoice,
    AuditedInvoices,
    CheckedBooks,
    LedgerAudit,
    LedgerAuditCheck,
    LedgerAuditPosition,
)
from billing.domain.scope import Scope
from billing.services.invoice_audit import InvoiceAudit
from billing.services.ports import AuditMetering, Clock
from billing.store.balances import BalanceStore
from billing.store.database import Database, Transaction
from billing.store.ledger_audits import AuditedSubscriptions, LedgerAuditStore
from billing.store.subscriptions import SubscriptionStore


class LedgerAuditService:
    """Proves the books, some subscriptions a call, each at one moment."""

    def __init__(
        self,
        database: Database,
        audits: LedgerAuditStore,
        balances: BalanceStore,
        subscriptions: SubscriptionStore,
        invoices: InvoiceAudit,
        metering: AuditMetering,
        clock: Clock,
    ) -> None:
        self._database = database
        self._audits = audits
        self._balances = balances
        self._subscriptions = subscriptions
        self._invoices = invoices
        self._metering = metering
        self._clock = clock

    async def audit_ledger(
        self,
        scope: Scope,
        position: LedgerAuditPosition,
        *,
        with_invoices: bool,
    ) -> LedgerAudit:
        """Look at the next subscriptions; at the beginning also at what is of the whole tenant."""
        async with self._database.snapshot(scope) as tx:
            audited = await self._audits.list_subscriptions(
                tx, after=position.after, limit=position.limit
            )
            now = self._clock()
            checks = await self._check(tx, audited.ids, now=now)
            if position.after is None:
                for check in TENANT_CHECKS:
                    checks[check] = await self._audits.list_tenant_findings(tx, check)
            asked = await self._audits.list_asked_invoices(tx, audited.ids) if with_invoices else []
        invoices = await self._compare(scope, checks, asked, with_invoices=with_invoices)
        audit = _part(checks, audited, invoices, now=now)
        if audit.next_after is None:
            self._metering.record_ledger_audit(scope, position.found_with(audit))
        return audit

    async def audit_subscription(
        self, scope: Scope, subscription_id: UUID, *, with_invoices: bool
    ) -> LedgerAudit:
        """Look at one subscription; raises ResourceNotFound."""
        async with self._database.snapshot(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            audited = AuditedSubscriptions((subscription_id,), more_follow=False)
            now = self._clock()
            checks = await self._check(tx, audited.ids, now=now)
            asked = await self._audits.list_asked_invoices(tx, audited.ids) if with_invoices else []
        invoices = await self._compare(scope, checks, asked, with_invoices=with_invoices)
        return _part(checks, audited, invoices, now=now)

    async def _check(
        self, tx: Transaction, subscription_ids: Sequence[UUID], *, now: datetime
    ) -> dict[LedgerAuditCheck, CheckedBooks]:
        checks: dict[LedgerAuditCheck, CheckedBooks] = {
            check: await self._audits.list_findings(tx, check, subscription_ids)
            for check in BOOK_CHECKS
        }
        served = {
            subscription_id: await self._balances.get_balance(tx, subscription_id, now=now)
            for subscription_id in subscription_ids
        }
        checks[LedgerAuditCheck.BALANCES] = await self._audits.list_balance_findings(
            tx, served, now=now
        )
        return checks

    async def _compare(
        self,
        scope: Scope,
        checks: dict[LedgerAuditCheck, CheckedBooks],
        asked: Sequence[AskedInvoice],
        *,
        with_invoices: bool,
    ) -> AuditedInvoices:
        """Compare with the invoicing service, outside the snapshot, and note what was found."""
        if not with_invoices:
            return AuditedInvoices()
        invoices = await self._invoices.compare(scope, asked)
        checks[LedgerAuditCheck.INVOICES] = CheckedBooks(
            invoices.findings[:MAX_FINDINGS_PER_CHECK], len(invoices.findings)
        )
        return invoices


def _part(
    checks: Mapping[LedgerAuditCheck, CheckedBooks],
    audited: AuditedSubscriptions,
    invoices: AuditedInvoices,
    *,
    now: datetime,
) -> LedgerAudit:
    return LedgerAudit(
        checks={check: checks[check] for check in LedgerAuditCheck if check in checks},
        subscription_count=len(audited.ids),
        invoices=invoices,
        as_of=now,
        next_after=audited.ids[-1] if audited.more_follow else None,
    )
