"""Production backends for real: tiny models, made and saved here, opened by the code that opens production ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra `models` is not installed: make test-models")

import tiny_models
from tidegate.processors.guardrails.backends import detoxify
from tidegate.processors.guardrails.backends import folder as folders
from tidegate.processors.guardrails.backends.cross_encoder import CrossEncoderJudge
from tidegate.processors.guardrails.backends.detoxify import DetoxifyDetector
from tidegate.processors.guardrails.backends.folder import ModelUnavailable
from tidegate.processors.guardrails.backends.sentence_encoder import SentenceEncoder
from tidegate.processors.guardrails.backends.transformer_ner import TransformerNer
from tidegate.processors.guardrails.ports import Batch, Sample

Make = Callable[[Path], Path]

MAKERS: dict[str, tuple[Make, Callable[[str], object]]] = {
    "detoxify": (tiny_models.detoxify, DetoxifyDetector.load),
    "bi_encoder": (tiny_models.bi_encoder, SentenceEncoder.load),
    "cross_encoder": (tiny_models.cross_encoder, CrossEncoderJudge.load),
    "token_classifier": (tiny_models.token_classifier, TransformerNer.load),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of that kind, made once."""
    base = tmp_path_factory.mktemp("models")
    known: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in known:
            known[kind] = MAKERS[kind][0](base / kind)
        return known[kind]

    return make


