"""Everything that can be wrong with a request, as state phrases that carry their data.

No status codes here: ``billing.api.errors`` maps the families below to the transport.
"""

import re
from datetime import datetime


class BillingError(Exception):
    """Base of all errors that a caller can act on.

    ``metadata`` holds the data of the error as text, for programs; ``str(error)`` is for people.
    """

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}

    @property
    def reason(self) -> str:
        """The stable reason of the error: its name in UPPER_SNAKE_CASE."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).upper()


class NotFound(BillingError):
    """Family: a named thing does not exist in the tenant."""


class InvalidInput(BillingError):
    """Family: a field of the request is wrong whatever the state."""

    def __init__(self, field: str, message: str, **metadata: object) -> None:
        super().__init__(f"{field}: {message}", field=field, **metadata)
        self.field = field
        self.description = message


class WrongState(BillingError):
    """Family: the request is fine, the state of things is not."""


class AlreadyExists(BillingError):
    """Family: another thing has the name."""


class Unavailable(BillingError):
    """Family: a part that the service needs does not answer; a retry helps."""


class ResourceNotFound(NotFound):
    """A named thing does not exist in the tenant."""

    def __init__(self, *, kind: str, resource_id: str) -> None:
        super().__init__(
            f"{kind} {resource_id} does not exist in this tenant",
            resource_type=kind,
            resource_id=resource_id,
        )

    @property
    def reason(self) -> str:
        """For example ``SUBSCRIPTION_NOT_FOUND``."""
        words = re.split(r"[ -]", self.metadata["resource_type"].upper())
        return f"{'_'.join(words)}_NOT_FOUND"


class FieldInvalid(InvalidInput):
    """A field breaks its rule."""


class RequestIdReused(InvalidInput):
    """The request_id was used before with other content."""

    def __init__(self, *, request_id: str, method: str) -> None:
        super().__init__(
            "request_id",
            f"{request_id!r} was used before for {method} with other content; "
            "use a new request_id for a new request",
            request_id=request_id,
            method=method,
        )


class PageTokenInvalid(InvalidInput):
    """The page token was not made for this list and these filters."""

    def __init__(self) -> None:
        super().__init__(
            "page_token",
            "was not made for this list with these filters; start again without page_token",
        )


class AmountOutOfRange(WrongState):
    """An amount is larger than the ledger can hold."""

    def __init__(self, *, amount_minor: int, limit_minor: int) -> None:
        super().__init__(
            f"the amount {amount_minor} exceeds the limit of {limit_minor} minor units",
            amount=amount_minor,
            limit=limit_minor,
        )


class UsageMeterCodeTaken(AlreadyExists):
    """Another usage meter of the tenant has the code."""

    def __init__(self, *, code: str) -> None:
        super().__init__(f"another usage meter of this tenant has the code {code!r}", code=code)


class SubscriptionNotActive(WrongState):
    """The subscription is paused or cancelled."""

    def __init__(self, *, subscription_id: str, status: str) -> None:
        super().__init__(
            f"subscription {subscription_id} is {status}; only an active one can do this",
            subscription_id=subscription_id,
            status=status,
        )


class SubscriptionNotPaused(WrongState):
    """Only a paused subscription can be resumed."""

    def __init__(self, *, subscription_id: str, status: str) -> None:
        super().__init__(
            f"subscription {subscription_id} is {status}; only a paused one can be resumed",
            subscription_id=subscription_id,
            status=status,
        )


class SubscriptionCancelling(WrongState):
    """The subscription ends with its last billing period, which must still be billed."""

    def __init__(self, *, subscription_id: str, cancel_at: datetime) -> None:
        super().__init__(
            f"subscription {subscription_id} is being cancelled at {cancel_at.isoformat()}; "
            "it cannot be paused before",
            subscription_id=subscription_id,
            cancel_at=cancel_at.isoformat(),
        )


class SubscriptionAlreadyCancelled(WrongState):
    """The subscription is over for good."""

    def __init__(self, *, subscription_id: str, cancelled_at: datetime | None) -> None:
        super().__init__(
            f"subscription {subscription_id} was cancelled at {cancelled_at}",
            subscription_id=subscription_id,
            cancelled_at=cancelled_at,
        )


class NoBillingPeriodDue(WrongState):
    """The subscription has no billing period that can be billed now."""

    def __init__(self, *, subscription_id: str, current_period_end: datetime) -> None:
        super().__init__(
            f"subscription {subscription_id} has no billing period to bill: "
            f"the current one ends at {current_period_end.isoformat()}",
            subscription_id=subscription_id,
            current_period_end=current_period_end.isoformat(),
        )


class BillingPeriodTaken(WrongState):
    """A running billing run has the subscription's due period."""

    def __init__(self, *, subscription_id: str, run_id: str) -> None:
        super().__init__(
            f"the due billing period of subscription {subscription_id} is being billed by {run_id}",
            subscription_id=subscription_id,
            run_id=run_id,
        )


