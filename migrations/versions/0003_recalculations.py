"""Recalculations, estimates, corrections of usage, write-offs.

Revision ID: 0003
Revises: 0002
"""

from billing.store.migrations import run_scripts

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their tables, and what the ledger needs for them."""
    run_scripts("0003_tables", "0003_guards", "0003_security")


def downgrade() -> None:
    """Refuse: migrations go forward only."""
    raise NotImplementedError("migrations go forward only; restore a backup instead")
