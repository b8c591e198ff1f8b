#!/bin/sh
# Resolve requirements.lock from pyproject.toml: one lock for Linux, macOS and Windows, CPU and CUDA.
# torch is pinned without a build tag and without its CUDA packages: the build that pip finds requires the ones it needs.
# pip, which pip-audit needs, is left out: on Windows a running pip cannot replace itself.
set -eu
cd "$(dirname "$0")/.."
resolved=$(env -u UV_FIND_LINKS .venv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	--no-emit-package pip --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links)
{
	echo "# Made by make lock from pyproject.toml; do not edit."
	echo "$resolved" | sed -E '/^(nvidia|cuda|triton)[a-z0-9-]*==/d'
} > requirements.lock
