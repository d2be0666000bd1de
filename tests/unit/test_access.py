"""The policy in the contract: complete for our services, and refused where it is not."""

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from billing.api.access import AccessPolicy, ContractIncomplete, MethodClosed
from billing.v1 import (
    billing_run_pb2,
    calculation_pb2,
    catalog_pb2,
    credit_pb2,
    ledger_pb2,
    payment_pb2,
    subscription_pb2,
    usage_pb2,
)


def our_services() -> list[ServiceDescriptor]:
    files = (
        billing_run_pb2,
        calculation_pb2,
        catalog_pb2,
        credit_pb2,
        ledger_pb2,
        payment_pb2,
        subscription_pb2,
        usage_pb2,
    )
    return [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]


def unguarded_service() -> ServiceDescriptor:
    file = FileDescriptorProto(name="open.proto", package="open.v1", syntax="proto3")
    file.message_type.add(name="Empty")
    service = file.service.add(name="OpenService")
    for name in ("Read", "Write"):
        service.method.add(
            name=name,
            input_type=".open.v1.Empty",
            output_type=".open.v1.Empty",
            client_streaming=name == "Read",
            server_streaming=True,
        )
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindServiceByName("open.v1.OpenService")


def test_every_rpc_of_ours_declares_its_capability() -> None:
    policy = AccessPolicy.of(our_services())
    path = "/billing.v1.BillingRunService/RunBilling"
    assert policy.required_capability(path) == "billing.run:execute"
    path = "/billing.v1.LedgerService/GetBalance"
    assert policy.required_capability(path) == "billing.ledger:read"
    path = "/billing.v1.PaymentService/CreateRefund"
    assert policy.required_capability(path) == "billing.refund:write"


def test_an_rpc_that_cannot_be_guarded_keeps_the_server_from_starting() -> None:
    with pytest.raises(ContractIncomplete) as refused:
        AccessPolicy.of([*our_services(), unguarded_service()])
    assert refused.value.problems == (
        "open.v1.OpenService.Read has no required_capability",
        "open.v1.OpenService.Read takes a stream, and only single requests are guarded",
        "open.v1.Empty has no string tenant_id",
        "open.v1.OpenService.Write has no required_capability",
        "open.v1.Empty has no string tenant_id",
    )
    assert "OpenService.Write has no required_capability" in str(refused.value)


@pytest.mark.parametrize("path", ["/open.v1.OpenService/Read", "", "/billing.v1.LedgerService/"])
def test_an_rpc_that_the_policy_does_not_know_is_closed(path: str) -> None:
    with pytest.raises(MethodClosed):
        AccessPolicy.of(our_services()).required_capability(path)
