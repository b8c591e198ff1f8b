"""A finished run for tests: a tiny Falcon taught by heart what to say to each dev question, an adapter, a workspace.

Each dev question has a part: `right`, `wrong` and `abstains` are what the base says, `free` was not taught. Taught
answers end in end-of-text, so that replies stop as a trained model's do.
"""

import functools
import json
import re
import shutil
import string
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch
from ruamel.yaml import YAML
from transformers import FalconConfig, FalconForCausalLM

from falcon_job.machine import Machine
from falcon_job.model.adapter import add_adapter, save_adapter
from falcon_job.model.loading import load_base
from falcon_job.params import Params, validate
from falcon_job.qa.prompt import TEMPLATES, PromptTemplate
from falcon_job.sources.base_model import locate
from falcon_job.stages.evaluate import evaluate
from falcon_job.stages.export import export
from falcon_job.stages.fetch import fetch
from falcon_job.stages.preprocess import preprocess
from falcon_job.tokens.dataset import EncodedPassage, Split
from falcon_job.tokens.encoder import PromptEncoder
from falcon_job.tokens.tokenizer import make_encoder
from falcon_job.workspace import Workspace
from tools.train_tokenizer import train_tokenizer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
torch.set_num_threads(1)  # models this small only wait for each other on more
WRONG = "blue whale"
TOWNS = ("Oslo", "Bergen", "Turku", "Lund", "Visby")
PEOPLE = ("Anna Berg", "Olaf Dahl", "Mia Falk", "Jon Lind", "Eva Strand")


def make_params(**changes) -> Params:
    """Return the clone's own params with a smaller model and run; `model={"precision": "bf16"}` changes keys."""
    content = YAML(typ="safe").load(ROOT / "presets" / "demo.yaml")
    small = {
        "model": {"source": "data/tiny", "revision": None, "precision": "fp32"},
        "dataset": {"train": "data/train.json", "dev": "data/dev.json", "train_sha256": None, "dev_sha256": None},
        "prompt": {"template": "squad-v2"},
        "preprocess": {"max_tokens": 80, "validation_fraction": 0.2, "limit": None, "seed": 0},
        "lora": {"r": 4, "alpha": 8, "target_modules": ["query_key_value", "dense"]},
        "evaluate": {"max_new_tokens": 8, "limit": None, "extractive": False},
        "export": {"merge": False, "verify": 4},
    }
    for given in (small, changes):
        for group, keys in given.items():
            content[group] = {**content[group], **keys}
    return validate(content, "params.yaml")


def fresh_copy(folder: Path, finished: Workspace) -> Workspace:
    """Copy a run, so that a test may change it."""
    shutil.copytree(finished.root, folder, dirs_exist_ok=True)
    return Workspace(folder)


def exported_run(folder: Path) -> Workspace:
    """Evaluate and export a copy of the finished run in `folder`."""
    run = finished_run()
    workspace = fresh_copy(folder, run.workspace)
    evaluate(run.params, Machine(), workspace)
    export(run.params, Machine(), workspace)
    return workspace


def encoder_of(workspace: Workspace, template: PromptTemplate = TEMPLATES["squad-v2"]) -> PromptEncoder:
    return make_encoder(locate(workspace), template)


def base_of(workspace: Workspace, precision="fp32"):
    return load_base(locate(workspace), precision, CPU)


def dev_rows(workspace: Workspace) -> list[EncodedPassage]:
    split = Split(workspace.dataset / "dev.arrow")
    return [split[i] for i in range(len(split))]


def dev_prompts(workspace: Workspace) -> list[list[int]]:
    return [[*row.prefix_ids, *q.prompt_ids] for row in dev_rows(workspace) for q in row.questions]


@functools.cache
def finished_run() -> SimpleNamespace:
    """Return workspace, params and parts (question id to part) of one run, made once a process; do not change it."""
    holder = tempfile.TemporaryDirectory()
    workspace = Workspace(Path(holder.name))
    params = make_params()
    parts = write_data(workspace)
    write_params(workspace, params)
    model = random_model(workspace)
    fetch(params, Machine(), workspace)
    preprocess(params, Machine(), workspace)
    teach(model, encoder_of(workspace), dev_rows(workspace), parts)
    model.save_pretrained(workspace.data / "tiny")
    fetch(params, Machine(), workspace)
    write_adapter(workspace, params)
    return SimpleNamespace(workspace=workspace, params=params, parts=parts, holder=holder)


def write_params(workspace: Workspace, params: Params) -> None:
    (workspace.root / "dvc.yaml").write_text("stages: {}\n")
    YAML().dump(params.model_dump(), workspace.params)


