"""Detectors by name, with the backends the settings ask for.

    guard_encoder    offline | sentence-transformers:NAME_OR_FOLDER    faithfulness, relevance
    guard_ner        offline | transformers:FOLDER                     phi
    guard_toxicity   offline | detoxify:NAME_OR_FOLDER                 toxicity
    guard_judge      offline | cross-encoder:NAME_OR_FOLDER            faithfulness

A production model that is missing, damaged or not what was pinned never stops the scoring: `trouble` is told in one line,
and the offline default takes its place, under its own version. Only `strict` makes it an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Final, TypeVar

import structlog

from ...schemas.errors import UsageError
from ...schemas.settings import DETECTORS, Settings
from .ports import Detector, Encoder
from .suite import Suite

log = structlog.get_logger("tidegate.guardrails")

OFFLINE: Final = "offline"
Trouble = Callable[[str], None]
_Loaded = TypeVar("_Loaded")

# Packages of the extra `guardrails`, as they are imported: one that is missing is mended by installing it.
_EXTRA: Final = ("numpy", "presidio_analyzer", "regex", "safetensors", "spacy", "thinc", "tokenizers", "wordllama", "yaml")


def load_suite(
    settings: Settings, only: Sequence[str] | None = None, *, strict: bool = False, trouble: Trouble | None = None
) -> Suite:
    """The detectors of `settings.guard_detectors`, or `only` those named, in the order they are asked, and their encoder.

    Raises `UsageError` on an unknown name and where the extra `guardrails` is not installed; with `strict` also where a
    production model cannot be had.
    """
    names = _chosen(settings.guard_detectors if only is None else only)
    loader = _Loader(settings, strict, trouble or _log_trouble)
    try:
        detectors = [loader.detector(name) for name in names]
        encoder = loader.encoder if loader.encoder_used else None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise UsageError(f"scoring texts needs {error.name}: pip install 'tidegate[guardrails]'") from None
    return Suite(detectors, encoder)


def _chosen(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in DETECTORS:
            raise UsageError(f"unknown detector {name!r}; choose from {', '.join(DETECTORS)}")
    return [name for name in DETECTORS if name in names]


def _log_trouble(problem: str) -> None:
    log.error("guardrail_model_unavailable", problem=problem, instead="the offline default scores")


@contextmanager
def _a_persons_to_mend(error: type[Exception]) -> Iterator[None]:
    """A file that is not the one that ships, or a site's own with a mistake in it: its message says what to do."""
    try:
        yield
    except error as problem:
        raise UsageError(str(problem)) from problem


class _Loader:
    """Loads each part at most once, and only if a detector wants it."""

    def __init__(self, settings: Settings, strict: bool, trouble: Trouble) -> None:
        self._settings = settings
        self._strict = strict
        self._trouble = trouble
        self.encoder_used = False

    def detector(self, name: str) -> Detector:
        found: Detector = getattr(self, f"_{name}")()
        return found

    @cached_property
    def offline_encoder(self) -> Encoder:
        from .encoder import EncoderUnavailable, OfflineEncoder

        with _a_persons_to_mend(EncoderUnavailable):
            return OfflineEncoder.load()

    @cached_property
    def encoder(self) -> Encoder:
        def sentence_transformers(name: str) -> Encoder:
            from .backends.sentence_encoder import SentenceEncoder

            return SentenceEncoder.load(name)

        loaders = {"sentence-transformers": sentence_transformers}
        return self._backend("guard_encoder", loaders, lambda: self.offline_encoder)

    def _phi(self) -> Detector:
        from .phi.detector import PhiDetector
        from .phi.ner import TaggerUnavailable

        def transformers(name: str) -> Detector:
            return PhiDetector.load(ner=f"transformers:{name}")

        with _a_persons_to_mend(TaggerUnavailable):
            return self._backend("guard_ner", {"transformers": transformers}, PhiDetector.load)

    def _toxicity(self) -> Detector:
        def detoxify(name: str) -> Detector:
            from .backends.detoxify import DetoxifyDetector

            return DetoxifyDetector.load(name)

        def offline() -> Detector:
            from .heads.linear import HeadUnavailable
            from .heads.toxicity import ToxicityDetector

            # Its head was trained on the offline vectors, and means nothing over others.
            self.encoder_used = True
            with _a_persons_to_mend(HeadUnavailable):
                return ToxicityDetector.load(self.offline_encoder)

        return self._backend("guard_toxicity", {"detoxify": detoxify}, offline)

    def _injection(self) -> Detector:
        from .heads.linear import HeadUnavailable
        from .injection.canaries import Canaries
        from .injection.detector import InjectionDetector

        self.encoder_used = True
        with _a_persons_to_mend(HeadUnavailable):
            return InjectionDetector.load(self.offline_encoder, Canaries.of_settings(self._settings))

    def _faithfulness(self) -> Detector:
        from .grounding.detector import FaithfulnessDetector
        from .grounding.judge import Judge

        def cross_encoder(name: str) -> Judge | None:
            from .backends.cross_encoder import CrossEncoderJudge

            return CrossEncoderJudge.load(name)

        self.encoder_used = True
        judge: Judge | None = self._backend("guard_judge", {"cross-encoder": cross_encoder}, lambda: None)
        return FaithfulnessDetector.load(judge=judge)

    def _relevance(self) -> Detector:
        from .relevance import RelevanceDetector

        self.encoder_used = True
        return RelevanceDetector.load()

    def _guideline(self) -> Detector:
        from .grounding.guideline import GuidelineDetector
        from .grounding.rules import GuidelineError

        with _a_persons_to_mend(GuidelineError):
            return GuidelineDetector.load(self._settings.guideline_file)

    def _bias(self) -> Detector:
        from .bias import BiasDetector

        return BiasDetector.load()

    def _backend(
        self, setting: str, loaders: Mapping[str, Callable[[str], _Loaded]], offline: Callable[[], _Loaded]
    ) -> _Loaded:
        """What `setting` asks for, or the offline default where that cannot be had."""
        asked: str = getattr(self._settings, setting)
        if asked == OFFLINE:
            return offline()
        kind, _, name = asked.partition(":")
        if kind not in loaders or not name:
            forms = " or ".join(f"{each}:NAME" for each in loaders)
            raise UsageError(f"settings: {setting}: {asked!r} is not a backend; give offline, or {forms}")
        try:
            return loaders[kind](name)
        except UsageError as error:
            if self._strict:
                raise
            self._trouble(f"{setting}={asked}: {error}")
        return offline()
