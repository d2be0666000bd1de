"""Usage meters, plans and plan versions."""

from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.catalog import (
    BillingInterval,
    Component,
    IntervalUnit,
    LateUsagePolicy,
    Plan,
    PlanVersion,
    UsageAggregation,
    UsageMeter,
)
from billing.domain.errors import ResourceNotFound, UsageMeterCodeTaken
from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope
from billing.store import tables
from billing.store.database import Transaction, violates
from billing.store.statements import in_scope, page_of, scope_values, to_page

_meters = tables.usage_meters
_plans = tables.plans
_versions = tables.plan_versions
_components = tables.components

_MAX_CACHED_VERSIONS: Final = 10_000


class CatalogStore:
    """Reads and writes ``usage_meters``, ``plans``, ``plan_versions`` and ``components``."""

    def __init__(self) -> None:
        # Published versions never change, so a copy in memory is never stale.
        self._versions: dict[tuple[Scope, UUID], PlanVersion] = {}

    async def insert_usage_meter(self, tx: Transaction, meter: UsageMeter) -> None:
        """Add a meter; raises UsageMeterCodeTaken."""
        try:
            await tx.sa.execute(
                sa.insert(_meters).values(
                    **scope_values(tx.scope),
                    id=meter.id,
                    code=meter.code,
                    name=meter.name,
                    aggregation=meter.aggregation,
                    created_at=meter.created_at,
                )
            )
        except sa.exc.IntegrityError as error:
            if violates(error, "uq_usage_meters_tenant_id_livemode_code"):
                raise UsageMeterCodeTaken(code=meter.code) from None
            raise

    async def get_usage_meter(self, tx: Transaction, usage_meter_id: UUID) -> UsageMeter:
        """Return a meter; raises ResourceNotFound."""
        row = (
            await tx.sa.execute(
                sa.select(_meters).where(
                    in_scope(_meters, tx.scope), _meters.c.id == usage_meter_id
                )
            )
        ).one_or_none()
        if row is None:
            raise _meter_not_found(usage_meter_id)
        return _to_meter(row)

    async def require_usage_meters(self, tx: Transaction, ids: Collection[UUID]) -> None:
        """Raise ResourceNotFound unless every meter exists."""
        found = await tx.sa.scalars(
            sa.select(_meters.c.id).where(in_scope(_meters, tx.scope), _meters.c.id.in_(ids))
        )
        for missing in sorted(set(ids) - set(found)):
            raise _meter_not_found(missing)

    async def list_usage_meters(self, tx: Transaction, request: PageRequest) -> Page[UsageMeter]:
        """Return a page of meters, oldest first."""
        statement = sa.select(_meters).where(in_scope(_meters, tx.scope))
        rows = (await tx.sa.execute(page_of(statement, [_meters.c.id], request))).all()
        return to_page(rows, request, decode=_to_meter, key=lambda row: (row.id,))

    async def insert_plan(self, tx: Transaction, plan: Plan) -> None:
        """Add a plan with its first version."""
        await tx.sa.execute(
            sa.insert(_plans).values(
                **scope_values(tx.scope),
                id=plan.id,
                currency=plan.currency,
                created_at=plan.created_at,
            )
        )
        await self.insert_plan_version(tx, plan.latest_version)

    async def insert_plan_version(self, tx: Transaction, version: PlanVersion) -> None:
        """Publish a version."""
        await tx.sa.execute(
            sa.insert(_versions).values(
                **scope_values(tx.scope),
                id=version.id,
                plan_id=version.plan_id,
                version=version.version,
                name=version.name,
                base_price_amount=version.base_price_minor,
                interval_unit=version.interval.unit,
                interval_count=version.interval.count,
                late_usage_policy=version.late_usage_policy,
                created_at=version.created_at,
            )
        )
        if version.components:
            await tx.sa.execute(
                sa.insert(_components),
                [
                    {
                        **scope_values(tx.scope),
                        "id": component.id,
                        "plan_version_id": version.id,
                        "position": position,
                        "usage_meter_id": component.usage_meter_id,
                        "name": component.name,
                        "unit_price": component.unit_price,
                        "included_units": component.included_units,
                    }
                    for position, component in enumerate(version.components)
                ],
            )

    async def get_plan(self, tx: Transaction, plan_id: UUID) -> Plan:
        """Return a plan with its latest version; raises ResourceNotFound."""
        row = await self._find_plan_row(tx, plan_id)
        if row is None:
            raise _plan_not_found(plan_id)
        return await self._with_latest_version(tx, row)

    async def lock_plan(self, tx: Transaction, plan_id: UUID) -> Plan:
        """Return a plan that no other transaction gives a new version; raises ResourceNotFound."""
        locked = await tx.sa.execute(
            sa.select(_plans.c.id)
            .where(in_scope(_plans, tx.scope), _plans.c.id == plan_id)
            .with_for_update(key_share=True)
        )
        if locked.one_or_none() is None:
            raise _plan_not_found(plan_id)
        # Read again: the lock may have waited for a newer version.
        return await self.get_plan(tx, plan_id)

    async def list_plans(self, tx: Transaction, request: PageRequest) -> Page[Plan]:
        """Return a page of plans with their latest versions, oldest first."""
        statement = _plans_with_latest_version(tx.scope)
        rows = (await tx.sa.execute(page_of(statement, [_plans.c.id], request))).all()
        versions = await self.get_plan_versions(
            tx, {row.latest_version_id for row in rows[: request.size]}
        )
        return to_page(
            rows,
            request,
            decode=lambda row: Plan(
                row.id, row.currency, versions[row.latest_version_id], row.created_at
            ),
            key=lambda row: (row.id,),
        )

    async def list_plan_versions(
        self, tx: Transaction, plan_id: UUID, request: PageRequest
    ) -> Page[PlanVersion]:
        """Return a page of a plan's versions, oldest first; raises ResourceNotFound."""
        if await self._find_plan_row(tx, plan_id) is None:
            raise _plan_not_found(plan_id)
        statement = sa.select(_versions.c.id).where(
            in_scope(_versions, tx.scope), _versions.c.plan_id == plan_id
        )
        rows = (await tx.sa.execute(page_of(statement, [_versions.c.id], request))).all()
        versions = await self.get_plan_versions(tx, {row.id for row in rows[: request.size]})
        return to_page(
            rows, request, decode=lambda row: versions[row.id], key=lambda row: (row.id,)
        )

    async def get_versions_of_plans(
        self, tx: Transaction, plan_ids: Collection[UUID]
    ) -> dict[UUID, dict[UUID, PlanVersion]]:
        """Return all versions of each plan by id, version 1 first."""
        if not plan_ids:
            return {}
        rows = (
            await tx.sa.execute(
                sa.select(_versions.c.plan_id, _versions.c.id)
                .where(in_scope(_versions, tx.scope), _versions.c.plan_id.in_(plan_ids))
                .order_by(_versions.c.plan_id, _versions.c.version)
            )
        ).all()
        versions = await self.get_plan_versions(tx, [row.id for row in rows])
        of_plans: dict[UUID, dict[UUID, PlanVersion]] = {}
        for row in rows:
            of_plans.setdefault(row.plan_id, {})[row.id] = versions[row.id]
        return of_plans

    async def get_plan_versions(
        self, tx: Transaction, version_ids: Collection[UUID]
    ) -> dict[UUID, PlanVersion]:
        """Return plan versions by id, from memory where they were read before."""
        known = {i: self._versions.get((tx.scope, i)) for i in version_ids}
        result = {i: version for i, version in known.items() if version is not None}
        missing = [i for i in known if i not in result]
        if missing:
            found = await self._read_plan_versions(tx, missing)
            if len(self._versions) + len(found) > _MAX_CACHED_VERSIONS:
                self._versions.clear()
            self._versions.update({(tx.scope, i): version for i, version in found.items()})
            result |= found
        return result

    async def _read_plan_versions(
        self, tx: Transaction, version_ids: Sequence[UUID]
    ) -> dict[UUID, PlanVersion]:
        rows = await tx.sa.execute(
            sa.select(_versions, _plans.c.currency)
            .join(_plans, sa.and_(in_scope(_plans, tx.scope), _plans.c.id == _versions.c.plan_id))
            .where(in_scope(_versions, tx.scope), _versions.c.id.in_(version_ids))
        )
        components: dict[UUID, list[Component]] = {}
        for row in await tx.sa.execute(
            sa.select(_components)
            .where(in_scope(_components, tx.scope), _components.c.plan_version_id.in_(version_ids))
            .order_by(_components.c.plan_version_id, _components.c.position)
        ):
            components.setdefault(row.plan_version_id, []).append(_to_component(row))
        return {row.id: _to_version(row, tuple(components.get(row.id, ()))) for row in rows}

    async def _find_plan_row(self, tx: Transaction, plan_id: UUID) -> Any | None:
        statement = _plans_with_latest_version(tx.scope).where(_plans.c.id == plan_id)
        return (await tx.sa.execute(statement)).one_or_none()

    async def _with_latest_version(self, tx: Transaction, row: Any) -> Plan:
        versions = await self.get_plan_versions(tx, [row.latest_version_id])
        return Plan(row.id, row.currency, versions[row.latest_version_id], row.created_at)


