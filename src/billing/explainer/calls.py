"""The explainer's calls: the charges of a billing period, and explanations."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.caller.calls import CallPolicy, ServiceCaller
from billing.v1 import balance_explanation_pb2, charge_pb2, explanation_pb2, ledger_pb2_grpc

_PAGE_SIZE: Final = 1_000


class ExplanationCalls:
    """One tenant's calls over a channel; all of them read."""

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        tenant_id: str,
        read_token: Callable[[], str],
        policy: CallPolicy,
        notice: Callable[[str], None],
    ) -> None:
        # The generated stubs are typed for grpc.aio; they serve either kind of channel.
        untyped: Any = channel
        self._ledger: Any = ledger_pb2_grpc.LedgerServiceStub(untyped)
        self._tenant_id = tenant_id
        self._caller = ServiceCaller(
            read_token=read_token,
            policy=policy,
            notice=notice,
            too_large_advice="ask for fewer --events",
        )

    def list_charge_ids(self, *, subscription_id: str, billing_period_id: str) -> list[str]:
        """Return the ids of a billing period's charges, in order; raises CallFailed."""
        request = charge_pb2.ListChargesRequest(
            tenant_id=self._tenant_id,
            subscription_id=subscription_id,
            billing_period_id=billing_period_id,
            page_size=_PAGE_SIZE,
        )
        ids: list[str] = []
        while True:
            answer: charge_pb2.ListChargesResponse = self._caller.call(
                "ListCharges", self._ledger.ListCharges, request, first=not ids
            )
            ids += [charge.id for charge in answer.charges]
            request.page_token = answer.next_page_token
            if not request.page_token:
                return ids

    def explain_charge(
        self, charge_id: str, *, event_count: int | None
    ) -> explanation_pb2.ChargeExplanation:
        """Return an explanation with the first of its usage, None is all; raises CallFailed."""
        request = explanation_pb2.ExplainChargeRequest(
            tenant_id=self._tenant_id, charge_id=charge_id, page_size=event_count or _PAGE_SIZE
        )
        answer = self._explain_page(request, first=True)
        explained = answer.explanation
        while event_count is None and answer.next_page_token:
            request.page_token = answer.next_page_token
            answer = self._explain_page(request)
            _extend(explained, answer.explanation)
        return explained

    def explain_balance(
        self, subscription_id: str, *, after: datetime | None, until: datetime | None
    ) -> balance_explanation_pb2.BalanceExplanation:
        """Return how a balance moved; raises CallFailed."""
        request = balance_explanation_pb2.ExplainBalanceRequest(
            tenant_id=self._tenant_id,
            subscription_id=subscription_id,
            posted_after=_to_timestamp(after),
            posted_until=_to_timestamp(until),
        )
        answer: balance_explanation_pb2.ExplainBalanceResponse = self._caller.call(
            "ExplainBalance", self._ledger.ExplainBalance, request, first=True
        )
        return answer.explanation

    def _explain_page(
        self, request: explanation_pb2.ExplainChargeRequest, *, first: bool = False
    ) -> explanation_pb2.ExplainChargeResponse:
        answer: explanation_pb2.ExplainChargeResponse = self._caller.call(
            "ExplainCharge", self._ledger.ExplainCharge, request, first=first
        )
        return answer


def _extend(
    explained: explanation_pb2.ChargeExplanation, page: explanation_pb2.ChargeExplanation
) -> None:
    """Add a page's usage; the rest is the same on each."""
    if explained.HasField("usage"):
        explained.usage.usage_events.extend(page.usage.usage_events)
    else:
        explained.usage_change.taken_in_usages.extend(page.usage_change.taken_in_usages)


def _to_timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
