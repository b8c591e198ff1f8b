import pytest

from falcon_job.workspace import Workspace
from tests.made_tokenizers import TINY_FALCON
from tests.stages.preprocess.job import Job, squad


@pytest.fixture
def job(tmp_path):
    job = Job(Workspace(tmp_path))
    job.model(TINY_FALCON)
    job.raw("train", ".json", squad("train", articles=12, passages=3, questions=4))
    job.raw("dev", ".json", squad("dev", articles=2, passages=2, questions=3))
    return job
