"""CreditService."""

from uuid import UUID

from billing.api.converters import credits as convert
from billing.api.converters.values import (
    decode_id,
    decode_optional_id,
    decode_optional_time,
    idempotent_request,
)
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.services.credit_adjustments import CreditAdjustmentService
from billing.services.credit_expiry import CreditExpiry
from billing.services.credits import CreditService
from billing.v1 import credit_pb2 as pb
from billing.v1 import credit_pb2_grpc


class CreditServicer(credit_pb2_grpc.CreditServiceServicer):
    """Grants, corrects and expires usage credits."""

    def __init__(
        self,
        usage_credits: CreditService,
        adjustments: CreditAdjustmentService,
        expiry: CreditExpiry,
    ) -> None:
        self._credits = usage_credits
        self._adjustments = adjustments
        self._expiry = expiry

    async def GrantCredit(
        self, request: pb.GrantCreditRequest, context: Context
    ) -> pb.GrantCreditResponse:
        """Grant spendable value."""
        credit = await self._credits.grant_credit(
            current_scope(request),
            convert.decode_credit_terms(request),
            request=idempotent_request(request, "GrantCredit"),
        )
        return pb.GrantCreditResponse(usage_credit=convert.encode_usage_credit(credit))

    async def GetCredit(
        self, request: pb.GetCreditRequest, context: Context
    ) -> pb.GetCreditResponse:
        """Return one usage credit."""
        credit = await self._credits.get_credit(
            current_scope(request), _credit_id(request.usage_credit_id)
        )
        return pb.GetCreditResponse(usage_credit=convert.encode_usage_credit(credit))

    async def ListCredits(
        self, request: pb.ListCreditsRequest, context: Context
    ) -> pb.ListCreditsResponse:
        """List the usage credits of a subscription."""
        page = await self._credits.list_credits(
            current_scope(request),
            page_request(request),
            subscription_id=_subscription_id(request.subscription_id),
            status=convert.status.decode_filter(request.status),
            usage_meter_id=decode_optional_id(
                identifiers.USAGE_METER, request.usage_meter_id, "usage_meter_id"
            ),
            live_at=decode_optional_time(request, "live_at"),
        )
        return pb.ListCreditsResponse(
            usage_credits=[convert.encode_usage_credit(credit) for credit in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def UpdateCredit(
        self, request: pb.UpdateCreditRequest, context: Context
    ) -> pb.UpdateCreditResponse:
        """Change notes and metadata."""
        changed = convert.decode_update_mask(request.update_mask)
        credit = await self._credits.update_credit(
            current_scope(request),
            _credit_id(request.usage_credit_id),
            notes=request.notes if "notes" in changed else None,
            metadata=dict(request.metadata) if "metadata" in changed else None,
            request=idempotent_request(request, "UpdateCredit"),
        )
        return pb.UpdateCreditResponse(usage_credit=convert.encode_usage_credit(credit))

    async def VoidCredit(
        self, request: pb.VoidCreditRequest, context: Context
    ) -> pb.VoidCreditResponse:
        """Take what is left of a usage credit."""
        credit = await self._adjustments.void_credit(
            current_scope(request),
            _credit_id(request.usage_credit_id),
            reason=request.reason,
            voided_by_user_id=request.voided_by_user_id,
            request=idempotent_request(request, "VoidCredit"),
        )
        return pb.VoidCreditResponse(usage_credit=convert.encode_usage_credit(credit))

    async def AdjustCreditBalance(
        self, request: pb.AdjustCreditBalanceRequest, context: Context
    ) -> pb.AdjustCreditBalanceResponse:
        """Change the value of a usage credit."""
        adjustment, credit = await self._adjustments.adjust_credit_balance(
            current_scope(request),
            _credit_id(request.usage_credit_id),
            adjustment_type=convert.adjustment_type.decode(request.adjustment_type),
            direction=convert.adjustment_direction.decode(request.direction),
            amount_minor=request.amount,
            currency=request.currency,
            reason=request.reason,
            adjusted_by_user_id=request.adjusted_by_user_id,
            allow_deficit=request.allow_deficit,
            notes=request.notes,
            metadata=dict(request.metadata),
            request=idempotent_request(request, "AdjustCreditBalance"),
        )
        return pb.AdjustCreditBalanceResponse(
            credit_balance_adjustment=convert.encode_credit_balance_adjustment(adjustment),
            usage_credit=convert.encode_usage_credit(credit),
        )

    async def ListCreditBalanceAdjustments(
        self, request: pb.ListCreditBalanceAdjustmentsRequest, context: Context
    ) -> pb.ListCreditBalanceAdjustmentsResponse:
        """List the changes of a usage credit's value."""
        page = await self._adjustments.list_credit_balance_adjustments(
            current_scope(request),
            page_request(request),
            usage_credit_id=_credit_id(request.usage_credit_id),
        )
        return pb.ListCreditBalanceAdjustmentsResponse(
            credit_balance_adjustments=[
                convert.encode_credit_balance_adjustment(adjustment) for adjustment in page.items
            ],
            next_page_token=next_page_token(page, request),
        )

    async def ListCreditApplications(
        self, request: pb.ListCreditApplicationsRequest, context: Context
    ) -> pb.ListCreditApplicationsResponse:
        """List where usage credits went."""
        page = await self._credits.list_credit_applications(
            current_scope(request),
            page_request(request),
            subscription_id=_subscription_id(request.subscription_id),
            usage_credit_id=decode_optional_id(
                identifiers.USAGE_CREDIT, request.usage_credit_id, "usage_credit_id"
            ),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
            kind=convert.application_kind.decode_filter(request.kind),
        )
        return pb.ListCreditApplicationsResponse(
            credit_applications=[
                convert.encode_credit_application(application) for application in page.items
            ],
            next_page_token=next_page_token(page, request),
        )

    async def ExpireCredits(
        self, request: pb.ExpireCreditsRequest, context: Context
    ) -> pb.ExpireCreditsResponse:
        """Expire what is left of credits whose time is over."""
        outcome = await self._expiry.expire_credits(
            current_scope(request),
            subscription_id=decode_optional_id(
                identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
            ),
        )
        return convert.encode_expiry_outcome(outcome)

    async def GetCreditSummary(
        self, request: pb.GetCreditSummaryRequest, context: Context
    ) -> pb.GetCreditSummaryResponse:
        """Return a subscription's usage credits in figures."""
        summary = await self._credits.get_credit_summary(
            current_scope(request), _subscription_id(request.subscription_id)
        )
        return pb.GetCreditSummaryResponse(credit_summary=convert.encode_credit_summary(summary))


def _credit_id(usage_credit_id: str) -> UUID:
    return decode_id(identifiers.USAGE_CREDIT, usage_credit_id, "usage_credit_id")


def _subscription_id(subscription_id: str) -> UUID:
    return decode_id(identifiers.SUBSCRIPTION, subscription_id, "subscription_id")
