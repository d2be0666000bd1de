"""Ids: UUID v7 inside, TypeIDs (https://github.com/jetify-com/typeid) outside.

A TypeID is the noun's prefix and the UUID in Crockford base 32: ``sub_01h455vb4pex5vsknk084sn02q``.
"""

import uuid
from datetime import UTC, datetime
from typing import Final

import uuid_utils.compat

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
_VALUES: Final = {pair: value for value, pair in enumerate(_PAIRS)}
_SUFFIX_LENGTH: Final = 26
_PAIR_SHIFTS: Final = tuple(range(120, -1, -10))

BILLING_PERIOD: Final = "period"
BILLING_RUN: Final = "run"
BILLING_RUN_RESULT: Final = "result"
CALCULATION: Final = "calc"
CALCULATION_RUN: Final = "calcrun"
CHARGE: Final = "charge"
COMPONENT: Final = "component"
CREDIT_APPLICATION: Final = "creditapp"
CREDIT_BALANCE_ADJUSTMENT: Final = "creditadj"
CREDIT_EXPIRATION: Final = "expiry"
INGESTION: Final = "ingest"
LEDGER_ACCOUNT: Final = "account"
LEDGER_ENTRY: Final = "entry"
LEDGER_TRANSACTION: Final = "txn"
PAYMENT: Final = "payment"
PLAN: Final = "plan"
PLAN_VERSION: Final = "planver"
RECALCULATION_DOCUMENT: Final = "recalcdoc"
REFUND: Final = "refund"
SUBSCRIPTION: Final = "sub"
SUBSCRIPTION_USAGE_METER: Final = "submeter"
USAGE_CREDIT: Final = "credit"
USAGE_EVENT: Final = "usage"
USAGE_EVENT_CORRECTION: Final = "usagecorr"
USAGE_METER: Final = "meter"
WRITE_OFF: Final = "writeoff"


class MalformedId(ValueError):
    """The text is no TypeID with the expected prefix."""


def new_id() -> uuid.UUID:
    """Return a new UUID v7: ids made later by this process sort after it."""
    return uuid_utils.compat.uuid7()


def made_at(value: uuid.UUID) -> datetime:
    """Return when a UUID v7 was made, by the clock of the process that made it."""
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)


def earliest_id(moment: datetime) -> uuid.UUID:
    """Return what sorts before every UUID v7 that is made from the moment on."""
    return uuid.UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


def to_typeid(prefix: str, value: uuid.UUID) -> str:
    """Return the TypeID of ``value``."""
    number = value.int
    return f"{prefix}_" + "".join([_PAIRS[(number >> shift) & 1023] for shift in _PAIR_SHIFTS])


def from_typeid(prefix: str, text: str) -> uuid.UUID:
    """Return the UUID in ``text``; raises MalformedId."""
    head, _, suffix = text.rpartition("_")
    if head != prefix or len(suffix) != _SUFFIX_LENGTH or suffix[0] > "7":
        raise MalformedId(text)
    number = 0
    try:
        for start in range(0, _SUFFIX_LENGTH, 2):
            number = (number << 10) | _VALUES[suffix[start : start + 2]]
    except KeyError:
        raise MalformedId(text) from None
    return uuid.UUID(int=number)
