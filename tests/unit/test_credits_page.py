"""docs/credits.md tells the posting rules as they are."""

import re
from pathlib import Path
from typing import Final

from billing.domain.credits import UsageCreditType
from billing.domain.ledger import POSTING_RULES, LedgerEntryType
from billing.domain.payments import RefundCreditPolicy

PAGE: Final = (Path(__file__).parents[2] / "docs" / "credits.md").read_text("utf-8")
OF_USAGE_AND_CHARGES: Final = {LedgerEntryType.USAGE_COST, LedgerEntryType.CHARGE_BILLED}
ROW: Final = re.compile(r"^\| .+ \| `(\w+)` \| ([+-]) \| ([a-z ]+) \| ([a-z ]+) \|$", re.MULTILINE)


def test_every_posting_rule_of_credits_is_told_once() -> None:
    told = [
        (entry, int(f"{sign}1"), debit.replace(" ", "_"), credit.replace(" ", "_"))
        for entry, sign, debit, credit in ROW.findall(PAGE)
    ]
    rules = {
        (rule.entry_type.value, rule.sign, rule.debit.value, rule.credit.value)
        for rule in POSTING_RULES
        if rule.entry_type not in OF_USAGE_AND_CHARGES
    }
    assert set(told) == rules
    assert len(told) == len(rules)


def test_every_type_of_credit_and_policy_of_refunds_is_told() -> None:
    for kind in UsageCreditType:
        assert kind.value.removeprefix("granted_").replace("_", " ") in PAGE
    for policy in RefundCreditPolicy:
        assert f"`{policy.value.upper()}`" in PAGE


def test_the_readme_leads_here() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert "(docs/credits.md)" in readme
