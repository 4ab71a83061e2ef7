"""The store's schema: NNNN_name.sql, applied in order, once each. Append-only: a file that was released never changes.

Statements end with a semicolon at the end of a line, and are IF NOT EXISTS or OR REPLACE: a migration that was cut off half-way
runs again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...schemas.errors import UsageError

FOLDER: Final = Path(__file__).parent

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")
_STATEMENT_END: Final = re.compile(r";[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `sha256` of its bytes tells whether it was changed after it was applied."""

    number: int
    name: str
    sha256: str
    statements: tuple[str, ...]


def read(folder: Path = FOLDER) -> list[Migration]:
    """The migrations in a folder, in order. Raises `UsageError` when a file's name or number is wrong."""
    migrations: dict[int, Migration] = {}
    for file in sorted(folder.glob("*.sql")):
        match = _NAME.match(file.name)
        if match is None or int(match[1]) in migrations:
            raise UsageError(f"migration {file.name}: name it NNNN_name.sql, with a number of its own")
        content = file.read_bytes()
        statements = tuple(text.strip() for text in _STATEMENT_END.split(content.decode()) if text.strip())
        number = int(match[1])
        migrations[number] = Migration(number, file.stem, hashlib.sha256(content).hexdigest(), statements)
    return [migrations[number] for number in sorted(migrations)]
