"""The command line: one thin command each; heavy imports happen inside, so that --help is instant."""

import logging
import os
import sys
from pathlib import Path

import click

from falcon_job import __version__
from falcon_job.errors import JobError, MachineError, Stopped
from falcon_job.pipeline import STAGES


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Fine-tune Falcon models to answer questions about passages.

    `falcon-job run` does all of it. The stages take no arguments: params.yaml holds all that changes a result.
    """


def _stage_command(name: str, text: str) -> click.Command:
    def command() -> None:
        from falcon_job.stages.running import run_stage

        run_stage(name)

    return click.Command(name, callback=command, help=f"{text} (A stage; reads params.yaml.)")


for _name, _text in STAGES.items():
    cli.add_command(_stage_command(_name, _text))


@cli.command()
@click.argument("stage", required=False, type=click.Choice([*STAGES]))
def run(stage: str | None) -> None:
    """Run all stages that are stale (`dvc repro`), or those up to STAGE."""
    from falcon_job.commands.run import run as run_pipeline

    run_pipeline(stage)


@cli.command()
def summary() -> None:
    """Print the scores of the last run and where its files lie."""
    from falcon_job.params import load_params
    from falcon_job.reporting.summary import print_summary
    from falcon_job.workspace import Workspace

    workspace = Workspace.find()
    print_summary(load_params(workspace.params), workspace)


@cli.command()
@click.argument("name", required=False)
def preset(name: str | None) -> None:
    """Write params.yaml from presets/NAME.yaml; without a name, list them."""
    from falcon_job.commands.preset import list_presets, write_preset
    from falcon_job.workspace import Workspace

    if name is None:
        click.echo(list_presets(Workspace.find()), nl=False)
    else:
        write_preset(Workspace.find(), name)
        click.echo(f"params.yaml is now preset {name}: `falcon-job run` runs it")


@cli.command()
@click.option("--train", required=True, metavar="FILE", help="Questions to train on.")
@click.option("--dev", required=True, metavar="FILE", help="Questions to score, once, at the end.")
def data(train: str, dev: str) -> None:
    """Bring in your own questions: validate, copy into data/, set params.yaml.

    SQuAD JSON (v1.1, v2.0), or flat rows or closed-book pairs in JSONL, Parquet or CSV.
    """
    from falcon_job.commands.data import import_data
    from falcon_job.workspace import Workspace

    import_data(Workspace.find(), train, dev)
    click.echo("data/ holds your questions and params.yaml names them: `falcon-job run` trains on them")


@cli.command()
@click.option("--from", "folder", type=click.Path(path_type=Path), help="Export or adapter. [default: this clone's]")
@click.option("--context", type=click.Path(path_type=Path, dir_okay=False), help="File with the passage.")
@click.option("--question", help="One question about it.")
@click.option("--input", "questions", type=click.Path(path_type=Path, dir_okay=False), help="JSONL of questions.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an answer.")
def ask(
    folder: Path | None, context: Path | None, question: str | None, questions: Path | None, *, as_json: bool
) -> None:
    """Answer questions with the trained model, which is loaded once.

    With --question one, with --input those of a file (rows of question and context), else whatever is typed.
    """
    from falcon_job.commands.ask import ask as ask_model

    ask_model(folder, context, question, questions, as_json=as_json)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, as_json: bool) -> None:
    """Check that the job runs on this machine, and say what to do where it does not."""
    try:
        from falcon_job.commands.doctor import doctor as examine
    except ImportError as error:
        raise MachineError(f"{error}: its environment is not whole, `rm -rf .venv && make env` makes it anew") from None
    examine(as_json=as_json)


def main() -> None:
    """Run the command line; turn errors of ours into one message and their exit code."""
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log and warn of is for a stage's log file
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
