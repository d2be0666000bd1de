"""BillingRunService."""

from typing import Final

from billing.api.converters import billing_runs as convert
from billing.api.converters.values import decode_id, decode_time, idempotent_request
from billing.api.page_tokens import MAX_PAGE_SIZE, next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.domain.pages import PageRequest
from billing.services.billing_runs import BillingRunService
from billing.v1 import billing_run_pb2 as pb
from billing.v1 import billing_run_pb2_grpc

MAX_WAIT_SECONDS: Final = 600.0
_DEADLINE_MARGIN_SECONDS: Final = 1.0
"""How long before the caller's deadline a waiting call answers with the run as it stands."""


class BillingRunServicer(billing_run_pb2_grpc.BillingRunServiceServicer):
    """Executes billing runs and tells what became of them."""

    def __init__(self, billing_runs: BillingRunService) -> None:
        self._billing_runs = billing_runs

    async def RunBilling(
        self, request: pb.RunBillingRequest, context: Context
    ) -> pb.RunBillingResponse:
        """Start a billing run and wait for its end."""
        as_of = decode_time(request.as_of, "as_of") if request.HasField("as_of") else None
        key = idempotent_request(request, "RunBilling", ignored_fields=["wait_timeout"])
        assert key is not None, "validation requires request_id"
        run = await self._billing_runs.run_billing(
            current_scope(request),
            run_type=convert.run_type.decode(request.run_type),
            as_of=as_of,
            wait_timeout_seconds=_wait_seconds(request, context),
            request=key,
        )
        return pb.RunBillingResponse(billing_run=convert.encode_billing_run(run))

    async def RunBillingForSubscription(
        self, request: pb.RunBillingForSubscriptionRequest, context: Context
    ) -> pb.RunBillingForSubscriptionResponse:
        """Bill the oldest due period of one subscription."""
        key = idempotent_request(request, "RunBillingForSubscription")
        assert key is not None, "validation requires request_id"
        result = await self._billing_runs.run_billing_for_subscription(
            current_scope(request),
            decode_id(identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"),
            request=key,
        )
        return pb.RunBillingForSubscriptionResponse(
            billing_run_result=convert.encode_billing_run_result(result)
        )

    async def GetBillingRun(
        self, request: pb.GetBillingRunRequest, context: Context
    ) -> pb.GetBillingRunResponse:
        """Return a billing run with its first results."""
        run, page = await self._billing_runs.get_billing_run_with_results(
            current_scope(request),
            decode_id(identifiers.BILLING_RUN, request.run_id, "run_id"),
            PageRequest(MAX_PAGE_SIZE),
        )
        message = convert.encode_billing_run(run)
        message.results.extend(convert.encode_billing_run_result(item) for item in page.items)
        following = pb.ListBillingRunResultsRequest(
            tenant_id=request.tenant_id, run_id=request.run_id
        )
        return pb.GetBillingRunResponse(
            billing_run=message, next_page_token=next_page_token(page, following)
        )

    async def ListBillingRuns(
        self, request: pb.ListBillingRunsRequest, context: Context
    ) -> pb.ListBillingRunsResponse:
        """List billing runs, newest first."""
        page = await self._billing_runs.list_billing_runs(
            current_scope(request),
            page_request(request),
            status=convert.status.decode_filter(request.status),
            run_type=convert.run_type.decode_filter(request.run_type),
        )
        return pb.ListBillingRunsResponse(
            billing_runs=[convert.encode_billing_run(run) for run in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def ListBillingRunResults(
        self, request: pb.ListBillingRunResultsRequest, context: Context
    ) -> pb.ListBillingRunResultsResponse:
        """List the results of a billing run."""
        page = await self._billing_runs.list_billing_run_results(
            current_scope(request),
            page_request(request),
            run_id=decode_id(identifiers.BILLING_RUN, request.run_id, "run_id"),
            status=convert.result_status.decode_filter(request.status),
        )
        return pb.ListBillingRunResultsResponse(
            results=[convert.encode_billing_run_result(item) for item in page.items],
            next_page_token=next_page_token(page, request),
        )


def _wait_seconds(request: pb.RunBillingRequest, context: Context) -> float:
    """How long to wait: as asked, at most ten minutes, and never past the caller's deadline."""
    asked = MAX_WAIT_SECONDS
    if request.HasField("wait_timeout"):
        asked = request.wait_timeout.ToTimedelta().total_seconds()
    remaining: float | None = context.time_remaining()
    if remaining is None:
        return asked
    return max(0.0, min(asked, remaining - _DEADLINE_MARGIN_SECONDS))
