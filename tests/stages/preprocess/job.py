"""A clone with a base model, fetched files that a test writes, and what the preprocess stage makes of them."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from falcon_job.errors import InputError
from falcon_job.machine import Machine
from falcon_job.params import Params, validate
from falcon_job.sources.base_model import pin
from falcon_job.stages.preprocess import preprocess
from falcon_job.tokens.dataset import Split
from falcon_job.workspace import Workspace

ROOT = Path(__file__).parents[3]
WORDS = ("harbour", "tide", "gull", "captain", "rope", "1873", "4.5", "caf\u00e9")
SPLITS = ("train", "validation", "dev")


@dataclass
class Job:
    """A clone with a base model, of which a test writes the fetched files."""

    workspace: Workspace

    def model(self, source: Path) -> None:
        """Pin the tokenizer in a folder as that of the base model."""
        folder = self.workspace.data / "model"
        shutil.copytree(source, folder, dirs_exist_ok=True)
        if not (folder / "config.json").exists():
            (folder / "config.json").write_text("{}")
        save_file({"w": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")
        pin(self.params().model, self.workspace).write(self.workspace.base)

    def params(self, template: str = "squad-v2", **preprocess) -> Params:
        content = YAML(typ="safe").load(ROOT / "presets" / "demo.yaml")
        content["model"] = {**content["model"], "source": "data/model", "revision": None}
        content["prompt"] = {"template": template}
        content["preprocess"] = {"max_tokens": 384, "validation_fraction": 0.1, "limit": None, "seed": 0, **preprocess}
        return validate(content, "params.yaml")

    def raw(self, split: str, suffix: str, content) -> None:
        """Write a fetched file; `content` is a SQuAD document or a list of rows."""
        self.workspace.raw.mkdir(parents=True, exist_ok=True)
        for old in self.workspace.raw.glob(f"{split}.*"):
            old.unlink()
        path = self.workspace.raw / f"{split}{suffix}"
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), path)
        elif suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(content[0]))
                writer.writeheader()
                writer.writerows(content)
        elif suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")

    def run(self, template: str = "squad-v2", **settings) -> dict:
        preprocess(self.params(template, **settings), Machine(), self.workspace)
        return json.loads((self.workspace.reports / "data.json").read_text())

    def split(self, name: str) -> list:
        split = Split(self.workspace.dataset / f"{name}.arrow")
        return [split[i] for i in range(len(split))]

    def ids(self, name: str) -> list[str]:
        return [question.id for row in self.split(name) for question in row.questions]

    def fails(self, **settings) -> str:
        with pytest.raises(InputError) as caught:
            self.run(**settings)
        assert caught.value.exit_code == 2
        left = [path.name for path in self.workspace.build.iterdir()]
        assert sorted(left) == ["base.json", "raw"]
        assert not (self.workspace.reports / "data.json").exists()
        return str(caught.value)


def squad(name: str, articles: int, passages: int, questions: int, words: int = 20, version: int = 2) -> dict:
    """Invented articles; each third question of version 2 is unanswerable."""
    data = []
    for a in range(articles):
        paragraphs = []
        for p in range(passages):
            text = " ".join(WORDS[(a * 31 + p * 7 + w * (p + 3)) % len(WORDS)] + str(a * 10 + p) for w in range(words))
            qas = []
            for q in range(questions):
                start = text.index(" ", len(text) * q // questions) + 1 if q else 0
                answer = {"text": text[start:].split()[0], "answer_start": start}
                asked = {"id": f"{name}-{a}-{p}-{q}", "question": f"Which word is number {q}?"}
                if version == 1:
                    qas.append({**asked, "answers": [answer]})
                else:
                    impossible = q % 3 == 2
                    qas.append({**asked, "answers": [] if impossible else [answer], "is_impossible": impossible})
            paragraphs.append({"context": text, "qas": qas})
        data.append({"title": f"{name} {a}", "paragraphs": paragraphs})
    return {"version": f"v{version}.0", "data": data}


def flat(document: dict) -> list[dict]:
    rows = []
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question["answers"]
                rows.append(
                    {
                        "id": question["id"],
                        "title": article["title"],
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": {
                            "text": [answer["text"] for answer in answers],
                            "answer_start": [answer["answer_start"] for answer in answers],
                        },
                    }
                )
    return rows


def pairs(name: str, count: int) -> list[dict]:
    return [{"id": f"{name}-{i}", "question": f"{name}: what is {i} + 1?", "answer": f"{i + 1}"} for i in range(count)]


def written(job: Job) -> dict[str, bytes]:
    paths = [*job.workspace.dataset.iterdir(), job.workspace.reports / "data.json"]
    return {path.name: path.read_bytes() for path in paths}


def all_questions(document: dict) -> dict[str, tuple[str, str, dict]]:
    """Each question by id, with its article and context."""
    return {
        question["id"]: (article["title"], paragraph["context"], question)
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    }
