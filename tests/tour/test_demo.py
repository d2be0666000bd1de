"""``billing demo``, as a newcomer starts it: it checks its figures, and fails if one is wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.factories.journal import read_journal

BIN = Path(sys.executable).parent
SECONDS = 240


def test_the_demo_runs_and_every_figure_is_as_foreseen(tmp_path: Path) -> None:
    journal = tmp_path / "demo.journal"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    done = subprocess.run(
        [str(BIN / "billing"), "demo", "--export", str(journal)],
        env={**environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for title in (
        "The billing run",
        "What it has, can spend and owes",
        "Its credits",
        "The statement of that period",
        "One line of that invoice, explained",
    ):
        assert title in done.stdout
    assert "debits less credits: 0" in done.stdout
    assert "nothing was billed twice" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    require_balanced(journal)


def require_balanced(journal: Path) -> None:
    """Assert that the books of the demonstration balance; hledger is asked too, if it is here."""
    totals = read_journal(journal.read_text("utf-8")).totals()
    assert {commodity for _, commodity in totals} == {"EUR", "JPY", "USD"}
    for commodity in ("EUR", "JPY", "USD"):
        ours = [both for (_, each), both in totals.items() if each == commodity]
        assert sum(debit for debit, _ in ours) == sum(credit for _, credit in ours)
    hledger = shutil.which("hledger")
    if hledger is not None:
        subprocess.run([hledger, "--file", str(journal), "check", "--strict"], check=True)
