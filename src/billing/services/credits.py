"""Use cases of usage credits: grant, annotate, list."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from billing.domain.credit_errors import BillingPeriodClosed, CreditScopeInvalid, require_currency
from billing.domain.credits import (
    CreditApplication,
    CreditApplicationKind,
    CreditSummary,
    CreditTerms,
    UsageCredit,
    UsageCreditStatus,
    new_credit,
)
from billing.domain.errors import FieldInvalid, ResourceNotFound
from billing.domain.ledger import LedgerSourceType
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriodStatus
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.services import credit_entries
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditPosting
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.catalog import CatalogStore
from billing.store.credit_applications import CreditApplicationStore
from billing.store.credits import CreditStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.subscriptions import SubscriptionStore


class CreditService:
    """Keeps usage credits."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        catalog: CatalogStore,
        credits_: CreditStore,
        applications: CreditApplicationStore,
        posting: CreditPosting,
        expiry: CreditExpiry,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._catalog = catalog
        self._credits = credits_
        self._applications = applications
        self._posting = posting
        self._expiry = expiry
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def grant_credit(
        self, scope: Scope, terms: CreditTerms, *, request: IdempotentRequest | None = None
    ) -> UsageCredit:
        """Grant value to a subscription.

        Raises ResourceNotFound, SubscriptionAlreadyCancelled, CurrencyMismatch, FieldInvalid for an
        expiry that is over or before the effect, CreditScopeInvalid, and BillingPeriodClosed.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, terms.subscription_id)
            answer = await self._idempotency.find_answer(tx, request, UsageCredit)
            if answer is not None:
                return answer
            now = self._clock()
            subscription.require_not_cancelled()
            require_currency(terms.currency, subscription.currency, of=subscription.typeid)
            _require_sound_times(terms, now=now)
            await self._require_scope(tx, subscription, terms, now=now)
            if terms.effective_at is not None and terms.effective_at < now:
                # It may pay usage from before: what is over by now has paid that already.
                await self._expiry.settle_overdue(tx, [subscription], now=now)
            credit = new_credit(terms, now=now)
            journal, transaction_id = await self._posting.open_transaction(
                tx,
                subscription,
                "Credit granted",
                LedgerSourceType.CREDIT_GRANT,
                credit.id,
                now=now,
            )
            accounts = journal.accounts[credit.currency]
            journal.credits.append(credit)
            journal.posted.append(credit_entries.granted(credit, transaction_id, accounts))
            await self._posting.write(tx, journal)
            await self._idempotency.store_answer(tx, request, credit, now=now)
            return credit

    async def get_credit(self, scope: Scope, usage_credit_id: UUID) -> UsageCredit:
        """Return a credit with what is left of it; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._credits.get_credit(tx, usage_credit_id)

    async def list_credits(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        status: UsageCreditStatus | None,
        usage_meter_id: UUID | None,
        live_at: datetime | None,
    ) -> Page[UsageCredit]:
        """Return a page of a subscription's credits, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._credits.list_credits(
                tx,
                page,
                subscription_id=subscription_id,
                status=status,
                usage_meter_id=usage_meter_id,
                live_at=live_at,
            )

    @retried_on_conflict
    async def update_credit(
        self,
        scope: Scope,
        usage_credit_id: UUID,
        *,
        notes: str | None,
        metadata: Mapping[str, str] | None,
        request: IdempotentRequest | None = None,
    ) -> UsageCredit:
        """Change notes and metadata, where they are not None; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            answer = await self._idempotency.find_answer(tx, request, UsageCredit)
            if answer is not None:
                return answer
            now = self._clock()
            await self._credits.get_credit(tx, usage_credit_id)
            await self._credits.update_annotations(
                tx, usage_credit_id, notes=notes, metadata=metadata, now=now
            )
            credit = await self._credits.get_credit(tx, usage_credit_id)
            await self._idempotency.store_answer(tx, request, credit, now=now)
            return credit

    async def list_credit_applications(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        usage_credit_id: UUID | None,
        billing_period_id: UUID | None,
        kind: CreditApplicationKind | None,
    ) -> Page[CreditApplication]:
        """Return a page of where a subscription's credits went; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._applications.list_applications(
                tx,
                page,
                subscription_id=subscription_id,
                usage_credit_id=usage_credit_id,
                billing_period_id=billing_period_id,
                kind=kind,
            )

    async def get_credit_summary(self, scope: Scope, subscription_id: UUID) -> CreditSummary:
        """Return a subscription's credits in figures; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._credits.get_summary(
                tx,
                subscription_id=subscription_id,
                currency=subscription.currency,
                now=self._clock(),
            )

    async def _require_scope(
        self, tx: Transaction, subscription: Subscription, terms: CreditTerms, *, now: datetime
    ) -> None:
        """Raise CreditScopeInvalid or BillingPeriodClosed for a scope that can pay nothing."""
        if terms.billing_period_id is not None:
            await self._require_open_period(
                tx, subscription, terms, terms.billing_period_id, now=now
            )
        if terms.usage_meter_id is None and terms.component_id is None:
            return
        if terms.covers_charges:
            raise FieldInvalid(
                "covers_charges", "a credit for one meter or component cannot pay charges"
            )
        versions = await self._catalog.get_versions_of_plans(tx, {subscription.plan_id})
        components = [
            component
            for version in versions[subscription.plan_id].values()
            for component in version.components
        ]
        if terms.usage_meter_id not in {None, *(c.usage_meter_id for c in components)}:
            raise CreditScopeInvalid(
                "usage_meter_id", f"the plan of {subscription.typeid} does not price this meter"
            )
        if terms.component_id is None:
            return
        named = [c for c in components if c.id == terms.component_id]
        if not named:
            raise CreditScopeInvalid(
                "component_id", f"the plan of {subscription.typeid} has no such component"
            )
        if terms.usage_meter_id not in (None, named[0].usage_meter_id):
            raise CreditScopeInvalid("component_id", "the component prices another meter")

    async def _require_open_period(
        self,
        tx: Transaction,
        subscription: Subscription,
        terms: CreditTerms,
        billing_period_id: UUID,
        *,
        now: datetime,
    ) -> None:
        try:
            period, _ = await self._periods.get_period(tx, subscription.id, billing_period_id)
        except ResourceNotFound:
            raise CreditScopeInvalid(
                "billing_period_id", f"{subscription.typeid} has no such billing period"
            ) from None
        if period.status is not BillingPeriodStatus.OPEN:
            raise BillingPeriodClosed(billing_period_id=period.typeid, status=period.status)
        begins_after = (terms.effective_at or now) >= period.period_end
        ends_before = terms.expires_at is not None and terms.expires_at <= period.period_start
        if begins_after or ends_before:
            raise CreditScopeInvalid(
                "billing_period_id",
                f"the credit is not in effect within the period, which is from "
                f"{period.period_start.isoformat()} to {period.period_end.isoformat()}",
            )


def _require_sound_times(terms: CreditTerms, *, now: datetime) -> None:
    if terms.expires_at is None:
        return
    if terms.expires_at <= now:
        raise FieldInvalid(
            "expires_at",
            f"{terms.expires_at.isoformat()} is over; the server's clock says {now.isoformat()}",
        )
    if terms.effective_at is not None and terms.expires_at <= terms.effective_at:
        raise FieldInvalid(
            "expires_at",
            f"{terms.expires_at.isoformat()} is not after effective_at, "
            f"{terms.effective_at.isoformat()}",
        )
