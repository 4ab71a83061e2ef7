"""One real Kafka broker for a whole test run; each test has a namespace of its own on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from uuid import uuid4

import pytest
from tidegate.bench.kafka.broker import Broker

_missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
# CI has both: there a test that cannot run fails.
needs_broker = pytest.mark.skipif(
    bool(_missing) and not os.environ.get("CI"), reason=f"a Kafka broker needs {' and '.join(_missing)}"
)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a broker that no test may stop."""
    if _missing and not os.environ.get("CI"):
        pytest.skip(f"a Kafka broker needs {' and '.join(_missing)}")
    with Broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker.bootstrap


@pytest.fixture
def kafka_url(kafka: str) -> str:
    """`kafka://…` with a namespace that no other test uses. Its topics do not exist yet."""
    return f"kafka://{kafka}/test-{uuid4().hex[:12]}"
