"""Pictures of somebody, by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .spans import Span

_PICTURE: Final = re.compile(
    r"(?<![\w/\\@.-])(?P<name>[\w()-]{1,80}(?:\.[\w()-]{1,40}){0,3})\.(?:jpe?g|png|heic|heif|gif|bmp|tiff?|webp|dcm|cr2"
    r"|nef)\b(?!\.\w)",
    re.IGNORECASE,
)
_PICTURE_ENDING: Final = re.compile(r"\.(?:jpe?g|png|heic|heif|gif|bmp|tiff?|webp|dcm|cr2|nef)\b", re.IGNORECASE)
_PICTURED: Final = re.compile(
    r"face|photo|patient|portrait|headshot|selfie|picture|mugshot|img|dsc|scan|wound|dicom", re.IGNORECASE
)
_HAS_DIGIT: Final = re.compile(r"\d")


def find(text: str) -> Iterator[Span]:
    """File names with a number or a word that tells of somebody, or called a photograph by the words before. Not "logo.png"."""
    if _PICTURE_ENDING.search(text) is None:
        return
    for match in _PICTURE.finditer(text):
        if _HAS_DIGIT.search(match["name"]) or _PICTURED.search(text, max(0, match.start() - 40), match.end("name")):
            yield Span(match.start(), match.end(), "PHOTO_ID", 0.86)
