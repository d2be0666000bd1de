"""What can be wrong with credits, payments and refunds: see ``billing.domain.errors``."""

from billing.domain.errors import AlreadyExists, FieldInvalid, WrongState


class CurrencyMismatch(FieldInvalid):
    """The currency is not the one of the thing that the amount is for."""

    def __init__(self, *, currency: str, expected: str, of: str) -> None:
        super().__init__(
            "currency",
            f"{currency} is not the currency of {of}, which is {expected}",
            currency=currency,
            expected=expected,
        )


def require_currency(currency: str, expected: str, *, of: str) -> None:
    """Raise CurrencyMismatch unless an amount is in the currency of what it is for."""
    if currency != expected:
        raise CurrencyMismatch(currency=currency, expected=expected, of=of)


class CreditScopeInvalid(FieldInvalid):
    """The billing period, meter or component of a grant is not one of the subscription."""


class BillingPeriodClosed(WrongState):
    """The billing period is billed already: no credit can pay it any more."""

    def __init__(self, *, billing_period_id: str, status: str) -> None:
        super().__init__(
            f"billing period {billing_period_id} is {status}; only an open one can have credits",
            billing_period_id=billing_period_id,
            status=status,
        )


class CreditAlreadyVoided(WrongState):
    """The credit was voided, for good."""

    def __init__(self, *, usage_credit_id: str, voided_at: str) -> None:
        super().__init__(
            f"credit {usage_credit_id} was voided at {voided_at}; grant a new one instead",
            usage_credit_id=usage_credit_id,
            voided_at=voided_at,
        )


class CreditAlreadyExpired(WrongState):
    """The credit's time is over."""

    def __init__(self, *, usage_credit_id: str, expires_at: str) -> None:
        super().__init__(
            f"credit {usage_credit_id} expired at {expires_at}; grant a new one instead",
            usage_credit_id=usage_credit_id,
            expires_at=expires_at,
        )


class CreditFullyUsed(WrongState):
    """Nothing is left of the credit."""

    def __init__(self, *, usage_credit_id: str, issued_minor: int) -> None:
        super().__init__(
            f"nothing is left of the {issued_minor} of credit {usage_credit_id}",
            usage_credit_id=usage_credit_id,
            issued=issued_minor,
            remaining=0,
        )


class CreditBalanceInsufficient(WrongState):
    """A decrease is larger than what is left of the credit."""

    def __init__(self, *, usage_credit_id: str, amount_minor: int, remaining_minor: int) -> None:
        super().__init__(
            f"credit {usage_credit_id} has {remaining_minor} left, {amount_minor} cannot be taken "
            "back; allow_deficit charges the subscription the rest",
            usage_credit_id=usage_credit_id,
            amount=amount_minor,
            remaining=remaining_minor,
        )


class PaymentNotPending(WrongState):
    """The payment has come to its end already."""

    def __init__(self, *, payment_id: str, status: str) -> None:
        super().__init__(
            f"payment {payment_id} is {status}; only a pending one can do this",
            payment_id=payment_id,
            status=status,
        )


class PaymentNotSucceeded(WrongState):
    """Only money that came in can go back."""

    def __init__(self, *, payment_id: str, status: str) -> None:
        super().__init__(
            f"payment {payment_id} is {status}; only a confirmed one can be refunded",
            payment_id=payment_id,
            status=status,
        )


class ProcessorTransactionTaken(AlreadyExists):
    """Another payment was confirmed with the processor's id."""

    def __init__(self, *, payment_id: str, processor_transaction_id: str) -> None:
        super().__init__(
            f"another payment was confirmed as {processor_transaction_id!r} of the processor; "
            f"the same money cannot confirm {payment_id} too",
            payment_id=payment_id,
            processor_transaction_id=processor_transaction_id,
        )


class GatewayRefundTaken(AlreadyExists):
    """Another refund was confirmed with the processor's id."""

    def __init__(self, *, refund_id: str, gateway_refund_id: str) -> None:
        super().__init__(
            f"another refund was confirmed as {gateway_refund_id!r} of the processor; "
            f"the same money cannot confirm {refund_id} too",
            refund_id=refund_id,
            gateway_refund_id=gateway_refund_id,
        )


class PaymentConfirmedOtherwise(WrongState):
    """The payment was confirmed before, with another id of the processor."""

    def __init__(self, *, payment_id: str, confirmed: str, told: str) -> None:
        super().__init__(
            f"payment {payment_id} was confirmed as {confirmed!r} of the processor, now it is told "
            f"as {told!r}; nothing was written",
            payment_id=payment_id,
            processor_transaction_id=confirmed,
            told=told,
        )


class RefundNotPending(WrongState):
    """The refund is in another state than this needs."""

    def __init__(self, *, refund_id: str, status: str) -> None:
        super().__init__(
            f"refund {refund_id} is {status}; only a pending one can do this",
            refund_id=refund_id,
            status=status,
        )


class RefundConfirmedOtherwise(WrongState):
    """The refund was confirmed before, with another id of the processor."""

    def __init__(self, *, refund_id: str, confirmed: str, told: str) -> None:
        super().__init__(
            f"refund {refund_id} was confirmed as {confirmed!r} of the processor, now it is told "
            f"as {told!r}; nothing was written",
            refund_id=refund_id,
            gateway_refund_id=confirmed,
            told=told,
        )


class RefundExceedsPayment(WrongState):
    """The refunds of a payment would be more than the payment."""

    def __init__(
        self, *, payment_id: str, amount_minor: int, paid_minor: int, refunded_minor: int
    ) -> None:
        super().__init__(
            f"of payment {payment_id} over {paid_minor}, {refunded_minor} are refunded or being "
            f"refunded; at most {paid_minor - refunded_minor} more can be, not {amount_minor}",
            payment_id=payment_id,
            amount=amount_minor,
            paid=paid_minor,
            refunded=refunded_minor,
            refundable=paid_minor - refunded_minor,
        )
