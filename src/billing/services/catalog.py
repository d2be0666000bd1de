"""Use cases of the catalog: usage meters and plans."""

from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.catalog import (
    Component,
    Plan,
    PlanTerms,
    PlanVersion,
    UsageAggregation,
    UsageMeter,
)
from billing.domain.errors import FieldInvalid
from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.ports import Clock
from billing.store.catalog import CatalogStore
from billing.store.database import Database, retried_on_conflict
from billing.store.ledger_accounts import LedgerAccountStore
from billing.store.tenants import TenantStore


class CatalogService:
    """Keeps usage meters, plans and their published versions."""

    def __init__(
        self,
        database: Database,
        catalog: CatalogStore,
        accounts: LedgerAccountStore,
        tenants: TenantStore,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._accounts = accounts
        self._tenants = tenants
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def create_usage_meter(
        self,
        scope: Scope,
        *,
        code: str,
        name: str,
        aggregation: UsageAggregation,
        request: IdempotentRequest | None = None,
    ) -> UsageMeter:
        """Create a meter; raises UsageMeterCodeTaken."""
        async with self._database.transaction(scope) as tx:
            answer = await self._idempotency.find_answer(tx, request, UsageMeter)
            if answer is not None:
                return answer
            now = self._clock()
            meter = UsageMeter(identifiers.new_id(), code, name, aggregation, now)
            await self._tenants.insert_tenant(tx, now=now)
            # Before the meter, whose code would tell a concurrent repeat that it is taken.
            await self._idempotency.store_answer(tx, request, meter, now=now)
            await self._catalog.insert_usage_meter(tx, meter)
            return meter

    async def get_usage_meter(self, scope: Scope, usage_meter_id: UUID) -> UsageMeter:
        """Return a meter; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._catalog.get_usage_meter(tx, usage_meter_id)

    async def list_usage_meters(self, scope: Scope, page: PageRequest) -> Page[UsageMeter]:
        """Return a page of meters, oldest first."""
        async with self._database.transaction(scope) as tx:
            return await self._catalog.list_usage_meters(tx, page)

    @retried_on_conflict
    async def create_plan(
        self,
        scope: Scope,
        *,
        currency: str,
        terms: PlanTerms,
        request: IdempotentRequest | None = None,
    ) -> Plan:
        """Create a plan with version 1; raises ResourceNotFound for an unknown meter."""
        _require_one_component_per_meter(terms)
        async with self._database.transaction(scope) as tx:
            answer = await self._idempotency.find_answer(tx, request, Plan)
            if answer is not None:
                return answer
            now = self._clock()
            await self._catalog.require_usage_meters(tx, _meters_of(terms))
            plan_id = identifiers.new_id()
            version = _publish(plan_id, 1, currency, terms, now=now)
            plan = Plan(plan_id, currency, version, now)
            await self._tenants.insert_tenant(tx, now=now)
            await self._catalog.insert_plan(tx, plan)
            await self._accounts.insert_tenant_accounts(tx, currency=currency, now=now)
            await self._idempotency.store_answer(tx, request, plan, now=now)
            return plan

    @retried_on_conflict
    async def update_plan(
        self,
        scope: Scope,
        plan_id: UUID,
        *,
        terms: PlanTerms,
        request: IdempotentRequest | None = None,
    ) -> Plan:
        """Publish the next version; raises ResourceNotFound for an unknown plan or meter."""
        _require_one_component_per_meter(terms)
        async with self._database.transaction(scope) as tx:
            answer = await self._idempotency.find_answer(tx, request, Plan)
            if answer is not None:
                return answer
            now = self._clock()
            plan = await self._catalog.lock_plan(tx, plan_id)
            await self._catalog.require_usage_meters(tx, _meters_of(terms))
            number = plan.latest_version.version + 1
            version = _publish(plan.id, number, plan.currency, terms, now=now)
            await self._catalog.insert_plan_version(tx, version)
            updated = Plan(plan.id, plan.currency, version, plan.created_at)
            await self._idempotency.store_answer(tx, request, updated, now=now)
            return updated

    async def get_plan(self, scope: Scope, plan_id: UUID) -> Plan:
        """Return a plan with its latest version; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._catalog.get_plan(tx, plan_id)

    async def list_plans(self, scope: Scope, page: PageRequest) -> Page[Plan]:
        """Return a page of plans, oldest first."""
        async with self._database.transaction(scope) as tx:
            return await self._catalog.list_plans(tx, page)

    async def list_plan_versions(
        self, scope: Scope, plan_id: UUID, page: PageRequest
    ) -> Page[PlanVersion]:
        """Return a page of a plan's versions, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._catalog.list_plan_versions(tx, plan_id, page)


def _meters_of(terms: PlanTerms) -> set[UUID]:
    return {component.usage_meter_id for component in terms.components}


def _require_one_component_per_meter(terms: PlanTerms) -> None:
    """An event of a meter has one cost, so it must have one price."""
    seen: set[UUID] = set()
    for index, component in enumerate(terms.components):
        if component.usage_meter_id in seen:
            raise FieldInvalid(
                f"version.components[{index}].usage_meter_id",
                "is priced by another component of the plan; one component a meter",
            )
        seen.add(component.usage_meter_id)


def _publish(
    plan_id: UUID, number: int, currency: str, terms: PlanTerms, *, now: datetime
) -> PlanVersion:
    return PlanVersion(
        id=identifiers.new_id(),
        plan_id=plan_id,
        version=number,
        name=terms.name,
        base_price_minor=terms.base_price_minor,
        currency=currency,
        interval=terms.interval,
        components=tuple(
            Component(
                identifiers.new_id(), c.usage_meter_id, c.name, c.unit_price, c.included_units
            )
            for c in terms.components
        ),
        created_at=now,
        late_usage_policy=terms.late_usage_policy,
    )