class EarlierPeriodNotBilled(WrongState):
    """An earlier billing period of the subscription has to be billed first, and could not be."""

    def __init__(self, *, subscription_id: str) -> None:
        super().__init__(
            f"an earlier billing period of {subscription_id} could not be billed; "
            "mend its cause, and the next run bills both in order",
            subscription_id=subscription_id,
        )


class SubscriptionUnbillable(WrongState):
    """Billing the subscription failed in a way nobody foresaw; the log tells more."""

    def __init__(self, *, subscription_id: str) -> None:
        super().__init__(
            f"{subscription_id} could not be billed because of an internal error; "
            "the server's log holds the details, and the next run tries again",
            subscription_id=subscription_id,
        )


class UsageDiffersFromLedger(WrongState):
    """The rated usage of a period is not the charge of its quantity: an internal contradiction."""

    def __init__(self, *, component_id: str, charge_minor: int, rated_minor: int) -> None:
        super().__init__(
            f"component {component_id}: the ledger holds {rated_minor} for the period, but its "
            f"quantity is charged with {charge_minor}; nothing was billed",
            component_id=component_id,
            charge=charge_minor,
            rated=rated_minor,
        )


class ConflictsPersist(Unavailable):
    """Concurrent changes of the same data got in each other's way, several times in a row."""

    def __init__(self) -> None:
        super().__init__(
            "others change the same data at the moment; nothing was written, try again"
        )


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer."""

    def __init__(self) -> None:
        super().__init__("the database does not answer; try again")


class InvoicingUnavailable(Unavailable):
    """The invoicing service does not answer, or keeps failing.

    ``answered`` tells the one from the other: whether the last attempt had an answer of its own.
    ``asked_for`` is "invoice", or in a word or two what else was asked for.
    """

    def __init__(
        self,
        *,
        detail: str,
        attempts_count: int,
        answered: bool = False,
        asked_for: str = "invoice",
    ) -> None:
        what_now = (
            "the period stays billed and the next run sends the same invoice again"
            if asked_for == "invoice"
            else f"nothing is lost: ask for the same {asked_for} again"
        )
        super().__init__(
            f"the invoicing service failed {attempts_count} times, last with {detail}; {what_now}",
            detail=detail,
            attempts=attempts_count,
        )
        self.answered = answered


class InvoiceNotDelivered(WrongState):
    """Asking for the invoice failed in a way nobody foresaw; the log tells more."""

    def __init__(self, *, detail: str) -> None:
        super().__init__(
            f"asking for the invoice failed with an internal error ({detail}); the period stays "
            "billed, the server's log holds the details, and the next run sends it again",
            detail=detail,
        )


class InvoiceRefused(WrongState):
    """The invoicing service does not accept the invoice, or what is asked about one.

    ``asked_for`` is "invoice", or in a word or two what else was asked for.
    """

    def __init__(self, *, detail: str, asked_for: str = "invoice") -> None:
        what_now = (
            "the period stays billed: mend the cause, and the next run sends it again"
            if asked_for == "invoice"
            else "what is posted stays: mend the cause, then ask for it again"
        )
        super().__init__(
            f"the invoicing service refused the {asked_for} with {detail}; {what_now}",
            detail=detail,
        )
