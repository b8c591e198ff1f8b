"""How full packs are on real questions: needs FALCON_JOB_SQUAD, a folder with train.json of SQuAD 2.0."""

import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from falcon_job.packing import Packer
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.records.dataset import read_passages
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion, Split, write_split
from falcon_job.training.steps import StepDataset

FOLDER = os.environ.get("FALCON_JOB_SQUAD")
pytestmark = pytest.mark.skipif(not FOLDER, reason="FALCON_JOB_SQUAD names no folder with SQuAD 2.0")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Real questions, in tokens about as long as Falcon's."""
    passages = read_passages(Path(FOLDER or "") / "train.json")
    template = TEMPLATES["squad-v2"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    settings = trainers.BpeTrainer(
        vocab_size=16000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(
        [text for p in passages for text in (p.text, *(question.text for question in p.questions))], settings
    )

    def ids(text):
        return tokenizer.encode(text).ids

    def encoded(question):
        answer = question.answers[0].text if question.answers else None
        prompt = ids(template.question_text(question.text, closed_book=False))
        return EncodedQuestion(question.id, question.text, [], prompt, [*ids(template.answer_text(answer)), 0])

    rows = (
        EncodedPassage(i, "", p.text, ids(template.shared_text(p.text)), [encoded(q) for q in p.questions])
        for i, p in enumerate(passages)
    )
    path = tmp_path_factory.mktemp("squad") / "train.arrow"
    write_split(path, rows)
    return Split(path)


@pytest.mark.parametrize(("questions", "least"), [(256, 0.94), (1024, 0.97)])
def test_packs_are_full(split, questions, least):
    taken = filled = 0
    for seed in range(4):
        steps = StepDataset(split, questions, Packer.block_sparse(8192), seed)
        for step in range(len(steps) - 1):  # the last is smaller
            taken += sum(map(len, steps[step]["packs"]))
            filled += sum(map(len, steps.trees(step)))
    assert filled / taken >= least


def test_sharing_what_questions_begin_with_saves_slots(split):
    trees = StepDataset(split, 3000, Packer.block_sparse(8192), 0).trees(0)
    apart = sum(len(tree.prefix_ids) + sum(map(len, tree.branches)) for tree in trees)
    assert sum(map(len, trees)) < 0.93 * apart
