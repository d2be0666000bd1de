"""Usage credits: immutable grants of spendable value, and what is left of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_errors import CreditAlreadyExpired, CreditAlreadyVoided

INITIAL_STATUS: Final = "granted_active"
"""A credit is made when its value is there: a payment's at the confirmation."""


class UsageCreditType(StrEnum):
    """Where a credit comes from."""

    GRANTED_PROMO = "granted_promo"
    GRANTED_GOODWILL = "granted_goodwill"
    GRANTED_SERVICE_CREDIT = "granted_service_credit"
    GRANTED_REFERRAL = "granted_referral"
    PAYMENT_TOP_UP = "payment_top_up"
    PAYMENT_PERIOD_SETTLEMENT = "payment_period_settlement"
    SURPLUS = "surplus"


PAID_TYPES: Final = frozenset(
    {
        UsageCreditType.PAYMENT_TOP_UP,
        UsageCreditType.PAYMENT_PERIOD_SETTLEMENT,
        UsageCreditType.SURPLUS,
    }
)
"""What the customer paid for: consumed last, covers charges too, and unused it is breakage."""


class UsageCreditStatus(StrEnum):
    """What became of a credit."""

    AVAILABLE = "available"
    PARTIALLY_USED = "partially_used"
    FULLY_USED = "fully_used"
    EXPIRED = "expired"
    VOIDED = "voided"


class CreditApplicationKind(StrEnum):
    """What applied a credit. The expiry of credits applies them ahead of the run, as the run would.

    A settlement pays: it is not among the credits that an invoice shows.
    """

    RUN = "run"
    REALTIME = "realtime"
    SETTLEMENT = "settlement"


class CreditBalanceAdjustmentType(StrEnum):
    """Why a credit's value was changed; the last two are made by refunds and voids alone."""

    CLAWBACK_ERROR = "clawback_error"
    CLAWBACK_TERMS_VIOLATION = "clawback_terms_violation"
    ADMIN_REDUCTION = "admin_reduction"
    GRANT_CORRECTION = "grant_correction"
    CLAWBACK_REFUND = "clawback_refund"
    VOID = "void"


class CreditBalanceAdjustmentDirection(StrEnum):
    """Which way a credit's value was changed."""

    DECREASE = "decrease"
    INCREASE = "increase"


@dataclass(frozen=True, slots=True)
class UsageCredit:
    """One grant with what is left of it; amounts in minor units.

    ``remaining_minor`` can be spent; ``held_minor`` is in the hands of pending refunds. Everything
    before ``status`` never changes, except that notes and metadata may.
    """

    id: UUID
    subscription_id: UUID
    credit_type: UsageCreditType
    source_reference_id: str
    billing_period_id: UUID | None
    usage_meter_id: UUID | None
    component_id: UUID | None
    issued_minor: int
    currency: str
    priority: int
    covers_charges: bool
    effective_at: datetime
    expires_at: datetime | None
    issued_at: datetime
    initial_status: str
    notes: str
    metadata: Mapping[str, str]
    status: UsageCreditStatus
    remaining_minor: int
    held_minor: int
    voided_at: datetime | None
    expired_at: datetime | None
    updated_at: datetime

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.USAGE_CREDIT, self.id)

    @property
    def is_paid(self) -> bool:
        """Whether the customer paid for it."""
        return self.credit_type in PAID_TYPES

    def is_over(self, now: datetime) -> bool:
        """Whether its time is over, whether or not the books have expired it yet."""
        return self.expires_at is not None and self.expires_at <= now

    def require_alive(self, now: datetime) -> None:
        """Raise CreditAlreadyVoided or CreditAlreadyExpired for a dead credit."""
        if self.voided_at is not None:
            raise CreditAlreadyVoided(
                usage_credit_id=self.typeid, voided_at=self.voided_at.isoformat()
            )
        if self.expired_at is not None or self.is_over(now):
            raise CreditAlreadyExpired(
                usage_credit_id=self.typeid,
                expires_at=self.expires_at.isoformat() if self.expires_at else "",
            )

    def status_with(
        self, value_minor: int, *, voided_at: datetime | None, expired_at: datetime | None
    ) -> UsageCreditStatus:
        """Return the status that goes with a value on the books: spendable and held."""
        if voided_at is not None:
            return UsageCreditStatus.VOIDED
        if expired_at is not None:
            return UsageCreditStatus.EXPIRED
        if value_minor == 0:
            return UsageCreditStatus.FULLY_USED
        if value_minor < self.issued_minor:
            return UsageCreditStatus.PARTIALLY_USED
        return UsageCreditStatus.AVAILABLE


