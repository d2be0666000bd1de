"""What can be wrong with corrections, estimates, recalculations, write-offs.

See ``billing.domain.errors``.
"""

from billing.domain.errors import WrongState


class UsageEventAlreadyVoided(WrongState):
    """The event was voided, for good."""

    def __init__(self, *, usage_event_id: str) -> None:
        super().__init__(
            f"usage event {usage_event_id} is voided, for good; send the usage as a new event with "
            "a key of its own",
            usage_event_id=usage_event_id,
        )


class UsageEventUnchanged(WrongState):
    """The event counts with the quantity already."""

    def __init__(self, *, usage_event_id: str, quantity: str) -> None:
        super().__init__(
            f"usage event {usage_event_id} counts with the quantity {quantity} already",
            usage_event_id=usage_event_id,
            quantity=quantity,
        )


class BillingPeriodNotOpen(WrongState):
    """The billing period is billed: there is nothing left to estimate."""

    def __init__(self, *, billing_period_id: str, status: str) -> None:
        super().__init__(
            f"billing period {billing_period_id} is {status}; only an open one can be estimated",
            billing_period_id=billing_period_id,
            status=status,
        )


class EarlierPeriodOpen(WrongState):
    """An earlier billing period of the subscription has first claim on its credits."""

    def __init__(self, *, billing_period_id: str, earlier_period_id: str) -> None:
        super().__init__(
            f"billing period {earlier_period_id} comes before {billing_period_id} and is not "
            "billed yet; bill it first, or estimate that one",
            billing_period_id=billing_period_id,
            earlier_period_id=earlier_period_id,
        )


class SubscriptionHasNoOpenPeriod(WrongState):
    """The subscription is cancelled, and all its billing periods are billed."""

    def __init__(self, *, subscription_id: str) -> None:
        super().__init__(
            f"subscription {subscription_id} has no open billing period to estimate",
            subscription_id=subscription_id,
        )


class BillingPeriodNotInvoiced(WrongState):
    """The billing period is open, or its invoice is not delivered yet."""

    def __init__(self, *, billing_period_id: str, status: str, action: str) -> None:
        super().__init__(
            f"billing period {billing_period_id} is {status}; only an invoiced one can be {action}",
            billing_period_id=billing_period_id,
            status=status,
        )


class RecalculationNotDelivered(WrongState):
    """A document of an earlier recalculation has not reached the invoicing service yet."""

    def __init__(self, *, billing_period_id: str, recalculation_id: str, document_id: str) -> None:
        super().__init__(
            f"{document_id} of recalculation {recalculation_id} is not delivered to the invoicing "
            f"service yet; billing period {billing_period_id} can be recalculated after that",
            billing_period_id=billing_period_id,
            recalculation_id=recalculation_id,
            document_id=document_id,
        )


class RecalculationDocumentDelivered(WrongState):
    """The invoicing service has the document: there is nothing to see to by hand."""

    def __init__(self, *, recalculation_document_id: str, document_id: str) -> None:
        super().__init__(
            f"document {recalculation_document_id} is delivered already, as {document_id}",
            recalculation_document_id=recalculation_document_id,
            document_id=document_id,
        )


class WriteOffExceedsReceivable(WrongState):
    """More is to be given up than the billing period owes."""

    def __init__(self, *, billing_period_id: str, amount_minor: int, receivable_minor: int) -> None:
        super().__init__(
            f"billing period {billing_period_id} owes {receivable_minor}: {amount_minor} cannot be "
            "written off",
            billing_period_id=billing_period_id,
            amount=amount_minor,
            receivable=receivable_minor,
        )


class WriteOffExceeded(WrongState):
    """More is to be recovered than is left of the write-off."""

    def __init__(self, *, write_off_id: str, amount_minor: int, left_minor: int) -> None:
        super().__init__(
            f"{left_minor} is left of write-off {write_off_id}: {amount_minor} cannot be recovered",
            write_off_id=write_off_id,
            amount=amount_minor,
            left=left_minor,
        )
