"""Use cases: the accounts, transactions and statements of a subscription."""

from datetime import datetime
from uuid import UUID

from billing.domain.errors import FieldInvalid, PageTokenInvalid
from billing.domain.ledger import LedgerSourceType
from billing.domain.ledger_statements import AccountBalances, LedgerTransactionSummary, Statement
from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope
from billing.domain.time_ranges import TimeRange, just_after, moment_of_key
from billing.services.ledger import require_past
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.database import Database
from billing.store.ledger_statements import LedgerStatementStore
from billing.store.subscriptions import SubscriptionStore


class LedgerStatementService:
    """Tells what the entries of a subscription add up to."""

    def __init__(
        self,
        database: Database,
        statements: LedgerStatementStore,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        clock: Clock,
    ) -> None:
        self._database = database
        self._statements = statements
        self._subscriptions = subscriptions
        self._periods = periods
        self._clock = clock

    async def get_account_balances(
        self, scope: Scope, subscription_id: UUID, *, as_of: datetime | None
    ) -> AccountBalances:
        """Return what is in each account; raises ResourceNotFound, and FieldInvalid for the future.

        Always from the entries themselves.
        """
        now = self._clock()
        require_past(as_of, now=now)
        moment = as_of or now
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.get_subscription(tx, subscription_id)
            accounts = await self._statements.list_account_balances(
                tx, subscription_id, as_of=moment
            )
        return AccountBalances(subscription_id, subscription.currency, moment, accounts)

    async def list_ledger_transactions(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        source_type: LedgerSourceType | None,
        span: TimeRange,
    ) -> tuple[Page[LedgerTransactionSummary], str]:
        """Return a page of transactions, newest first, and their currency.

        Raises ResourceNotFound.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.get_subscription(tx, subscription_id)
            summaries = await self._statements.list_transaction_summaries(
                tx, page, subscription_id=subscription_id, source_type=source_type, span=span
            )
        return summaries, subscription.currency

    async def get_statement(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
        span: TimeRange,
    ) -> Statement:
        """Return a page of the statement of a billing period, or of what was posted in a span.

        A span's end in the future is the present, which later pages keep. Raises ResourceNotFound,
        and FieldInvalid for both at once and for a span that begins in the future.
        """
        if billing_period_id is None:
            span = _past_span(span, page, present=just_after(self._clock()))
        elif span != TimeRange():
            raise FieldInvalid(
                "billing_period_id", "a statement is of a billing period or of a span of time"
            )
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.get_subscription(tx, subscription_id)
            if billing_period_id is not None:
                period, _ = await self._periods.get_period(tx, subscription_id, billing_period_id)
                span = TimeRange(period.period_start, period.period_end)
            part = await self._statements.get_statement(
                tx,
                page,
                subscription_id=subscription_id,
                span=span,
                billing_period_id=billing_period_id,
            )
        return Statement(subscription_id, subscription.currency, span, billing_period_id, part)


def _past_span(span: TimeRange, page: PageRequest, *, present: datetime) -> TimeRange:
    """Return the span up to its end, the end that the first page had, or the present."""
    ends = [present]
    if span.end is not None:
        ends.append(span.end)
    if page.after is not None:
        try:
            ends.append(moment_of_key(page.after[0]))
        except OverflowError:
            raise PageTokenInvalid from None
    end = min(ends)
    if span.start is not None and span.start > end:
        raise FieldInvalid(
            "posted_from",
            f"{span.start.isoformat()} lies after posted_until, which is the present, "
            f"{end.isoformat()}",
        )
    return TimeRange(span.start, end)
