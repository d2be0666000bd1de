"""The tables, as the code sees them. ``migrations/`` makes them; a test holds the two together.

Every key starts with ``(tenant_id, livemode)``: no reference can cross tenants or join live with
test data, and the schema can be distributed by ``tenant_id`` as it is. What SQLAlchemy cannot say
(row security, immutability, the accounts of an entry) is in the migrations.
"""

from billing.store.tables.billing import (
    billing_run_results,
    billing_runs,
    calculations,
    charges,
    invoice_requests,
    recalculation_documents,
    recalculations,
)
from billing.store.tables.catalog import components, plan_versions, plans, usage_meters
from billing.store.tables.columns import SCOPE, metadata
from billing.store.tables.credits import (
    usage_credit_applications,
    usage_credit_balance_adjustments,
    usage_credit_balances,
    usage_credits,
)
from billing.store.tables.ledger import (
    LEDGER_ENTRY_SOURCES,
    ledger_accounts,
    ledger_entries,
    ledger_transactions,
)
from billing.store.tables.payments import payments, refunds, write_offs
from billing.store.tables.subscriptions import billing_periods, subscriptions
from billing.store.tables.tenants import idempotent_requests, tenants
from billing.store.tables.usage import (
    subscription_usage_meters,
    usage_event_corrections,
    usage_events,
)

__all__ = [
    "LEDGER_ENTRY_SOURCES",
    "SCOPE",
    "billing_periods",
    "billing_run_results",
    "billing_runs",
    "calculations",
    "charges",
    "components",
    "idempotent_requests",
    "invoice_requests",
    "ledger_accounts",
    "ledger_entries",
    "ledger_transactions",
    "metadata",
    "payments",
    "plan_versions",
    "plans",
    "recalculation_documents",
    "recalculations",
    "refunds",
    "subscription_usage_meters",
    "subscriptions",
    "tenants",
    "usage_credit_applications",
    "usage_credit_balance_adjustments",
    "usage_credit_balances",
    "usage_credits",
    "usage_event_corrections",
    "usage_events",
    "usage_meters",
    "write_offs",
]
