import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_fetch_alone_sees_the_token_of_the_hub(tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    code = """
import importlib, os
from falcon_job.commands.stage import run_stage
for name in ("fetch", "preprocess"):
    os.environ["HF_TOKEN"] = os.environ["HUGGING_FACE_HUB_TOKEN"] = "secret"
    stage = importlib.import_module(f"falcon_job.stages.{name}")
    setattr(stage, name, lambda params, workspace: print(name, [key for key in os.environ if key.endswith("TOKEN")]))
    run_stage(name)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == ["fetch ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN']", "preprocess []"], done.stderr
