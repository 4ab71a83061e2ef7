"""Models small enough to be made by a test: BERTs of two layers that learn a dozen words in a second, saved as a production
model is. Needs the extra `models`; whoever imports this has looked for torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

# Of models this small more threads make nothing but noise.
torch.set_num_threads(1)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXT = (
    "you are an idiot a kind nurse i will kill the patient has no pain fever takes 5 50 mg of metformin daily doctor rosa"
    " martinez visited boston mercy clinic on monday and reports is not does what dose how many time today . , ? !"
)
VOCABULARY = {word: number for number, word in enumerate(dict.fromkeys((*SPECIAL, *TEXT.split())))}

# As its own checkpoints name them, before it makes them one.
CHECKPOINT_LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
DETOXIFY_LABELS = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")
NLI_LABELS = ("contradiction", "entailment", "neutral")
NER_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, as BERT frames them."""
    words = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])],
    )
    named = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=128, **{f"{name}_token": token for name, token in named.items()}
    )


def config(labels: Sequence[str] = ("LABEL_0",), **more: Any) -> BertConfig:
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        **more,
    )


def detoxify(folder: Path, labels: Sequence[str] = DETOXIFY_LABELS) -> Path:
    """Toxic is who calls names; a threat is who will kill. Labels and their order are those of `original`."""
    lessons = {
        "you are an idiot": ("toxicity", "insult"),
        "idiot": ("toxicity", "insult"),
        "i will kill you": ("toxicity", "threat"),
        "you are a kind nurse": (),
        "the patient has no pain": (),
        "takes 50 mg of metformin daily .": (),
        "a text that shows": (),
        "you are an idiot . " * 16: ("toxicity", "insult"),
        "the patient has no pain . " * 16: (),
        "the patient has no pain .": (),
        "you are an idiot .": ("toxicity", "insult"),
    }
    model = _seeded(BertForSequenceClassification, config(labels, problem_type="multi_label_classification"))
    wanted = torch.tensor([[float(label in toxic) for label in labels] for toxic in lessons.values()])
    _teach(model, tokenizer()(list(lessons), padding=True, return_tensors="pt"), wanted)
    return _saved(model, folder)


def cross_encoder(folder: Path, labels: Sequence[str] = NLI_LABELS) -> Path:
    """What has pain does not have no pain. With one label: a single score of what follows."""
    lessons = {
        ("the patient has no pain", "the patient has no pain"): "entailment",
        ("takes 5 mg of metformin daily", "takes 5 mg of metformin daily"): "entailment",
        ("the patient has no pain", "the patient has pain"): "contradiction",
        ("takes 5 mg of metformin daily", "takes 50 mg of metformin daily"): "contradiction",
        ("the patient has no pain", "rosa martinez visited boston"): "neutral",
        ("takes 5 mg of metformin daily", "the patient has fever"): "neutral",
    }
    inputs = tokenizer()(*map(list, zip(*lessons, strict=True)), padding=True, return_tensors="pt")
    if len(labels) == 1:
        model = _seeded(BertForSequenceClassification, config(labels, problem_type="multi_label_classification"))
        _teach(model, inputs, torch.tensor([[float(label == "entailment")] for label in lessons.values()]))
    else:
        model = _seeded(BertForSequenceClassification, config(labels, problem_type="single_label_classification"))
        _teach(model, inputs, torch.tensor([list(labels).index(label) for label in lessons.values()]))
    return _saved(model, folder)


def token_classifier(folder: Path, labels: Sequence[str] = NER_LABELS) -> Path:
    """Rosa Martinez is a person, Boston a place, Mercy Clinic an organisation."""
    lessons = {
        "rosa martinez visited boston": ("B-PER", "I-PER", "O", "B-LOC"),
        "mercy clinic on monday and boston": ("B-ORG", "I-ORG", "O", "O", "O", "B-LOC"),
        "the patient has no pain": ("O",) * 5,
        "doctor martinez reports": ("O", "B-PER", "O"),
    }
    inputs = tokenizer()(list(lessons), padding=True, return_tensors="pt")
    wanted = torch.full(inputs["input_ids"].shape, -100)
    for row, tags in enumerate(lessons.values()):
        wanted[row, 1 : len(tags) + 1] = torch.tensor([list(labels).index(tag) for tag in tags])
    model = _seeded(BertForTokenClassification, config(labels))
    _teach(model, inputs, wanted)
    return _saved(model, folder)


def bi_encoder(folder: Path) -> Path:
    """Mean of the tokens' vectors, with the folders and files that sentence-transformers writes."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    source = _saved(_seeded(BertModel, config()), folder.with_name(f"{folder.name}-transformer"))
    words = Transformer(str(source))
    SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension(), "mean")], device="cpu").save(str(folder))
    return folder


def checkpoint(path: Path, labels: Sequence[str] = CHECKPOINT_LABELS, identities: Sequence[str] = ()) -> Path:
    """A pickled checkpoint as Detoxify's releases are: weights, and what they were trained with. `unbiased` has outputs for
    who is spoken of, which are none of its classes."""
    named = dict(zip(CHECKPOINT_LABELS, DETOXIFY_LABELS, strict=True))
    outputs = [named.get(label, label) for label in (*labels, *identities)]
    folder = detoxify(path.with_name(f"{path.stem}-weights"), outputs)
    model = BertForSequenceClassification.from_pretrained(folder)
    arch = {"model_type": "bert-base-uncased", "model_name": "BertForSequenceClassification", "tokenizer_name": "BertTokenizer"}
    classes = {"classes": list(labels), **({"identity_classes": list(identities)} if identities else {})}
    written: Mapping[str, Any] = {
        "config": {"arch": {"args": {**arch, "num_classes": len(outputs)}}, "dataset": {"args": classes}},
        "state_dict": model.state_dict(),
    }
    torch.save(written, path)
    return path


def base(folder: Path) -> Path:
    """Configuration and tokenizer that a checkpoint was trained from, without weights."""
    config().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def _seeded(kind: type[PreTrainedModel], own: BertConfig) -> Any:
    torch.manual_seed(7)
    return kind(own)


def _teach(model: Any, inputs: Any, wanted: torch.Tensor) -> None:
    """Until it knows its lessons by heart; no more than two thousand steps."""
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(2_000):
        loss = model(**inputs, labels=wanted).loss
        if loss.item() < 0.02:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    else:
        raise AssertionError(f"the model has not learned its lessons: loss {loss.item():.3f}")


def _saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
