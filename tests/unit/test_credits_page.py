"""docs/credits.md and docs/recalculations.md tell the posting rules as they are."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from billing.domain.credits import UsageCreditType
from billing.domain.ledger import POSTING_RULES, LedgerEntryType
from billing.domain.payments import RefundCreditPolicy

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = (DOCS / "credits.md").read_text("utf-8")
OF_USAGE_AND_CHARGES: Final = {LedgerEntryType.USAGE_COST, LedgerEntryType.CHARGE_BILLED}
OF_CORRECTIONS: Final = {
    LedgerEntryType.USAGE_COST_CORRECTED,
    LedgerEntryType.BILLING_ADJUSTMENT,
    LedgerEntryType.RECEIVABLE_WRITTEN_OFF,
}
ROW: Final = re.compile(r"^\| .+ \| `(\w+)` \| ([+-]) \| ([a-z ]+) \| ([a-z ]+) \|$", re.MULTILINE)


def test_every_posting_rule_of_credits_is_told_once() -> None:
    others = OF_USAGE_AND_CHARGES | OF_CORRECTIONS
    require_told(PAGE, {each for each in LedgerEntryType if each not in others})


def test_every_posting_rule_of_corrections_is_told_once() -> None:
    require_told((DOCS / "recalculations.md").read_text("utf-8"), OF_CORRECTIONS)


def require_told(page: str, entry_types: Collection[LedgerEntryType]) -> None:
    """Assert that a page tells the rules of these types, each once, and no others."""
    told = [
        (entry, int(f"{sign}1"), debit.replace(" ", "_"), credit.replace(" ", "_"))
        for entry, sign, debit, credit in ROW.findall(page)
    ]
    rules = {
        (rule.entry_type.value, rule.sign, rule.debit.value, rule.credit.value)
        for rule in POSTING_RULES
        if rule.entry_type in entry_types
    }
    assert set(told) == rules
    assert len(told) == len(rules)


def test_every_type_of_credit_and_policy_of_refunds_is_told() -> None:
    for kind in UsageCreditType:
        assert kind.value.removeprefix("granted_").replace("_", " ") in PAGE
    for policy in RefundCreditPolicy:
        assert f"`{policy.value.upper()}`" in PAGE


def test_the_readme_leads_here() -> None:
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    assert "(docs/credits.md)" in readme
    assert "(docs/recalculations.md)" in readme
