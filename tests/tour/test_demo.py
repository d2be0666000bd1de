"""``billing demo``, as a newcomer starts it: it checks its figures, and fails if one is wrong."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
SECONDS = 120


def test_the_demo_runs_and_every_figure_is_as_foreseen() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    done = subprocess.run(
        [str(BIN / "billing"), "demo"],
        env={**environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for title in ("The billing run", "What it has, can spend and owes", "Its credits"):
        assert title in done.stdout
    assert "debits less credits: 0" in done.stdout
    assert "nothing was billed twice" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
