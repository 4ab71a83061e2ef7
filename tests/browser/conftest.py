"""Everybody here looks at pages."""

from __future__ import annotations

from chromium import browser, clinic, complaints, keep, page_of

__all__ = ["browser", "clinic", "complaints", "keep", "page_of"]
