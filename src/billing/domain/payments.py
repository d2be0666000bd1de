"""Payments and refunds, as the processor outside confirms them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_errors import PaymentNotPending, PaymentNotSucceeded, RefundNotPending


class PaymentPurpose(StrEnum):
    """What a payment is for."""

    TOP_UP = "top_up"
    PERIOD_SETTLEMENT = "period_settlement"


class PaymentStatus(StrEnum):
    """How far a payment got; the last two are final."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RefundStatus(StrEnum):
    """How far a refund got; the last two are final."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RefundCreditPolicy(StrEnum):
    """What a refund takes back of the credit that its payment made."""

    REVERT_UNUSED = "revert_unused"
    REVERT_ALL = "revert_all"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment, in minor units.

    ``settled_minor`` is what it paid of its billing period at once, ``refunded_minor`` what was or
    is being refunded of it.
    """

    id: UUID
    subscription_id: UUID
    purpose: PaymentPurpose
    amount_minor: int
    currency: str
    status: PaymentStatus
    billing_period_id: UUID | None
    invoice_id: str
    payment_method_details: Mapping[str, str]
    processor_transaction_id: str
    processed_at: datetime | None
    failure_reason: str
    usage_credit_id: UUID | None
    settled_minor: int
    refunded_minor: int
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.PAYMENT, self.id)

    def require_pending(self) -> None:
        """Raise PaymentNotPending for another status."""
        if self.status is not PaymentStatus.PENDING:
            raise PaymentNotPending(payment_id=self.typeid, status=self.status)

    def require_succeeded(self) -> None:
        """Raise PaymentNotSucceeded for another status."""
        if self.status is not PaymentStatus.SUCCEEDED:
            raise PaymentNotSucceeded(payment_id=self.typeid, status=self.status)


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """What a payment is begun with; the amount in minor units."""

    subscription_id: UUID
    purpose: PaymentPurpose
    amount_minor: int
    currency: str
    billing_period_id: UUID | None = None
    invoice_id: str = ""
    payment_method_details: Mapping[str, str] | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund, in minor units.

    It is clawed back from what is left of the payment's credit, reversed from what that settled,
    charged as a deficit, and the rest absorbed. While pending, those are what is held.
    """

    id: UUID
    payment_id: UUID
    subscription_id: UUID
    amount_minor: int
    currency: str
    reason: str
    status: RefundStatus
    credit_policy: RefundCreditPolicy
    clawed_back_minor: int
    reversed_minor: int
    deficit_minor: int
    refund_processed_at: datetime | None
    gateway_refund_id: str
    failure_reason: str
    notes: str
    initiated_by_user_id: str
    ledger_transaction_id: UUID
    created_at: datetime
    updated_at: datetime

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.REFUND, self.id)

    @property
    def absorbed_minor(self) -> int:
        """The part that nothing is taken back for."""
        return self.amount_minor - self.clawed_back_minor - self.reversed_minor - self.deficit_minor

    def require_pending(self) -> None:
        """Raise RefundNotPending for another status."""
        if self.status is not RefundStatus.PENDING:
            raise RefundNotPending(refund_id=self.typeid, status=self.status)


@dataclass(frozen=True, slots=True)
class RefundTerms:
    """What a refund is begun with; the amount in minor units."""

    payment_id: UUID
    amount_minor: int
    currency: str
    credit_policy: RefundCreditPolicy = RefundCreditPolicy.REVERT_UNUSED
    reason: str = ""
    notes: str = ""
    initiated_by_user_id: str = ""
