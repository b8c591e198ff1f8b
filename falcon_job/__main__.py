"""`python -m falcon_job`: the command line."""

import sys

try:
    from falcon_job.cli import main

    if __name__ == "__main__":
        main()
except ModuleNotFoundError as error:
    sys.exit(
        f"Error: {sys.executable} has no package {error.name}: activate the environment (`. .venv/bin/activate`, on "
        "Windows `.venv\\Scripts\\activate`), or create it with `make env`"
    )
