"""Credits, payments, refunds.

Revision ID: 0002
Revises: 0001
"""

from billing.store.migrations import run_scripts

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their tables, and what the ledger needs for them."""
    run_scripts("0002_tables", "0002_guards", "0002_security")


def downgrade() -> None:
    """Refuse: migrations go forward only."""
    raise NotImplementedError("migrations go forward only; restore a backup instead")
