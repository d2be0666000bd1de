"""The catalog's lists come in pages that stay true while rows are added."""

from typing import Any

import pytest

from billing.v1 import catalog_pb2 as pb
from tests.factories.client import BillingClient, new_tenant
from tests.factories.refusals import refusal_of

DEFAULT_PAGE_SIZE = 50


class Catalog:
    """One list of the catalog, and a way to add to it."""

    def __init__(self, client: BillingClient, kind: str, plan_id: str = "") -> None:
        self.client = client
        self.kind = kind
        self.plan_id = plan_id

    async def add(self, name: str) -> str:
        """Add one row and return its id."""
        if self.kind == "meters":
            return await self.client.create_meter(name)
        if self.kind == "plans":
            return await self.client.create_plan(name=name)
        request = pb.UpdatePlanRequest(
            tenant_id=self.client.tenant_id,
            plan_id=self.plan_id,
            version=self.client.plan_version(name=name),
        )
        return str((await self.client.catalog.UpdatePlan(request)).plan.latest_version.id)

    async def page(self, page_size: int = 0, page_token: str = "") -> tuple[list[str], str]:
        """Return the ids of a page, and the token of the next."""
        fields: Any = {
            "tenant_id": self.client.tenant_id,
            "page_size": page_size,
            "page_token": page_token,
        }
        stub = self.client.catalog
        if self.kind == "meters":
            answer = await stub.ListUsageMeters(pb.ListUsageMetersRequest(**fields))
            rows = answer.usage_meters
        elif self.kind == "plans":
            answer = await stub.ListPlans(pb.ListPlansRequest(**fields))
            rows = answer.plans
        else:
            request = pb.ListPlanVersionsRequest(plan_id=self.plan_id, **fields)
            answer = await stub.ListPlanVersions(request)
            rows = answer.plan_versions
        return [row.id for row in rows], answer.next_page_token

    async def all_pages(self, page_size: int) -> list[list[str]]:
        """Return the ids of every page."""
        pages, token = [], ""
        while True:
            rows, token = await self.page(page_size, token)
            pages.append(rows)
            if not token:
                return pages


async def catalog_of(client: BillingClient, kind: str, count: int) -> tuple[Catalog, list[str]]:
    """A list with so many rows, and their ids in order."""
    if kind != "versions":
        catalog = Catalog(client, kind)
        return catalog, [await catalog.add(f"n{number}") for number in range(count)]
    plan_id = await client.create_plan()
    catalog = Catalog(client, kind, plan_id)
    (first,), _ = await catalog.page()
    return catalog, [first, *[await catalog.add(f"n{number}") for number in range(1, count)]]


KINDS = pytest.mark.parametrize("kind", ["meters", "plans", "versions"])


@KINDS
async def test_pages_hold_every_row_once_in_order(client: BillingClient, kind: str) -> None:
    catalog, ids = await catalog_of(client, kind, 5)
    assert await catalog.all_pages(0) == [ids]
    assert await catalog.all_pages(1) == [[row] for row in ids]
    assert await catalog.all_pages(2) == [ids[:2], ids[2:4], ids[4:]]
    assert await catalog.all_pages(5) == [ids]
    assert await catalog.all_pages(2**31 - 1) == [ids]


@KINDS
async def test_the_size_may_change_from_page_to_page(client: BillingClient, kind: str) -> None:
    catalog, ids = await catalog_of(client, kind, 4)
    first, token = await catalog.page(1)
    rest, end = await catalog.page(3, token)
    assert first + rest == ids
    assert end == ""


@KINDS
async def test_rows_added_between_pages_come_last_and_disturb_none(
    client: BillingClient, kind: str
) -> None:
    catalog, ids = await catalog_of(client, kind, 3)
    first, token = await catalog.page(2)
    added = await catalog.add("added")
    assert await catalog.page(2, token) == ([ids[2], added], "")
    assert await catalog.page(2, token) == ([ids[2], added], "")
    assert first == ids[:2]


@KINDS
async def test_a_negative_size_is_refused(client: BillingClient, kind: str) -> None:
    catalog, _ = await catalog_of(client, kind, 1)
    refusal = await refusal_of(catalog.page(-1))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["page_size"]


@KINDS
@pytest.mark.parametrize("token", ["x", "WyJ0ZXh0Il0", "bm8gdG9rZW4=", "%%%", "\u00e9", "a" * 1024])
async def test_a_garbled_token_is_refused(client: BillingClient, kind: str, token: str) -> None:
    catalog, _ = await catalog_of(client, kind, 1)
    refusal = await refusal_of(catalog.page(1, token))
    assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    assert refusal.fields == ["page_token"]


async def test_a_token_longer_than_any_is_refused(client: BillingClient) -> None:
    refusal = await refusal_of(Catalog(client, "plans").page(1, "a" * 1025))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["page_token"]


async def test_a_token_of_another_list_is_refused(client: BillingClient) -> None:
    meters, _ = await catalog_of(client, "meters", 2)
    plans, _ = await catalog_of(client, "plans", 2)
    versions, _ = await catalog_of(client, "versions", 2)
    other_versions, _ = await catalog_of(client, "versions", 2)
    lists = [meters, plans, versions, other_versions]
    tokens = [(await listed.page(1))[1] for listed in lists]
    for listed, own in zip(lists, tokens, strict=True):
        for token in tokens:
            if token != own:
                refusal = await refusal_of(listed.page(1, token))
                assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_a_token_of_another_tenant_or_mode_is_refused(client: BillingClient) -> None:
    catalog, _ = await catalog_of(client, "plans", 2)
    _, token = await catalog.page(1)
    for elsewhere in (client.in_test_mode(), client.for_tenant(new_tenant())):
        refusal = await refusal_of(Catalog(elsewhere, "plans").page(1, token))
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_a_page_has_fifty_rows_unless_asked_otherwise(client: BillingClient) -> None:
    catalog, ids = await catalog_of(client, "meters", DEFAULT_PAGE_SIZE + 1)
    assert await catalog.all_pages(0) == [ids[:DEFAULT_PAGE_SIZE], ids[DEFAULT_PAGE_SIZE:]]


async def test_an_empty_list_is_one_empty_page(client: BillingClient) -> None:
    for kind in ("meters", "plans"):
        assert await Catalog(client, kind).page() == ([], "")
