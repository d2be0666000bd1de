"""The first schema: queue, tables, guards, security.

Revision ID: 0001
Revises:
"""

from billing.store.migrations import run_scripts

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make everything."""
    run_scripts("0001_queue", "0001_tables", "0001_guards", "0001_security")


def downgrade() -> None:
    """Refuse: migrations go forward only."""
    raise NotImplementedError("migrations go forward only; restore a backup instead")
