"""Pages of lists: what a request asks for, and the token that its next page is asked with.

A token is no secret and needs no signature: it holds the list, a digest of the filters and the keys
of the last row, and whoever makes one up gets rows of the same tenant that the filters let through.
"""

import base64
import copy
import hashlib
import json
from typing import Any, Final, Protocol
from uuid import UUID

from billing.api.request_context import current_principal
from billing.domain.errors import PageTokenInvalid
from billing.domain.pages import Page, PageRequest

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1000

_DIGEST_CHARACTERS: Final = 24


class ListRequest(Protocol):
    """A request for a page; everything but size and token are its filters."""

    DESCRIPTOR: Any
    page_size: int
    page_token: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...


def page_request(request: ListRequest, *, key_length: int = 1) -> PageRequest:
    """Return the page that is asked for; ``key_length`` is how many UUIDs the list is ordered by.

    A size of 0 is the default, one above the maximum is the maximum. Raises PageTokenInvalid.
    """
    size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    if not request.page_token:
        return PageRequest(size)
    return PageRequest(size, after=_decode(request, key_length))


def next_page_token(page: Page[Any], request: ListRequest) -> str:
    """Return the token of the page that follows; empty after the last one."""
    if page.next_after is None:
        return ""
    return _encode(request, page.next_after)


def _encode(request: ListRequest, key: tuple[UUID, ...]) -> str:
    content = [request.DESCRIPTOR.name, _digest_of_filters(request), *(part.hex for part in key)]
    compact = json.dumps(content, separators=(",", ":"))
    return base64.urlsafe_b64encode(compact.encode()).decode().rstrip("=")


def _decode(request: ListRequest, key_length: int) -> tuple[UUID, ...]:
    token = request.page_token
    try:
        padded = token + "=" * (-len(token) % 4)
        content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        name, digest, *parts = content
        key = tuple(UUID(hex=part) for part in parts)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PageTokenInvalid from error
    expected = (request.DESCRIPTOR.name, _digest_of_filters(request))
    if (name, digest) != expected or len(key) != key_length:
        raise PageTokenInvalid
    return key


def _digest_of_filters(request: ListRequest) -> str:
    filters = copy.deepcopy(request)
    filters.page_size = 0
    filters.page_token = ""
    digest = hashlib.sha256(filters.SerializeToString(deterministic=True))
    digest.update(b"live" if current_principal().livemode else b"test")
    return digest.hexdigest()[:_DIGEST_CHARACTERS]