@pytest.fixture
def copied(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The same, to be damaged."""

    def copy(kind: str) -> Path:
        import shutil

        return Path(shutil.copytree(made(kind), tmp_path / kind))

    return copy


def test_detoxify_tells_toxic_texts_and_where(made: Callable[[str], Path]) -> None:
    detector = DetoxifyDetector.load(str(made("detoxify")))
    samples = [Sample("a", "the patient has no pain", "you are an idiot"), Sample("b", "i will kill you", None)]

    kind, threat = detector.assess(Batch(samples))

    assert kind.scores["prompt", "toxicity"] < 0.2
    assert kind.scores["response", "toxicity"] > 0.8
    assert [(f.type, f.where, f.start, f.end) for f in kind.findings] == [("INSULT", "response", 0, 16)]
    assert [(f.type, f.where) for f in threat.findings] == [("THREAT", "prompt")]
    assert ("response", "toxicity") not in threat.scores


def test_a_toxic_sentence_in_a_long_text_is_found_in_its_place(made: Callable[[str], Path]) -> None:
    detector = DetoxifyDetector.load(str(made("detoxify")))
    text = "The patient has no pain. " * 40 + "You are an idiot. " * 20 + "The patient has no pain. " * 40

    (verdict,) = detector.assess(Batch([Sample("a", None, text)]))

    assert verdict.scores["response", "toxicity"] > 0.5
    assert verdict.findings
    assert all("idiot" in text[found.start : found.end] for found in verdict.findings)


def test_a_text_scores_the_same_alone_and_in_a_batch(made: Callable[[str], Path]) -> None:
    detector = DetoxifyDetector.load(str(made("detoxify")))
    samples = [Sample(str(n), "you are an idiot " * n, "the patient " * (20 - n)) for n in range(20)]

    together = detector.assess(Batch(samples))

    for sample, verdict in zip(samples, together, strict=True):
        (alone,) = detector.assess(Batch([sample]))
        assert verdict.scores == pytest.approx(alone.scores, abs=1e-5)


def test_vectors_have_length_one_whatever_the_text(made: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(str(made("bi_encoder")))
    texts = ["the patient has pain", "", "   ", "you are an idiot. " * 400, "🙂" * 50]

    vectors = encoder.encode(texts)

    assert vectors.shape == (len(texts), encoder.dimensions)
    assert (vectors**2).sum(axis=1) == pytest.approx([1.0] * len(texts), abs=1e-5)
    assert vectors[0] == pytest.approx(encoder.encode(texts[:1])[0], abs=1e-5)


def test_a_judge_of_three_labels_tells_contradiction_from_silence(made: Callable[[str], Path]) -> None:
    judge = CrossEncoderJudge.load(str(made("cross_encoder")))
    premise = "the patient has no pain"

    said = judge.score([(premise, premise), (premise, "the patient has pain"), (premise, "rosa martinez visited boston")])

    assert [max(each._fields, key=lambda name: getattr(each, name)) for each in said] == ["entail", "contradict", "neutral"]
    assert all(math.isclose(sum(each), 1.0, abs_tol=1e-5) for each in said)
    assert judge.score([]) == []


def test_a_judge_with_a_single_score_never_says_contradiction(tmp_path: Path) -> None:
    judge = CrossEncoderJudge.load(str(tiny_models.cross_encoder(tmp_path / "single", ("LABEL_0",))))
    premise = "the patient has no pain"

    same, other = judge.score([(premise, premise), (premise, "the patient has pain")])

    assert same.entail > 0.8 > 0.2 > other.entail
    assert same.contradict == other.contradict == 0.0


def test_names_are_found_with_their_places_and_presidios_types(made: Callable[[str], Path]) -> None:
    finder = TransformerNer.load(str(made("token_classifier")))
    text = "Rosa Martinez visited Boston"

    spans, nothing = finder.find([text, "  "])

    assert [(text[span.start : span.end], span.type) for span in spans] == [
        ("Rosa Martinez", "PERSON"),
        ("Boston", "LOCATION"),
    ]
    assert nothing == []


def test_a_name_behind_more_tokens_than_the_model_takes_is_found(made: Callable[[str], Path]) -> None:
    finder = TransformerNer.load(str(made("token_classifier")))
    text = "the patient has no pain " * 60 + "Rosa Martinez visited Boston"

    (spans,) = finder.find([text])

    assert any("Rosa" in text[span.start : span.end] for span in spans if span.type == "PERSON")


@pytest.mark.parametrize("kind", MAKERS)
def test_a_pinned_model_is_opened_and_one_that_was_changed_refused(kind: str, copied: Callable[[str], Path]) -> None:
    model, load = copied(kind), MAKERS[kind][1]
    folders.pin(model, "made by a test", "MIT")
    load(str(model))
    weights = next(model.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ModelUnavailable, match=r"model\.safetensors is not the file that tidegate-model\.json pins"):
        load(str(model))


@pytest.mark.parametrize("kind", MAKERS)
def test_weights_cut_short_are_one_clear_error(kind: str, copied: Callable[[str], Path]) -> None:
    model, load = copied(kind), MAKERS[kind][1]
    weights = next(model.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(ModelUnavailable, match="cannot be loaded") as raised:
        load(str(model))

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", MAKERS)
def test_pickled_weights_are_never_opened(kind: str, copied: Callable[[str], Path]) -> None:
    model, load = copied(kind), MAKERS[kind][1]
    for weights in model.rglob("*.safetensors"):
        weights.rename(weights.with_name("pytorch_model.bin"))

    with pytest.raises(ModelUnavailable, match="no weights as safetensors"):
        load(str(model))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_that_is_not_on_this_machine_is_no_reason_to_download(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)

    with pytest.raises(ModelUnavailable, match="nothing is downloaded"):
        MAKERS[kind][1]("nobody/nothing-of-this-name")


@pytest.mark.parametrize("kind", ["detoxify", "cross_encoder", "token_classifier"])
def test_a_model_without_its_head_is_refused_rather_than_made_up(kind: str, copied: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file, save_file

    model, load = copied(kind), MAKERS[kind][1]
    weights = next(model.rglob("*.safetensors"))
    kept = {name: value for name, value in load_file(weights).items() if "classifier" not in name}
    save_file(kept, weights, metadata={"format": "pt"})

    with pytest.raises(ModelUnavailable, match="lacks"):
        load(str(model))


def test_a_model_that_names_no_labels_has_them_in_the_order_of_its_release(tmp_path: Path) -> None:
    labels = detoxify.ORDERS[16]
    model = tiny_models.detoxify(tmp_path / "unnamed", labels)
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = {number: f"LABEL_{number}" for number in range(16)}
    config["label2id"] = {f"LABEL_{number}": number for number in range(16)}
    (model / "config.json").write_text(json.dumps(config))

    (verdict,) = DetoxifyDetector.load(str(model)).assess(Batch([Sample("a", "you are an idiot", "you are a kind nurse")]))

    assert [found.type for found in verdict.findings] == ["INSULT"]
    assert verdict.scores["response", "toxicity"] < 0.2


def test_labels_that_are_not_detoxifys_are_refused(tmp_path: Path) -> None:
    model = tiny_models.detoxify(tmp_path / "other")
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = {number: f"topic-{number}" for number in range(6)}
    (model / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelUnavailable, match="none of Detoxify's labels"):
        DetoxifyDetector.load(str(model))


def test_code_that_a_model_brings_along_is_not_run(copied: Callable[[str], Path], tmp_path: Path) -> None:
    model, trace = copied("detoxify"), tmp_path / "ran"
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "mine.Model", "AutoConfig": "mine.Config"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "mine.py").write_text(f"open({str(trace)!r}, 'w')\n")

    DetoxifyDetector.load(str(model))

    assert not trace.exists()


@pytest.mark.parametrize(
    ("labels", "identities"),
    [(tiny_models.CHECKPOINT_LABELS, ()), (detoxify.UNBIASED, detoxify.IDENTITIES)],
    ids=["original", "unbiased"],
)
def test_a_checkpoint_becomes_a_pinned_folder_that_scores_as_it_did(
    tmp_path: Path, labels: tuple[str, ...], identities: tuple[str, ...]
) -> None:
    from tidegate.processors.guardrails.backends.convert import convert

    checkpoint = tiny_models.checkpoint(tmp_path / "toxic.ckpt", labels, identities)
    base = tiny_models.base(tmp_path / "base")
    before = DetoxifyDetector.load(str(tmp_path / "toxic-weights"))

    convert(checkpoint, tmp_path / "converted", str(base), "a test", "Apache-2.0")

    after = DetoxifyDetector.load(str(tmp_path / "converted"))
    batch = Batch([Sample("a", "you are an idiot", "the patient has no pain")])
    assert after.assess(batch)[0].scores == pytest.approx(before.assess(batch)[0].scores, abs=1e-6)
    assert after.describe()["pinned"] is True
    assert after.describe()["licence"] == "Apache-2.0"


def test_a_checkpoint_that_would_run_something_is_refused(tmp_path: Path) -> None:
    import pickle

    from tidegate.processors.guardrails.backends.convert import convert

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps({"state_dict": Runs()}))

    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        convert(tmp_path / "bad.ckpt", tmp_path / "out", str(tiny_models.base(tmp_path / "base")))

    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
