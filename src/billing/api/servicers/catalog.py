"""CatalogService."""

from billing.api.converters import catalog as convert
from billing.api.converters.values import decode_id, idempotent_request
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.services.catalog import CatalogService
from billing.v1 import catalog_pb2 as pb
from billing.v1 import catalog_pb2_grpc


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Keeps usage meters and plans."""

    def __init__(self, catalog: CatalogService) -> None:
        self._catalog = catalog

    async def CreateUsageMeter(
        self, request: pb.CreateUsageMeterRequest, context: Context
    ) -> pb.CreateUsageMeterResponse:
        """Create a usage meter."""
        meter = await self._catalog.create_usage_meter(
            current_scope(request),
            code=request.code,
            name=request.name,
            aggregation=convert.aggregation.decode(request.aggregation),
            request=idempotent_request(request, "CreateUsageMeter"),
        )
        return pb.CreateUsageMeterResponse(usage_meter=convert.encode_usage_meter(meter))

    async def GetUsageMeter(
        self, request: pb.GetUsageMeterRequest, context: Context
    ) -> pb.GetUsageMeterResponse:
        """Return one usage meter."""
        meter = await self._catalog.get_usage_meter(
            current_scope(request),
            decode_id(identifiers.USAGE_METER, request.usage_meter_id, "usage_meter_id"),
        )
        return pb.GetUsageMeterResponse(usage_meter=convert.encode_usage_meter(meter))

    async def ListUsageMeters(
        self, request: pb.ListUsageMetersRequest, context: Context
    ) -> pb.ListUsageMetersResponse:
        """List usage meters."""
        page = await self._catalog.list_usage_meters(current_scope(request), page_request(request))
        return pb.ListUsageMetersResponse(
            usage_meters=[convert.encode_usage_meter(meter) for meter in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def CreatePlan(
        self, request: pb.CreatePlanRequest, context: Context
    ) -> pb.CreatePlanResponse:
        """Create a plan with version 1."""
        plan = await self._catalog.create_plan(
            current_scope(request),
            currency=request.currency,
            terms=convert.decode_plan_terms(request.version),
            request=idempotent_request(request, "CreatePlan"),
        )
        return pb.CreatePlanResponse(plan=convert.encode_plan(plan))

    async def UpdatePlan(
        self, request: pb.UpdatePlanRequest, context: Context
    ) -> pb.UpdatePlanResponse:
        """Publish the next version of a plan."""
        plan = await self._catalog.update_plan(
            current_scope(request),
            decode_id(identifiers.PLAN, request.plan_id, "plan_id"),
            terms=convert.decode_plan_terms(request.version),
            request=idempotent_request(request, "UpdatePlan"),
        )
        return pb.UpdatePlanResponse(plan=convert.encode_plan(plan))

    async def GetPlan(self, request: pb.GetPlanRequest, context: Context) -> pb.GetPlanResponse:
        """Return one plan."""
        plan = await self._catalog.get_plan(
            current_scope(request), decode_id(identifiers.PLAN, request.plan_id, "plan_id")
        )
        return pb.GetPlanResponse(plan=convert.encode_plan(plan))

    async def ListPlans(
        self, request: pb.ListPlansRequest, context: Context
    ) -> pb.ListPlansResponse:
        """List plans."""
        page = await self._catalog.list_plans(current_scope(request), page_request(request))
        return pb.ListPlansResponse(
            plans=[convert.encode_plan(plan) for plan in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def ListPlanVersions(
        self, request: pb.ListPlanVersionsRequest, context: Context
    ) -> pb.ListPlanVersionsResponse:
        """List the versions of a plan."""
        page = await self._catalog.list_plan_versions(
            current_scope(request),
            decode_id(identifiers.PLAN, request.plan_id, "plan_id"),
            page_request(request),
        )
        return pb.ListPlanVersionsResponse(
            plan_versions=[convert.encode_plan_version(version) for version in page.items],
            next_page_token=next_page_token(page, request),
        )
