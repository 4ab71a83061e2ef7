"""A production model in a folder: found on this machine, whole, and loaded without running anything that it brings along.

    NAME_OR_FOLDER ─► find ─► check (pins) ─► weights as safetensors ─► a model

Nothing is downloaded: a name means what the hub's cache on this machine already holds. Nothing is unpickled: a checkpoint is
converted once (`convert.py`). Where `tidegate-model.json` lies beside the weights, every file that counts must be the one it
names.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from ....schemas.errors import UsageError

PINS: Final = "tidegate-model.json"
FORMAT: Final = "tidegate-model/1"
# What a library may read from a model's folder. Anything else, such as a README or a pickle nobody opens, may come and go.
COUNTING: Final = (".safetensors", ".json", ".txt", ".model", ".jinja", ".py")
# The hub names a large file's blob by its SHA-256, and a small one's by git's SHA-1, which says nothing.
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ModelUnavailable(UsageError):
    """A production model is not here, not whole, or not the one that was pinned."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that was checked. `asked` is the name it goes by; `sha256` is of the weights, or of the list of them."""

    path: Path
    asked: str
    sha256: str
    size_bytes: int
    pinned: bool
    source: str
    licence: str

    def describe(self, backend: str) -> dict[str, Any]:
        """For `tidegate models`."""
        return {
            "backend": backend,
            "source": self.source,
            "sha256": self.sha256,
            "licence": self.licence,
            "size_bytes": self.size_bytes,
            "pinned": self.pinned,
        }

    def version(self, backend: str) -> str:
        return f"{backend}-{self.sha256[:12]}"


def find(asked: str, names: Sequence[str] = ()) -> ModelFolder:
    """The folder `asked`, or what the hub's cache holds under the first of `names` (default: `asked`) that is there.

    Raises `ModelUnavailable`, saying what to do.
    """
    path, source = _located(asked, names)
    return check(path, asked, source)


def find_parts(asked: str) -> Path:
    """The folder that holds a configuration and tokenizer, whatever its weights. Raises `ModelUnavailable`."""
    return _located(asked)[0]


def _located(asked: str, names: Sequence[str] = ()) -> tuple[Path, str]:
    folder = Path(asked).expanduser()
    if folder.is_dir():
        return folder, str(folder)
    if asked.startswith(("/", ".", "~")):
        raise ModelUnavailable(f"{asked} is no folder")
    for name in names or (asked,):
        cached = _cached(name)
        if cached is not None:
            return cached, f"hub cache: {name}"
    raise ModelUnavailable(
        f"{asked} is no folder here, and the hub's cache on this machine has no {' or '.join(names or (asked,))};"
        " nothing is downloaded: copy the model to a folder and name that"
    )


def check(folder: Path, asked: str, source: str) -> ModelFolder:
    """Every file that counts is the pinned one, and there are weights that need no unpickling. Raises `ModelUnavailable`."""
    digests = digests_of(folder)
    weights = [name for name in digests if name.endswith(".safetensors")]
    if not weights:
        raise ModelUnavailable(
            f"{asked} has no weights as safetensors; pickled ones are never opened."
            " Convert them once: tidegate models convert CHECKPOINT FOLDER"
        )
    for name in weights:
        blob = (folder / name).resolve().name
        if _SHA256.fullmatch(blob) and blob != digests[name]:
            raise ModelUnavailable(f"{asked}: {name} is not the file that the hub's cache says it is: its SHA-256 differs")
    pins = _pins(folder, asked)
    if pins is not None:
        _hold(digests, pins["files"], asked)
    return ModelFolder(
        folder,
        asked,
        digests[weights[0]] if len(weights) == 1 else hashlib.sha256(orjson.dumps([digests[n] for n in weights])).hexdigest(),
        sum((folder / name).stat().st_size for name in digests),
        pins is not None,
        (pins or {}).get("source") or source,
        (pins or {}).get("licence") or "not stated",
    )


def pin(folder: Path, source: str | None = None, licence: str | None = None) -> Path:
    """Write down what the folder holds now; from then on a file that differs is refused. Raises `ModelUnavailable`."""
    if not folder.is_dir():
        raise ModelUnavailable(f"{folder} is no folder")
    digests = digests_of(folder)
    written = {"format": FORMAT, "source": source, "licence": licence, "files": digests}
    path = folder / PINS
    path.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return path


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that counts, by its path in the folder, in order."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in COUNTING and path.is_file())
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in found
        if path.name != PINS and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _hold(digests: dict[str, str], pinned: dict[str, str], asked: str) -> None:
    for name in sorted(digests.keys() | pinned.keys()):
        if name not in digests:
            raise ModelUnavailable(f"{asked}: {name} is pinned in {PINS} and not there")
        if name not in pinned:
            raise ModelUnavailable(f"{asked}: {name} is there and not pinned in {PINS}")
        if digests[name] != pinned[name]:
            raise ModelUnavailable(f"{asked}: {name} is not the file that {PINS} pins: its SHA-256 differs")


