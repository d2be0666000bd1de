"""The HTTP paths of the contract: what seed 003 asks for as REST, and no two RPCs at one place."""

import re
from collections import Counter
from typing import Any

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from tests.api.test_requirements_repeats import FILES


def methods() -> list[MethodDescriptor]:
    """Every RPC of ours."""
    return [
        method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def binding(method: MethodDescriptor) -> tuple[str, str]:
    """Return verb and path of an RPC; the names of variables are left out."""
    extensions: Any = method.GetOptions().Extensions
    rule: http_pb2.HttpRule = extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    assert verb is not None, method.full_name
    return verb.upper(), re.sub(r"\{[^}]*\}", "*", getattr(rule, verb))


def test_every_rpc_has_a_place_of_its_own() -> None:
    places = Counter(binding(method) for method in methods())
    assert {place for place, count in places.items() if count > 1} == set()
    assert all(path.startswith("/v1/tenants/*/") for _, path in places)


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_what_reads_is_a_get_and_what_writes_is_none(method: MethodDescriptor) -> None:
    reads = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    assert (binding(method)[0] == "GET") == reads
    assert binding(method)[0] != "DELETE"


@pytest.mark.parametrize(
    ("name", "verb", "path"),
    [
        ("GrantCredit", "POST", "/v1/tenants/*/usage-credits"),
        ("GetCredit", "GET", "/v1/tenants/*/usage-credits/*"),
        ("ListCredits", "GET", "/v1/tenants/*/subscriptions/*/usage-credits"),
        ("UpdateCredit", "PATCH", "/v1/tenants/*/usage-credits/*"),
        ("VoidCredit", "POST", "/v1/tenants/*/usage-credits/*:void"),
        ("GetSubscriptionUsageMeter", "GET", "/v1/tenants/*/subscription-usage-meters/*"),
        ("ListSubscriptionUsageMeters", "GET", "/v1/tenants/*/subscriptions/*/usage-meters"),
        ("GetSubscription", "GET", "/v1/tenants/*/subscriptions/*"),
    ],
)
def test_resources_of_the_first_game_plan_have_their_verbs(name: str, verb: str, path: str) -> None:
    """003, 3.1: POST, GET, GET a list, PATCH; a void is an operation of its own."""
    [method] = [method for method in methods() if method.name == name]
    assert binding(method) == (verb, path)


def test_usage_meters_are_only_read() -> None:
    """003, 2.5: "this router would be mostly for read operations"."""
    of_meters = [m for m in methods() if "SubscriptionUsageMeter" in m.name]
    assert len(of_meters) == 2
    assert {binding(method)[0] for method in of_meters} == {"GET"}
