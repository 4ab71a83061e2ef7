"""The figures of an evaluation as rows for the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from .evaluation import TASKS

_DETECTORS: Final = {"phi": "phi", **{task.label: task.detector for task in TASKS}}


def rows(figures: Mapping[str, Any], versions: Mapping[str, str], run: Mapping[str, Any]) -> bytes:
    """Lines of `evaluations`: each number of `Evaluation.as_dict`, beside what the run was (`at`, `data_set`, `sha256`)."""
    shared = {**run, "lines": figures["lines"]}
    found = []
    for label, detector in _DETECTORS.items():
        said = {"detector": detector, "version": versions.get(detector, ""), "failed": figures["failed"].get(detector, 0)}
        for source, report in figures.get(label, {}).items():
            for kind, metric, value in _numbers(report):
                found.append(shared | said | {"source": source, "type": kind, "metric": metric, "value": value})
    return b"\n".join(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in found)


def _numbers(report: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    for name, value in report.items():
        if name == "by_type":
            for kind, counts in value.items():
                yield from ((kind, metric, number) for _, metric, number in _numbers(counts))
        elif value is None or isinstance(value, int | float):
            yield "", name, value
