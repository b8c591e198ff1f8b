"""The command line. Commands are thin and import what they need only when they run, so `--help` is instant."""

import logging
import os
import sys
from pathlib import Path

import click

from falcon_job import __version__
from falcon_job.errors import JobError, MachineError, Stopped
from falcon_job.pipeline import STAGES

EXIT_CODES = """\b
Exit codes:
  0         done
  1         the run failed
  2         bad params, data or usage
  3         the job cannot run on this machine
  130, 143  stopped by a signal
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__)
def cli() -> None:
    """Fine-tune Falcon models to answer questions about passages.

    `falcon-job run` runs the whole job. All settings that change a result are in params.yaml. Settings that only change
    speed or memory are FALCON_JOB_* environment variables.
    """


def _stage_command(name: str, text: str) -> click.Command:
    def command() -> None:
        from falcon_job.stages.running import run_stage

        run_stage(name)

    more = f"Runs this stage only. `falcon-job run {name}` also runs the stages it depends on, if they are out of date."
    return click.Command(name, callback=command, help=f"{text}\n\n{more}")


for _name, _text in STAGES.items():
    cli.add_command(_stage_command(_name, _text))


@cli.command(epilog=f"Stages: {', '.join(STAGES)}")
@click.argument("stage", required=False, metavar="[STAGE]", type=click.Choice([*STAGES]))
def run(stage: str | None) -> None:
    """Run the stages that are out of date.

    Without STAGE, this covers the whole pipeline; with STAGE, that stage and the stages it depends on. Wraps `dvc
    repro`. If a stage fails, exits with that stage's code.
    """
    from falcon_job.commands.run import run as run_pipeline

    run_pipeline(stage)


@cli.command()
def summary() -> None:
    """Print the scores of the last run and the paths of its files."""
    from falcon_job.params import load_params
    from falcon_job.reporting.summary import print_summary
    from falcon_job.workspace import Workspace

    workspace = Workspace.find()
    print_summary(load_params(workspace.params), workspace)


@cli.command()
@click.argument("name", required=False)
def preset(name: str | None) -> None:
    """Write params.yaml from a preset, or list the presets.

    `falcon-job preset NAME` overwrites params.yaml with presets/NAME.yaml.
    """
    from falcon_job.commands.preset import list_presets, write_preset
    from falcon_job.workspace import Workspace

    if name is None:
        click.echo(list_presets(Workspace.find()), nl=False)
    else:
        write_preset(Workspace.find(), name)
        click.echo(f"Wrote preset {name} to params.yaml. Train with `falcon-job run`.")


@cli.command()
@click.option("--train", required=True, metavar="FILE", help="The questions to train on.")
@click.option("--dev", required=True, metavar="FILE", help="The questions to score the trained model on.")
def data(train: str, dev: str) -> None:
    """Import your own questions.

    Checks both files, copies them into data/ and sets dataset.train and dataset.dev in params.yaml. If a file has
    errors, nothing is changed.

    \b
    Formats:
      .json            SQuAD v1.1 or v2.0
      .jsonl .parquet  one row per question, as in squad_v2 on the Hub
      .jsonl .csv      question-answer pairs without passages
    """
    from falcon_job.commands.data import import_data
    from falcon_job.workspace import Workspace

    import_data(Workspace.find(), train, dev)
    click.echo("Copied your questions into data/ and updated params.yaml. Train on them with `falcon-job run`.")


@cli.command()
@click.option(
    "--from", "folder", type=click.Path(path_type=Path), help="Folder of an export or adapter. [default: this clone's]"
)
@click.option("--context", type=click.Path(path_type=Path, dir_okay=False), help="A text file with the passage.")
@click.option("--question", help="One question about the passage.")
@click.option(
    "--input", "questions", type=click.Path(path_type=Path, dir_okay=False), help="A JSONL file of questions."
)
@click.option("--json", "as_json", is_flag=True, help="Print each answer as a JSON object.")
def ask(
    folder: Path | None, context: Path | None, question: str | None, questions: Path | None, *, as_json: bool
) -> None:
    """Answer questions with the trained model.

    Give one question with --question, or many with --input: each line is a JSON object with `question` and `context`.
    With neither, type questions, one per line. The model is loaded once.
    """
    from falcon_job.commands.ask import ask as ask_model

    ask_model(folder, context, question, questions, as_json=as_json)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def doctor(*, as_json: bool) -> None:
    """Check whether the job can run on this machine.

    Prints how to fix each problem. Exits with 3 if there is one.
    """
    try:
        from falcon_job.commands.doctor import doctor as examine
    except ImportError as error:
        raise MachineError(
            f"The environment is incomplete ({error})", fix="recreate it with `rm -rf .venv && make env`"
        ) from None
    examine(as_json=as_json)


def main() -> None:
    """Run the command line. A `JobError` is printed as one message and sets the exit code."""
    logging.getLogger().addHandler(logging.NullHandler())  # library messages and warnings only go to log files
    logging.captureWarnings(capture=True)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read by libraries when they are imported
    try:
        cli.main(standalone_mode=False)
    except JobError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except Stopped as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
