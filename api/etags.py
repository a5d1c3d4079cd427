"""Which version of a thing a request speaks of (RFC 9110, sections 8.8.3 and 13.1)."""

from __future__ import annotations

import re

_TAG = re.compile(r'(W/)?("[^"]*")')


def is_named(etag: str, if_none_match: str | None) -> bool:
    """Whether If-None-Match names the tag: `*`, or one of a list; a weak tag counts."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or any(tag == etag for _, tag in _TAG.findall(if_none_match))


def is_required(etag: str, if_match: str | None) -> bool:
    """Whether If-Match lets a change of this version pass: it is left out, `*`, or a list with a tag like it.

    Of a tag `"<what may be changed>-<the rest>"` the first part decides; a weak tag counts for nothing.
    """
    if if_match is None or if_match.strip() == "*":
        return True
    return any(not weak and _head(tag) == _head(etag) for weak, tag in _TAG.findall(if_match))


def _head(tag: str) -> str:
    return tag.strip('"').partition("-")[0]
