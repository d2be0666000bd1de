"""The first schema: queue, tables, guards, security.

Revision ID: 0001
Revises:
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    """Make everything, in one transaction."""
    for part in ("queue", "tables", "guards", "security"):
        _execute_script((_SQL / f"0001_{part}.sql").read_text("utf-8"))


def _execute_script(script: str) -> None:
    """Send a script as it is: SQLAlchemy would prepare it, which takes one statement alone."""
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.run_async(lambda driver: driver.execute(script))


def downgrade() -> None:
    """Refuse: migrations go forward only."""
    raise NotImplementedError("migrations go forward only; restore a backup instead")
