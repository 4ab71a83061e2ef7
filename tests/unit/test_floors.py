"""The floors of the house, held by reading the imports: who may import whom, and how light the helper stays."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "producers", "sinks", "processors", "dashboards")
SOURCES = sorted(
    path for path in (ROOT / "__init__.py", ROOT / "cli.py", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py")))
)
# A port and its data; what makes calls or ships them is the services' side.
SERVICES_SIDE = {
    "emitter",
    "shipper",
    "spool",
    "observe",
    "call_scope",
    "chunks",
    "connect",
    "lifecycle",
    "replay",
    "log_lines",
    "http_log",
    "gate",
    "guard",
    "lane",
    "content",
    "content_pump",
    "call_texts",
    "log_texts",
}
# What both ends of a record need: where it lies, what it is sealed with, and the log of who did what with that.
SHARED = (
    "producers.ports",
    "producers.keyring",
    "producers.key_source",
    "producers.sealing",
    "producers.audit_log",
    "producers.audit_chain",
)
ENGINES = ("processors.embedded", "processors.distributed")
PURE = (
    "processors/meter.py",
    "processors/aggregate.py",
    "processors/call_account.py",
    "processors/sketch.py",
    "processors/pricing.py",
    "schemas/residency.py",
)


@dataclass(frozen=True, slots=True)
class Import:
    """One import of a source file. `module` is dotted, below `tidegate` for our own; `level` counts its leading dots."""

    path: str
    line: int
    module: str
    ours: bool
    level: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"

    def within(self, *packages: str) -> bool:
        return any(self.module == package or self.module.startswith(package + ".") for package in packages)


def imports_of(path: Path) -> Iterator[Import]:
    """Every import in a file, those inside functions and `if TYPE_CHECKING` included."""
    relative = path.relative_to(ROOT)
    package = relative.parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                ours, module = _below_tidegate(alias.name)
                yield Import(str(relative), node.lineno, module, ours, 0)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
                ours, origin = True, ".".join(part for part in base if part)
            else:
                ours, origin = _below_tidegate(node.module or "")
            for alias in node.names:
                inner = ".".join(part for part in (origin, alias.name) if part)
                module = inner if ours and _is_module(inner) else origin
                yield Import(str(relative), node.lineno, module, ours, node.level)


def _below_tidegate(module: str) -> tuple[bool, str]:
    top, _, rest = module.partition(".")
    return (True, rest) if top == "tidegate" else (False, module)


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


IMPORTS = [found for path in SOURCES for found in imports_of(path)]


def room_of(path: str) -> str:
    return path.split("/")[0] if "/" in path else ""


def test_the_reader_of_imports_sees_them() -> None:
    seen = {(found.path, found.module) for found in IMPORTS}

    assert ("processors/meter.py", "schemas.hot") in seen
    assert ("processors/embedded/engine.py", "producers.sqlite_log") in seen
    assert ("sinks/clickhouse.py", "sinks.migrations") in seen
    assert ("cli.py", "schemas.settings") in seen


@pytest.mark.parametrize(("room", "floors"), [("schemas", ()), ("producers", ("schemas",)), ("sinks", ("schemas",))])
def test_a_room_imports_only_the_floors_below(room: str, floors: tuple[str, ...]) -> None:
    wrong = [found for found in IMPORTS if room_of(found.path) == room and found.ours and not found.within(room, *floors)]

    assert list(map(str, wrong)) == []


def test_steps_import_schemas_the_logs_port_and_the_keys_and_no_engine_or_sink() -> None:
    steps = [found for found in IMPORTS if room_of(found.path) == "processors" and not _of_an_engine(found.path)]

    wrong = [found for found in steps if found.ours and not found.within("schemas", "processors", *SHARED)]
    climbing = [found for found in steps if found.ours and found.within(*ENGINES)]

    assert list(map(str, wrong + climbing)) == []


def test_engines_use_the_log_but_never_the_services_side_of_it() -> None:
    forbidden = [f"producers.{name}" for name in SERVICES_SIDE]

    wrong = [found for found in IMPORTS if _of_an_engine(found.path) and found.ours and found.within(*forbidden)]

    assert list(map(str, wrong)) == []


def test_only_the_top_floor_imports_engines_dashboards_and_the_command_line() -> None:
    top = [found for found in IMPORTS if found.ours and found.within(*ENGINES, "dashboards", "cli")]

    wrong = [
        found
        for found in top
        if not (found.path == "cli.py" or _of_an_engine(found.path) or room_of(found.path) == "dashboards")
    ]

    assert list(map(str, wrong)) == []


def test_engines_do_not_import_each_other() -> None:
    wrong = [
        found
        for found in IMPORTS
        for mine in ENGINES
        for other in ENGINES
        if mine != other and found.path.startswith(mine.replace(".", "/") + "/") and found.ours and found.within(other)
    ]

    assert list(map(str, wrong)) == []


def test_nothing_but_the_faust_engine_imports_faust() -> None:
    engine = "processors/distributed/faust_engine.py"

    wrong = [found for found in IMPORTS if not found.ours and found.within("faust", "mode") and found.path != engine]

    assert list(map(str, wrong)) == []


def test_rooms_import_each_other_relatively_and_the_face_absolutely() -> None:
    in_rooms = [found for found in IMPORTS if room_of(found.path) and found.ours and not found.level]
    in_the_face = [found for found in IMPORTS if not room_of(found.path) and found.level]
    bare = [found for found in IMPORTS if not found.ours and found.within(*ROOMS)]

    assert list(map(str, in_rooms + in_the_face + bare)) == []


@pytest.mark.parametrize("path", PURE)
def test_a_pure_step_imports_nothing_that_waits_looks_or_talks(path: str) -> None:
    forbidden = ("sqlite3", "asyncio", "socket", "threading", "subprocess", "urllib", "http", "random", "secrets", "faust")

    wrong = [
        found for found in IMPORTS if found.path == path and not found.ours and found.within(*forbidden, "aiokafka", "chdb")
    ]

    assert list(map(str, wrong)) == []


@pytest.mark.parametrize("path", PURE)
def test_a_pure_step_reads_no_clock_and_no_environment(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    forbidden = {"now", "utcnow", "today", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "environ", "getenv", "open"}

    used = {
        f"{node.attr}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in forbidden
    }
    used |= {f"{node.id}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in forbidden}
    used |= {
        f"time.time:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "time"
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    }
    awaits = [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]

    assert used == set()
    assert awaits == []


def test_importing_tidegate_brings_in_the_base_dependencies_only() -> None:
    """Whatever else is installed: a service that only emits must not carry the node."""
    third_party = _third_party_after("import tidegate, tidegate.producers.emitter, tidegate.producers.local_log")

    base = {"msgspec", "orjson", "pydantic", "pydantic_settings", "urllib3"}
    of_those = {"pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "dotenv", "yaml"}
    assert {"msgspec", "pydantic"} <= third_party
    assert third_party - base - of_those == set()


def test_importing_tidegate_starts_nothing_and_leaves_the_node_alone() -> None:
    loaded = _loaded_after("import tidegate")

    assert loaded & {"chdb", "typer", "rich", "starlette", "uvicorn", "clickhouse_connect", "genai_prices", "ddsketch"} == set()
    assert {
        name for name in loaded if name.startswith(("tidegate.processors", "tidegate.sinks", "tidegate.dashboards"))
    } == set()


def _of_an_engine(path: str) -> bool:
    return any(path.startswith(engine.replace(".", "/") + "/") for engine in ENGINES)


def _loaded_after(statement: str) -> set[str]:
    code = f"import sys, threading; before = set(sys.modules); {statement}; assert threading.active_count() == 1"
    code += "; print('\\n'.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    return set(done.stdout.split())


def _third_party_after(statement: str) -> set[str]:
    ours_and_theirs = {name.partition(".")[0] for name in _loaded_after(statement)}
    return ours_and_theirs - sys.stdlib_module_names - {"tidegate"} - {name for name in ours_and_theirs if name.startswith("_")}
