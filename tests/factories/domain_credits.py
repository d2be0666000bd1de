"""Credits of the domain with sensible defaults, and what they pay, told by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from billing.domain.credit_consumption import Coverage, CreditBook, NewApplication
from billing.domain.credits import (
    CreditApplicationKind,
    CreditTerms,
    UsageCredit,
    UsageCreditType,
    new_credit,
)
from billing.domain.identifiers import new_id
from billing.domain.periods import BillingPeriod, BillingPeriodStatus
from tests.factories.domain import BEGIN

END = datetime(2026, 2, 1, tzinfo=UTC)
"""The end of the period that begins at ``BEGIN``."""

PROMO = UsageCreditType.GRANTED_PROMO
TOP_UP = UsageCreditType.PAYMENT_TOP_UP


def day(number: int) -> datetime:
    """The start of a day of January 2026."""
    return BEGIN + timedelta(days=number - 1)


def a_period(*, receivable_minor: int = 0) -> BillingPeriod:
    """January 2026, of a subscription of its own."""
    return BillingPeriod(
        id=new_id(),
        subscription_id=new_id(),
        plan_version_id=new_id(),
        anchor_at=BEGIN,
        period_start=BEGIN,
        period_end=END,
        status=BillingPeriodStatus.OPEN,
        receivable_minor=receivable_minor,
    )


def a_credit(
    issued_minor: int = 100,
    *,
    credit_type: UsageCreditType = PROMO,
    remaining_minor: int | None = None,
    issued_at: datetime = BEGIN,
    effective_at: datetime = BEGIN,
    **terms: Any,
) -> UsageCredit:
    """A general promotion that never expires; the keywords are those of ``CreditTerms``."""
    credit = new_credit(
        CreditTerms(
            subscription_id=new_id(),
            credit_type=credit_type,
            issued_minor=issued_minor,
            currency="USD",
            effective_at=effective_at,
            **terms,
        ),
        now=issued_at,
    )
    if remaining_minor is None:
        return credit
    return replace(credit, remaining_minor=remaining_minor)


def a_book(*credits_: UsageCredit) -> CreditBook:
    """A book of credits."""
    return CreditBook(list(credits_))


def paid_by(
    applications: Iterable[NewApplication], names: Mapping[UUID, str]
) -> list[tuple[str, str, int]]:
    """Return who pays what, by the names of credits and components; ``charges`` has no other."""
    return [
        (
            names[application.credit.id],
            names[application.component.id] if application.component else "charges",
            application.amount_minor,
        )
        for application in applications
    ]


def coverage_of(
    applications: Sequence[NewApplication],
    kind: CreditApplicationKind = CreditApplicationKind.RUN,
) -> list[Coverage]:
    """Return what applications pay, as it is read when they were written."""
    return [
        Coverage(
            kind,
            application.component.id if application.component else None,
            application.usage_from,
            application.usage_until,
            application.amount_minor,
        )
        for application in applications
    ]


def left_of(book: CreditBook) -> list[UsageCredit]:
    """Return the credits of which something is left, with what is left of them."""
    return [
        replace(credit, remaining_minor=book.remaining[credit.id])
        for credit in book.credits
        if book.remaining[credit.id] > 0
    ]