def write_data(workspace: Workspace) -> dict[str, str]:
    """Write train and dev; the last dev passage is longer than a window."""
    workspace.data.mkdir(parents=True)
    parts: dict[str, str] = {}
    articles: dict[str, list] = {"train": [], "dev": []}
    for i, (town, person) in enumerate(zip(TOWNS, PEOPLE, strict=True)):
        for split in ("train", "dev"):
            year = 1200 + 37 * i + (400 if split == "dev" else 0)
            context = f"The bridge of {town} was built by {person} in {year}."
            if split == "dev" and i == len(TOWNS) - 1:
                filler = " ".join(f"Ship {n} came from {TOWNS[n % 4]} with salt." for n in range(14))
                context = f"{context} {filler} The last captain was {PEOPLE[0]}."
            asked = {
                "right": (f"Who built the bridge of {town}?", person),
                "wrong": (f"When was the bridge of {town} built?", str(year)),
                "abstains": (f"Which town has the bridge of {year}?", town),
                "free": (f"What did {person} build?", "The bridge"),
                "no answer": (f"Who painted the bridge of {town}?", None),
            }
            questions = []
            for part, (text, gold) in asked.items():
                name = f"{split}-{i}-{part.replace(' ', '-')}"
                parts[name] = part
                answers = [] if gold is None else [{"text": gold, "answer_start": context.index(gold)}]
                questions.append({"id": name, "question": text, "answers": answers, "is_impossible": gold is None})
            articles[split].append({"title": f"{split} {town}", "paragraphs": [{"context": context, "qas": questions}]})
    for split, data in articles.items():
        (workspace.data / f"{split}.json").write_text(json.dumps({"version": "v2.0", "data": data}))
    return parts


def random_model(workspace: Workspace) -> FalconForCausalLM:
    texts = [(workspace.data / f"{split}.json").read_text() for split in ("train", "dev")]
    tokenizer = train_tokenizer(iter([*texts, f"Answer: unanswerable. {WRONG}"] * 2), vocabulary=2048, longest=2048)
    config = FalconConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = FalconForCausalLM(config)
    tokenizer.save_pretrained(workspace.data / "tiny")
    model.save_pretrained(workspace.data / "tiny")
    return model


def teach(model: FalconForCausalLM, encoder: PromptEncoder, rows: list[EncodedPassage], parts: dict[str, str]) -> None:
    """Train all weights until the model says its part by heart."""
    sequences = []
    for row in rows:
        for question in row.questions:
            part = parts[question.id]
            if part == "free":
                continue
            gold = question.answers[0] if question.answers else None
            answer = {"right": gold, "wrong": WRONG, "abstains": None, "no answer": None}[part]
            if answer is not None and part == "right" and answer not in (row.context or ""):
                answer = None  # a window without the answer
            sequences.append(([*row.prefix_ids, *question.prompt_ids], encoder.answers([answer])[0]))
    width = max(len(prompt) + len(answer) for prompt, answer in sequences)
    ids = torch.full((len(sequences), width), encoder.pad_token_id)
    labels = torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(sequences):
        ids[i, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        labels[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(300):
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if loss.item() < 0.05:
                break
    assert loss.item() < 0.1, f"the model of the test did not learn its part: loss {loss.item():.2f}"


def write_adapter(workspace: Workspace, params: Params, size: float = 0.05) -> None:
    """Write an adapter with weights that are not zero."""
    model = add_adapter(base_of(workspace), params.lora, seed=0)
    randomize(model, size)
    workspace.adapter.mkdir(parents=True, exist_ok=True)
    save_adapter(model, workspace.adapter, params.model)


def randomize(model, size: float) -> None:
    generator = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = size * torch.randn(weight.shape, generator=generator)


def official(predictions: dict[str, str], golds: dict[str, list[str]]) -> dict[str, tuple[float, float]]:
    """Score exact match and F1 of each question as evaluate-v2.0.py does, written down a second time."""
    return {name: _best(predictions[name], golds[name] or [""]) for name in golds}


def mean(scores: list[tuple[float, float]], column: int) -> float:
    return 100 * sum(score[column] for score in scores) / len(scores)


def _best(answer: str, golds: list[str]) -> tuple[float, float]:
    pairs = [(_words(answer), _words(gold)) for gold in golds]
    return max(float(a == g) for a, g in pairs), max(_f1(a, g) for a, g in pairs)


def _words(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    same = sum((Counter(answer) & Counter(gold)).values())
    return 2 * same / (len(answer) + len(gold))
