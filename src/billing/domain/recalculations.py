"""Recalculations of billed periods: what they changed, and what the invoicing service is told."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import (
    Calculation,
    Charge,
    ChargeType,
    single_charge,
    usage_description,
)
from billing.domain.calculations import KeptCalculation
from billing.domain.catalog import Component
from billing.domain.money import EXACT, checked_amount
from billing.domain.rating import ZERO, billable_units, charge_minor
from billing.domain.usage import UsageTally


class RecalculationDocumentKind(StrEnum):
    """What a recalculation asks of the invoicing service."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class RecalculationDocument:
    """An additional invoice, a credit note, or the void of an additional invoice.

    ``amount_minor`` is what it adds to what is invoiced: negative for credit notes and voids.
    ``invoice_id`` is of the invoice that it takes back from, empty for an invoice;
    ``document_id`` is the invoicing service's id of it, empty until it is delivered.
    """

    id: UUID
    recalculation_id: UUID
    kind: RecalculationDocumentKind
    amount_minor: int
    currency: str
    invoice_id: str
    document_id: str
    delivered_at: datetime | None
    failure: str

    @property
    def typeid(self) -> str:
        """The id as callers know it; it is the key of the request, too."""
        return identifiers.to_typeid(identifiers.RECALCULATION_DOCUMENT, self.id)


@dataclass(frozen=True, slots=True)
class Recalculation:
    """One recalculation of a billed period; its id is its calculation run's.

    In minor units: ``raw_change_minor`` and ``credits_change_minor`` are new less old, of usage and
    of the credits that pay it; ``net_change_minor`` is what the customer owes more. To keep the
    period's receivable from falling below zero, write-offs were recovered, settlements released,
    and the rest became a surplus credit.
    """

    id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    ledger_transaction_id: UUID
    currency: str
    reason: str
    raw_change_minor: int
    credits_change_minor: int
    net_change_minor: int
    recovered_minor: int
    released_minor: int
    surplus_minor: int
    created_at: datetime
    documents: tuple[RecalculationDocument, ...] = ()

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.CALCULATION_RUN, self.id)


@dataclass(frozen=True, slots=True)
class ComponentChange:
    """What one component costs from now on, and what it cost until now, if it was calculated."""

    component: Component
    old: KeptCalculation | None
    new: Calculation

    @property
    def raw_change_minor(self) -> int:
        """What its usage costs more."""
        old_minor = self.old.total_raw_usage_minor if self.old else 0
        return self.new.total_raw_usage_minor - old_minor

    @property
    def units_change(self) -> Decimal:
        """How many units more are charged."""
        return EXACT.subtract(
            self.new.billable_quantity, self.old.billable_quantity if self.old else ZERO
        )

    @property
    def is_none(self) -> bool:
        """Whether the component is as it was."""
        return self.old is not None and (
            self.new.total_quantity,
            self.new.total_raw_usage_minor,
            self.new.credits_applied_minor,
        ) == (
            self.old.total_quantity,
            self.old.total_raw_usage_minor,
            self.old.credits_applied_minor,
        )


def compare_components(
    components: Iterable[Component],
    tallies: Mapping[UUID, UsageTally],
    active: Iterable[KeptCalculation],
    credits_change_minor: Mapping[UUID, int],
) -> Iterator[ComponentChange]:
    """Yield what each component costs as its usage and its credits are now.

    Components without usage that were not calculated before are left out.
    """
    old = {calculation.component_id: calculation for calculation in active}
    for component in components:
        before, tally = old.get(component.id), tallies.get(component.id)
        if before is None and tally is None:
            continue
        quantity = tally.quantity if tally else ZERO
        credits_minor = before.credits_applied_minor if before else 0
        yield ComponentChange(
            component,
            before,
            Calculation(
                id=identifiers.new_id(),
                component_id=component.id,
                usage_meter_id=component.usage_meter_id,
                total_quantity=quantity,
                billable_quantity=billable_units(component, quantity),
                unit_price=component.unit_price,
                total_raw_usage_minor=charge_minor(component, quantity),
                credits_applied_minor=credits_minor + credits_change_minor.get(component.id, 0),
            ),
        )


def adjustment_charges(
    changes: Iterable[ComponentChange], *, credits_change_minor: int, carried_minor: int
) -> list[Charge]:
    """Return the lines about what changed; they add up to what is invoiced more."""
    charges = [
        Charge(
            id=identifiers.new_id(),
            charge_type=ChargeType.USAGE,
            component_id=change.component.id,
            description="Correction: "
            + usage_description(change.component, change.new.total_quantity),
            quantity=change.units_change,
            unit_price=change.component.unit_price,
            amount_minor=change.raw_change_minor,
        )
        for change in changes
        if change.raw_change_minor != 0
    ]
    if credits_change_minor != 0:
        label = "Credits applied" if credits_change_minor > 0 else "Credits released"
        charges.append(single_charge(ChargeType.CREDIT, label, -credits_change_minor))
    if carried_minor != 0:
        charges.append(single_charge(ChargeType.CARRIED, "Carried to credit", carried_minor))
    return charges


def invoiced_change(total_minor: int, net_change_minor: int) -> int:
    """Return what is invoiced more when a total changes: below zero, nothing is invoiced.

    Raises AmountOutOfRange for a total that no invoice can hold.
    """
    changed_minor = checked_amount(total_minor + net_change_minor)
    return max(0, changed_minor) - max(0, total_minor)


class IssuedInvoice(NamedTuple):
    """An invoice of a billing period, with what of it nothing has taken back, in minor units.

    ``is_paid`` tells whether a payment names it.
    """

    invoice_id: str
    amount_minor: int
    left_minor: int
    is_additional: bool
    is_paid: bool = False


def plan_documents(
    change_minor: int, invoices: Sequence[IssuedInvoice], *, receivable_minor: int
) -> Iterator[tuple[RecalculationDocumentKind, int, str]]:
    """Yield what to ask for, as (kind, amount, invoice), when so much more is invoiced.

    ``invoices`` are the newest first; ``receivable_minor`` is what the period owed before. An
    additional invoice that is taken back whole before anybody paid it is voided.
    """
    if change_minor > 0:
        yield RecalculationDocumentKind.INVOICE, change_minor, ""
    left_minor = max(0, -change_minor)
    for invoice in invoices:
        taken_minor = min(left_minor, invoice.left_minor)
        if taken_minor <= 0:
            continue
        is_whole = taken_minor == invoice.amount_minor == invoice.left_minor
        is_unpaid = not invoice.is_paid and receivable_minor >= taken_minor
        is_void = invoice.is_additional and is_whole and is_unpaid
        left_minor -= taken_minor
        receivable_minor -= taken_minor
        kind = RecalculationDocumentKind.VOID if is_void else RecalculationDocumentKind.CREDIT_NOTE
        yield kind, -taken_minor, invoice.invoice_id
    assert left_minor == 0, "what is taken back was invoiced"
