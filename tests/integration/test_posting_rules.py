"""The rules of posting are told twice, by the domain and the database: here they are compared."""

from collections import Counter
from itertools import product

from asyncpg import IntegrityConstraintViolationError

from billing.domain.ledger import (
    POSTING_RULES,
    LedgerAccountKind,
    LedgerEntryType,
    PostingRule,
)
from tests.factories.entry_kit import make_entry_kit
from tests.factories.ledger_book import Connection, LedgerBook, Row, insert

SIGNS = (1, 0, -1)
# A type's sign and its accounts are two guards of the database: either may say no.
MAY_BE_ZERO = {LedgerEntryType.USAGE_COST, LedgerEntryType.USAGE_COST_CORRECTED}
REFUSING_CONSTRAINTS = {"ck_ledger_entries_entry_type", "ck_ledger_entries_two_accounts"}


class Undone(Exception):
    """Takes an accepted entry back."""


async def verdict_on(connection: Connection, entry: Row) -> str:
    """Return "accepted", "refused", or what else was wrong; the entry is not kept."""
    try:
        async with connection.transaction():
            await insert(connection, "ledger_entries", entry)
            raise Undone
    except Undone:
        return "accepted"
    except IntegrityConstraintViolationError as refusal:
        by_rule = refusal.constraint_name in REFUSING_CONSTRAINTS or "cannot debit" in str(refusal)
        return "refused" if by_rule else str(refusal)


def follows_the_rules(rule: PostingRule, amount: int) -> bool:
    """Whether the domain has the rule, and it is of an amount like this."""
    if amount == 0 and rule.entry_type not in MAY_BE_ZERO:
        return False
    return rule in POSTING_RULES


async def test_the_database_accepts_exactly_what_the_rules_say(
    app: Connection, book: LedgerBook
) -> None:
    """Of all types, signs and pairs of accounts; what has a rule agrees with its sources too."""
    kit = await make_entry_kit(app, book)
    kinds = tuple(LedgerAccountKind)
    verdicts: Counter[str] = Counter()
    differing = []
    for entry_type, sign, debit, credit in product(LedgerEntryType, SIGNS, kinds, kinds):
        amount = sign * kit.size(entry_type)
        rule = PostingRule(entry_type, sign or -1, debit, credit)
        verdict = await verdict_on(app, kit.entry(rule, amount=amount))
        verdicts[verdict] += 1
        if verdict != ("accepted" if follows_the_rules(rule, amount) else "refused"):
            differing.append((rule, amount, verdict))
    assert differing == []
    tried = len(LedgerEntryType) * len(SIGNS) * len(kinds) ** 2
    accepted = len(POSTING_RULES) + len(MAY_BE_ZERO)
    assert verdicts == {"accepted": accepted, "refused": tried - accepted}


async def test_every_type_has_a_rule() -> None:
    assert {rule.entry_type for rule in POSTING_RULES} == set(LedgerEntryType)