def new_credit(terms: "CreditTerms", *, now: datetime) -> UsageCredit:
    """Return an untouched credit of these terms; paid ones cover charges whatever they say."""
    return UsageCredit(
        id=identifiers.new_id(),
        subscription_id=terms.subscription_id,
        credit_type=terms.credit_type,
        source_reference_id=terms.source_reference_id,
        billing_period_id=terms.billing_period_id,
        usage_meter_id=terms.usage_meter_id,
        component_id=terms.component_id,
        issued_minor=terms.issued_minor,
        currency=terms.currency,
        priority=terms.priority,
        covers_charges=terms.covers_charges or terms.credit_type in PAID_TYPES,
        effective_at=terms.effective_at or now,
        expires_at=terms.expires_at,
        issued_at=now,
        initial_status=INITIAL_STATUS,
        notes=terms.notes,
        metadata=terms.metadata or {},
        status=UsageCreditStatus.AVAILABLE,
        remaining_minor=terms.issued_minor,
        held_minor=0,
        voided_at=None,
        expired_at=None,
        updated_at=now,
    )


@dataclass(frozen=True, slots=True)
class CreditApplication:
    """One use of a credit, in minor units; ``usage_from`` and ``usage_until`` bound its usage."""

    id: UUID
    usage_credit_id: UUID
    subscription_id: UUID
    kind: CreditApplicationKind
    calculation_run_id: UUID
    billing_period_id: UUID
    component_id: UUID | None
    usage_meter_id: UUID | None
    applied_minor: int
    reversed_minor: int
    currency: str
    usage_from: datetime | None
    usage_until: datetime | None
    applied_at: datetime
    ledger_transaction_id: UUID


@dataclass(frozen=True, slots=True)
class CreditBalanceAdjustment:
    """One administrative change of a credit's value, in minor units, positive both ways.

    ``deficit_minor`` is the part that the credit could not bear and the subscription owes.
    """

    id: UUID
    usage_credit_id: UUID
    subscription_id: UUID
    adjustment_type: CreditBalanceAdjustmentType
    direction: CreditBalanceAdjustmentDirection
    adjusted_minor: int
    deficit_minor: int
    currency: str
    reason: str
    adjusted_by_user_id: str
    notes: str
    metadata: Mapping[str, str]
    source_refund_id: UUID | None
    adjustment_initiated_at: datetime
    ledger_transaction_id: UUID


def new_adjustment(
    credit: UsageCredit,
    ledger_transaction_id: UUID,
    adjustment_type: CreditBalanceAdjustmentType,
    adjusted_minor: int,
    *,
    reason: str,
    by_user_id: str,
    now: datetime,
) -> CreditBalanceAdjustment:
    """Return a decrease of a credit, without a deficit."""
    return CreditBalanceAdjustment(
        id=identifiers.new_id(),
        usage_credit_id=credit.id,
        subscription_id=credit.subscription_id,
        adjustment_type=adjustment_type,
        direction=CreditBalanceAdjustmentDirection.DECREASE,
        adjusted_minor=adjusted_minor,
        deficit_minor=0,
        currency=credit.currency,
        reason=reason,
        adjusted_by_user_id=by_user_id,
        notes="",
        metadata={},
        source_refund_id=None,
        adjustment_initiated_at=now,
        ledger_transaction_id=ledger_transaction_id,
    )


@dataclass(frozen=True, slots=True)
class CreditSummary:
    """A subscription's credits in figures, in minor units of its currency."""

    subscription_id: UUID
    currency: str
    available_minor: int
    upcoming_minor: int
    held_minor: int
    credit_balance_minor: int
    available_count: int
    next_expires_at: datetime | None
    next_expiring_minor: int
    available_by_type: Mapping[UsageCreditType, int]
    as_of: datetime


@dataclass(frozen=True, slots=True)
class CreditTerms:
    """What a grant says, in minor units. Without ``effective_at`` it is in effect at once."""

    subscription_id: UUID
    credit_type: UsageCreditType
    issued_minor: int
    currency: str
    priority: int = 0
    covers_charges: bool = False
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    billing_period_id: UUID | None = None
    usage_meter_id: UUID | None = None
    component_id: UUID | None = None
    source_reference_id: str = ""
    notes: str = ""
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ExpiryOutcome:
    """What ``ExpireCredits`` did; ``expired_minor`` by currency."""

    expired_count: int
    deferred_count: int
    failed_count: int
    expired_minor: Mapping[str, int]
