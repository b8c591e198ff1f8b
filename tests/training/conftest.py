import random
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from transformers import PreTrainedModel

from falcon_job.params import load_params
from falcon_job.sources.base_model import pin
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion, write_split
from falcon_job.workspace import Workspace
from tests.tiny_models import VOCABULARY, falcon_7b_type

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {
    "model": {"source": "base"},
    "lora": {"r": 4},
    "train": {"epochs": 2, "questions_per_step": 6, "learning_rate": 0.01, "warmup_ratio": 0.1, "logging_steps": 1},
}


def passages(count: int, seed: int) -> list[EncodedPassage]:
    draw = random.Random(seed)

    def tokens(low: int, high: int) -> list[int]:
        return [draw.randrange(2, VOCABULARY) for _ in range(draw.randint(low, high))]

    def question(number: int, k: int) -> EncodedQuestion:
        return EncodedQuestion(f"{number}-{k}", "?", ["a"], tokens(2, 5), [*tokens(1, 4), 1])

    return [
        EncodedPassage(
            number, "article", "text", tokens(8, 20), [question(number, k) for k in range(draw.randint(1, 6))]
        )
        for number in range(count)
    ]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace that is ready to train a tiny Falcon."""
    return make_workspace(tmp_path, falcon_7b_type())


def make_workspace(folder: Path, model: PreTrainedModel) -> Workspace:
    """Return a workspace in a folder that is ready to train a model."""
    shutil.copyfile(REPOSITORY / "dvc.yaml", folder / "dvc.yaml")
    (folder / "falcon_job").symlink_to(REPOSITORY / "falcon_job")
    model.save_pretrained(folder / "base")
    (folder / "base" / "tokenizer.json").write_text("{}", encoding="utf-8")
    workspace = Workspace(folder)
    write_split(workspace.dataset / "train.arrow", passages(12, seed=1))
    write_split(workspace.dataset / "validation.arrow", passages(4, seed=2))
    write_params(workspace)
    pin(load_params(workspace.params).model, workspace).write(workspace.base)
    return workspace


def write_params(workspace: Workspace, **changes: dict[str, object]) -> None:
    """Write the repository's params.yaml with `SETTINGS` and `changes`, group by group."""
    yaml = YAML()
    content = yaml.load((REPOSITORY / "presets" / "demo.yaml").read_text(encoding="utf-8"))
    for settings in (SETTINGS, changes):
        for group, values in settings.items():
            content[group].update(values)
    with workspace.params.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
