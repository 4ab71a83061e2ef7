"""Production models where they are used: named in the settings, opened with the suite, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra `models` is not installed: make test-models")

import tiny_models
from node_process import tidegate
from tidegate.processors.guardrails.backends import folder as folders
from tidegate.processors.guardrails.backends.folder import ModelUnavailable
from tidegate.processors.guardrails.loading import load_suite
from tidegate.processors.guardrails.ports import Sample
from tidegate.schemas.settings import Settings

CALLS = (
    {"id": "kind", "prompt": "Rosa Martinez visited Boston", "response": "the patient has no pain"},
    {"id": "toxic", "prompt": "you are an idiot", "response": "i will kill you", "context": ["the patient has no pain"]},
)
SETTINGS = {
    "guard_toxicity": ("detoxify", tiny_models.detoxify),
    "guard_encoder": ("sentence-transformers", tiny_models.bi_encoder),
    "guard_judge": ("cross-encoder", tiny_models.cross_encoder),
    "guard_ner": ("transformers", tiny_models.token_classifier),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every production model, pinned; setting → folder."""
    base = tmp_path_factory.mktemp("production")
    made = {setting: make(base / kind) for setting, (kind, make) in SETTINGS.items()}
    for folder in made.values():
        folders.pin(folder, "made by a test", "MIT")
    return made


def backend(setting: str, folder: Path) -> str:
    return f"{SETTINGS[setting][0]}:{folder}"


def calls(folder: Path) -> Path:
    path = folder / "calls.jsonl"
    path.write_text("".join(json.dumps(call) + "\n" for call in CALLS))
    return path


def test_a_suite_of_production_models_judges_every_text(models: dict[str, Path]) -> None:
    settings = Settings(**{setting: backend(setting, folder) for setting, folder in models.items()})
    samples = [Sample(call["id"], call["prompt"], call["response"], tuple(call.get("context", ()))) for call in CALLS]

    suite = load_suite(settings, strict=True)
    kind, toxic = suite.assess(samples)

    assert kind.failed == toxic.failed == {}
    assert kind.scores["response", "toxicity"] < 0.2 < 0.8 < toxic.scores["prompt", "toxicity"]
    assert ("prompt", "injection") in kind.scores, "the heads of our own still have the vectors they were trained on"
    assert toxic.scores["response", "faithfulness"] < 0.9
    assert suite.encoder is not None
    assert suite.encoder.name.startswith("sentence-transformers-")
    assert {"PERSON", "LOCATION"} <= {found.type for found in kind.findings if found.detector == "phi"}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_that_is_missing_is_told_and_the_default_scores(setting: str, tmp_path: Path) -> None:
    troubles: list[str] = []
    settings = Settings(**{setting: backend(setting, tmp_path / "nowhere")})

    suite = load_suite(settings, trouble=troubles.append)
    (offline,) = load_suite(Settings()).assess([Sample("a", "you are an idiot", "the patient has no pain", ("no pain",))])
    (found,) = suite.assess([Sample("a", "you are an idiot", "the patient has no pain", ("no pain",))])

    assert len(troubles) == 1
    assert setting in troubles[0]
    assert found == offline
    with pytest.raises(ModelUnavailable, match="is no folder"):
        load_suite(settings, strict=True)


def test_the_command_line_scores_with_them_and_offline(models: dict[str, Path], tmp_path: Path) -> None:
    named = {f"TIDEGATE_{setting.upper()}": backend(setting, folder) for setting, folder in models.items()}
    # Whoever would ask the network finds a proxy that is not there.
    away = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}

    done = tidegate("score", calls(tmp_path), "--strict", timeout_s=240, **named, **away)

    kind, toxic = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 0, done.stderr.decode()
    assert toxic["scores"]["prompt"]["toxicity"] > 0.8 > 0.2 > kind["scores"]["response"]["toxicity"]
    assert {found["type"] for found in toxic["findings"]} >= {"INSULT", "THREAT"}
    assert "Rosa" not in kind["redacted"]["prompt"]


def test_a_tampered_model_is_one_clear_line_and_the_default_keeps_scoring(tmp_path: Path) -> None:
    model = tiny_models.detoxify(tmp_path / "detoxify")
    folders.pin(model)
    config = model / "config.json"
    config.write_text(config.read_text().replace('"threat"', '"praise"'))
    named = {"TIDEGATE_GUARD_TOXICITY": f"detoxify:{model}"}

    done = tidegate("score", calls(tmp_path), "--detectors", "toxicity", timeout_s=240, **named)
    default = tidegate("score", calls(tmp_path), "--detectors", "toxicity", timeout_s=240)
    strict = tidegate("score", calls(tmp_path), "--detectors", "toxicity", "--strict", timeout_s=240, **named)

    (line,) = done.stderr.decode().splitlines()
    assert "config.json is not the file that tidegate-model.json pins" in line
    assert "the offline default scores instead" in line
    assert done.stdout == default.stdout != b""
    assert (done.returncode, strict.returncode, strict.stdout) == (0, 2, b"")


def test_what_is_loaded_is_told_with_its_hash_and_licence(models: dict[str, Path]) -> None:
    named = {f"TIDEGATE_{setting.upper()}": backend(setting, folder) for setting, folder in models.items()}

    done = tidegate("models", "--json", "--strict", timeout_s=240, **named)

    parts = {part["detector"]: part for part in json.loads(done.stdout)}
    assert parts["toxicity"]["backend"] == "detoxify"
    assert parts["toxicity"]["licence"] == "MIT"
    assert parts["toxicity"]["pinned"] is True
    assert parts["(encoder)"]["backend"] == "sentence-transformers"
    assert parts["phi"]["names"]["backend"] == "transformers"
    assert all(len(part["sha256"]) == 64 for part in parts.values())
