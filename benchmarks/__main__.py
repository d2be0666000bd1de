"""Runs every figure, and writes them down with the machine they were measured on."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

FIGURES = (
    "ingestion",
    "realtime_ingestion",
    "billing_run",
    "grants",
    "unary",
    "balance",
    "start_up",
)
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
INTRODUCTION = """# Performance

Measured by `make bench`, each figure against a floor in the same run: for ingestion, billing,
grants and balances bare asyncpg that writes or reads the same rows (and makes the same invoice
calls with a bare stub), for unary calls a bare grpc.aio server that reads the same row, for
start-up an interpreter that imports gRPC and asyncpg. In real-time ingestion credits pay the usage
in the call that brings it. Balances are of one subscription with so many ledger entries. Client,
service, PostgreSQL and invoicing server share the machine's cores, and PostgreSQL commits durably.
A ratio of 1 is the floor. A busy machine lowers every figure.

"""


def main() -> None:
    """Run the figures one after the other; exit with 1 if one fails."""
    lines: list[str] = []
    for name in FIGURES:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"],
            stdout=subprocess.PIPE,
            env={**os.environ, "GRPC_VERBOSITY": "ERROR"},  # its remarks on forks are no figures
            text=True,
            check=False,
        )
        sys.stdout.write(done.stdout)
        sys.stdout.flush()
        if done.returncode != 0:
            raise SystemExit(1)
        lines += [
            line for line in done.stdout.splitlines() if line.startswith(("figure:", "note:"))
        ]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(INTRODUCTION + _machine() + "\n```\n" + "\n".join(lines) + "\n```\n")


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        "embedded PostgreSQL 18.\n"
    )


if __name__ == "__main__":
    main()