def _pins(folder: Path, asked: str) -> dict[str, Any] | None:
    path = folder / PINS
    if not path.exists():
        return None
    try:
        pins = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelUnavailable(f"{asked}: {PINS} cannot be read ({type(error).__name__})") from error
    if not isinstance(pins, dict) or pins.get("format") != FORMAT or not isinstance(pins.get("files"), dict):
        raise ModelUnavailable(f"{asked}: {PINS} is not of the form {FORMAT}; write it anew: tidegate models pin FOLDER")
    return pins


def _cached(name: str) -> Path | None:
    """Where the hub's cache keeps the model, if it does."""
    try:
        offline()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        return None
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def offline() -> None:
    """From here on the libraries of this process ask nobody on the network, and count nothing for anybody."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    # Its threads and ours would fight over the same cores, and it warns about forks that we do not do.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import huggingface_hub.constants

    # Read from the environment when it was first imported, which may have been before.
    huggingface_hub.constants.HF_HUB_OFFLINE = True


@contextmanager
def opening(asked: str) -> Iterator[None]:
    """Loading a model: the libraries are kept off the network, and whatever they raise is one `ModelUnavailable`."""
    try:
        offline()
        import torch
        import transformers

        # A scoring process is one of several, each with a processor of its own.
        torch.set_num_threads(1)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        yield
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        raise ModelUnavailable(f"{asked} needs {error.name}: pip install 'tidegate[models]'") from error
    except Exception as error:  # a model's files can break a library anywhere: not this model
        said = str(error).strip().partition("\n")[0][:200]
        raise ModelUnavailable(f"{asked} cannot be loaded: {type(error).__name__}: {said}") from error


def opened(kind: Any, folder: ModelFolder) -> Any:
    """A model of one of sentence-transformers' classes, from the folder alone. Inside `opening`."""
    model = kind(
        str(folder.path),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
    model.eval()
    return model


def complete(loading: dict[str, Any], asked: str) -> None:
    """Weights that a library did not find in the file it makes up at random. Raises `ModelUnavailable`."""
    lacking = sorted(map(str, [*loading.get("missing_keys", ()), *loading.get("mismatched_keys", ())]))
    if lacking:
        raise ModelUnavailable(f"{asked} lacks weights that its own configuration asks for, such as {lacking[0]}")


def known_weights(model: Any, folder: ModelFolder) -> None:
    """`model`, from a library that does not say what it made up, has the file's weights: at least most of them, for a pooler
    that nobody uses is often left out. Raises `ModelUnavailable`."""
    stored = _stored(folder)
    own = [_bare(name) for name in model.state_dict()]
    if sum(name in stored for name in own) < 0.8 * len(own):
        raise ModelUnavailable(f"{folder.asked} lacks most of the weights that its own configuration asks for")


def head_weights(model: Any, folder: ModelFolder) -> None:
    """`known_weights`, and none of the head's is missing: without them the scores are noise. Raises `ModelUnavailable`."""
    known_weights(model, folder)
    stored = _stored(folder)
    lacking = [name for name in model.state_dict() if _HEAD.search(name) and _bare(name) not in stored]
    if lacking:
        raise ModelUnavailable(f"{folder.asked} lacks its head: {_bare(lacking[0])} is not among its weights")


_HEAD: Final = re.compile(r"\b(classifier|score|out_proj)\.")
# How a name is written differs by the model that stored it: with the wrapper's prefixes, or without.
_WRAPPERS: Final = re.compile(r"^(\d+\.|(auto_model|model|bert|roberta|deberta|distilbert|electra|mpnet|albert)\.)+")


def _stored(folder: ModelFolder) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for path in sorted(folder.path.rglob("*.safetensors")):
        with safe_open(path, framework="np") as opened:
            names.update(_bare(name) for name in opened.keys())  # noqa: SIM118 — no mapping: it has keys() alone
    return names


def _bare(name: str) -> str:
    return _WRAPPERS.sub("", name).replace(".gamma", ".weight").replace(".beta", ".bias")


def longest(tokenizer: Any, config: Any) -> int:
    """How many tokens the model takes: what its tokenizer says, but no more than it has positions for."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    # RoBERTa and its kin count positions from behind the padding's id.
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "longformer"):
        positions -= (getattr(config, "pad_token_id", None) or 0) + 1
    return int(min(tokenizer.model_max_length, positions))