def _plans_with_latest_version(scope: Scope) -> sa.Select[Any]:
    latest = (
        sa.select(_versions.c.id)
        .where(in_scope(_versions, scope), _versions.c.plan_id == _plans.c.id)
        .order_by(_versions.c.version.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(_plans, latest.label("latest_version_id")).where(in_scope(_plans, scope))


def _meter_not_found(usage_meter_id: UUID) -> ResourceNotFound:
    return ResourceNotFound(
        kind="usage meter",
        resource_id=identifiers.to_typeid(identifiers.USAGE_METER, usage_meter_id),
    )


def _plan_not_found(plan_id: UUID) -> ResourceNotFound:
    return ResourceNotFound(
        kind="plan", resource_id=identifiers.to_typeid(identifiers.PLAN, plan_id)
    )


def _to_meter(row: Any) -> UsageMeter:
    return UsageMeter(row.id, row.code, row.name, UsageAggregation(row.aggregation), row.created_at)


def _to_component(row: Any) -> Component:
    return Component(row.id, row.usage_meter_id, row.name, row.unit_price, row.included_units)


def _to_version(row: Any, components: tuple[Component, ...]) -> PlanVersion:
    return PlanVersion(
        id=row.id,
        plan_id=row.plan_id,
        version=row.version,
        name=row.name,
        base_price_minor=row.base_price_amount,
        currency=row.currency,
        interval=BillingInterval(IntervalUnit(row.interval_unit), row.interval_count),
        components=components,
        created_at=row.created_at,
        late_usage_policy=LateUsagePolicy(row.late_usage_policy),
    )
