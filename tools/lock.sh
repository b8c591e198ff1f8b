#!/bin/sh
# Resolve requirements.lock from pyproject.toml: one lock for Linux, macOS and Windows, CPU and CUDA.
# torch stays plain and without its CUDA packages: the build that pip finds names the ones it needs.
# pip, which pip-audit needs, is the environment's own: a pip that runs cannot replace itself on Windows.
set -eu
cd "$(dirname "$0")/.."
resolved=$(env -u UV_FIND_LINKS .venv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	--no-emit-package pip --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links)
{
	echo "# Made by make lock from pyproject.toml; do not edit."
	echo "$resolved" | sed -E '/^(nvidia|cuda|triton)[a-z0-9-]*==/d'
} > requirements.lock
