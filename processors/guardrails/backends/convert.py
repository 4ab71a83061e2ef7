"""A pickled checkpoint made a folder that `folder.py` takes: safetensors, configuration, tokenizer, pins.

Pickles can run anything. `weights_only` lets torch build tensors and plain values alone and refuses the rest, and it is done
once, by a person, not by a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .detoxify import SAME
from .folder import ModelFolder, ModelUnavailable, check, complete, find_parts, opening, pin

# Where Detoxify's checkpoints say how they were trained: on which labels, from what.
_DATASET: Final = ("config", "dataset", "args")
_ARCHITECTURE: Final = ("config", "arch", "args")


def convert(
    checkpoint: Path, folder: Path, base: str | None = None, source: str | None = None, licence: str | None = None
) -> ModelFolder:
    """`base`: a folder or cached name that has the configuration and tokenizer; for Detoxify's own checkpoints the one that
    they name. Raises `ModelUnavailable`; an existing folder is left alone."""
    if folder.exists() and any(folder.iterdir()):
        raise ModelUnavailable(f"{folder} is there already and not empty; give a new one")
    if not checkpoint.is_file():
        raise ModelUnavailable(f"{checkpoint} is no file")
    with opening(str(checkpoint)):
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights = loaded.get("state_dict", loaded)
        labels = _labels(loaded)
        base = base or _base(loaded)
        if base is None:
            raise ModelUnavailable(f"{checkpoint} does not say what it was trained from; give --base FOLDER")
        parts = find_parts(base)
        named: dict[str, Any] = {}
        if labels:
            named = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
            named |= {"num_labels": len(labels), "problem_type": "multi_label_classification"}
        config = AutoConfig.from_pretrained(parts, local_files_only=True, trust_remote_code=False, **named)
        tokenizer = AutoTokenizer.from_pretrained(parts, local_files_only=True, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        # Old checkpoints carry buffers that newer code computes; weights that lack are another matter.
        lacking, _ = model.load_state_dict(weights, strict=False)
        complete({"missing_keys": lacking}, str(checkpoint))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    pin(folder, source or str(checkpoint), licence)
    return check(folder, str(folder), str(folder))


def _labels(loaded: Any) -> list[str]:
    """One for each output. `unbiased` and `multilingual` have outputs beyond their classes: who is spoken of."""
    dataset, architecture = _at(loaded, _DATASET), _at(loaded, _ARCHITECTURE)
    classes = [SAME.get(str(label), str(label)) for label in dataset.get("classes") or architecture.get("classes") or ()]
    outputs = architecture.get("num_classes")
    if not classes or not isinstance(outputs, int):
        return classes
    others = [*map(str, dataset.get("identity_classes") or ()), *(f"other_{number}" for number in range(outputs))]
    return [*classes, *others][:outputs]


def _base(loaded: Any) -> str | None:
    found = _at(loaded, _ARCHITECTURE).get("model_type")
    return str(found) if found else None


def _at(loaded: Any, path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        loaded = loaded.get(name) if isinstance(loaded, dict) else None
    return loaded if isinstance(loaded, dict) else {}
