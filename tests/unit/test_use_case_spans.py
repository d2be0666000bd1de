"""The span around a use case."""

import pytest
from opentelemetry import trace

from billing.domain.errors import FieldInvalid
from billing.observability.tracing import traced
from tests.factories.spans import recording

TRACER = trace.get_tracer(__name__)


class Cooking:
    """Use cases of a kitchen."""

    def __init__(self) -> None:
        self.spans: list[trace.Span] = []

    @property
    def kitchen(self) -> str:
        return "ours"

    async def boil(self, egg: str, *, minutes: int) -> str:
        self.spans.append(trace.get_current_span())
        return f"{egg} {minutes}"

    async def boil_twice(self, egg: str) -> str:
        return await self.boil(await self.boil(egg, minutes=1), minutes=2)

    async def refuse(self) -> None:
        raise FieldInvalid("egg", "is raw")

    async def burn(self) -> None:
        raise RuntimeError("fire")


async def test_a_call_in_a_recorded_trace_has_its_span() -> None:
    cooking = Cooking()
    with recording() as spans, TRACER.start_as_current_span("call"):
        assert await traced(cooking).boil("egg", minutes=3) == "egg 3"
    span = spans.one("Cooking.boil")
    assert span in spans.children(spans.one("call"))
    assert cooking.spans[0].get_span_context() == span.context


async def test_outside_of_a_recorded_trace_there_is_none() -> None:
    cooking = Cooking()
    with recording() as spans:
        assert await traced(cooking).boil("egg", minutes=3) == "egg 3"
    assert not spans.spans
    assert cooking.spans == [trace.INVALID_SPAN]


async def test_what_a_service_calls_of_its_own_is_no_use_case() -> None:
    with recording() as spans, TRACER.start_as_current_span("call"):
        assert await traced(Cooking()).boil_twice("egg") == "egg 1 2"
    assert [span.name for span in spans.spans] == ["Cooking.boil_twice", "call"]


def test_other_attributes_are_those_of_the_service() -> None:
    assert traced(Cooking()).kitchen == "ours"
    with pytest.raises(AttributeError, match="pantry"):
        _ = traced(Cooking()).pantry  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("use_case", "expected", "status"),
    [
        ("refuse", FieldInvalid, trace.StatusCode.UNSET),
        ("burn", RuntimeError, trace.StatusCode.ERROR),
    ],
)
async def test_a_failure_is_an_error_and_a_refusal_an_answer(
    use_case: str, expected: type[Exception], status: trace.StatusCode
) -> None:
    with recording() as spans, TRACER.start_as_current_span("call"), pytest.raises(expected):
        await getattr(traced(Cooking()), use_case)()
    span = spans.one(f"Cooking.{use_case}")
    assert span.status.status_code is status
    assert span.attributes == {"error.type": expected.__name__}
