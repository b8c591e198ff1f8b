#!/bin/sh
# Run a command inside the image, on this checkout, as the calling user:
#     ENGINE=… IMAGE=… GPUS=… tools/container.sh COMMAND …
# Works with Docker and podman, also rootless. CONTAINER_ARGS holds further arguments for the engine, such as mounts.
set -eu
cd "$(dirname "$0")/.."

fail() {
	echo "$1" >&2
	exit 2
}

command -v "$ENGINE" >/dev/null ||
	fail "$ENGINE is not installed: install Docker or podman (ENGINE=podman), or use make train without a container"
[ -f .git ] && fail "$PWD is a Git worktree, so its repository lies outside: use a clone"
"$ENGINE" image inspect "$IMAGE" >/dev/null 2>&1 || make image ENGINE="$ENGINE" IMAGE="$IMAGE" >&2

weights=${HF_HOME:-$HOME/.cache/huggingface}
mkdir -p "$weights"
weights=$(cd "$weights" && pwd)

if [ -t 0 ] && [ -t 1 ]; then terminal=-it; else terminal=-i; fi

# `docker` may really be podman.
case $("$ENGINE" --version) in *podman*) podman=yes ;; *) podman= ;; esac

# Print the engine's user options. The caller must own the files that the container writes, and must keep access to files
# of its groups. If root calls, the container runs as the owner of the checkout. Rootless Docker maps root to the caller;
# podman with keep-id maps each id to itself.
user() {
	if [ "$(id -u)" = 0 ]; then
		echo "--user $(stat -c %u:%g .)"
	elif [ "$podman" ]; then
		echo "--userns keep-id --user $(id -u):$(id -g)"
	elif "$ENGINE" info --format '{{.SecurityOptions}}' | grep -q rootless; then
		echo "--user 0:0"
	else
		echo "--user $(id -u):$(id -g)"
		for each in $(id -G); do echo "--group-add $each"; done
	fi
}

# Print the engine's GPU options: all GPUs or those that GPUS lists, nothing on a machine without GPUs. podman uses CDI.
gpus() {
	if [ "$GPUS" = none ]; then
		return
	elif ! nvidia-smi --list-gpus >/dev/null 2>&1; then
		[ "$GPUS" = all ] || fail "GPUS=$GPUS, but nvidia-smi finds no GPU: fix the driver, or use GPUS=none to run on the CPU"
		echo "nvidia-smi finds no GPU: the container runs on the CPU" >&2
	elif [ "$podman" ]; then
		for each in $(echo "$GPUS" | tr , ' '); do echo "--device nvidia.com/gpu=$each"; done
	elif [ "$GPUS" = all ]; then
		echo "--gpus all"
	else
		echo "--gpus \"device=$GPUS\""
	fi
}

# Print options that pass variables on by name only, so that no value appears in a command line. Unset ones stay unset.
variables() {
	for each in HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE OMP_NUM_THREADS HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy \
		$(env | sed -n 's/^\(FALCON_JOB_[A-Z_]*\)=.*/\1/p'); do
		echo "--env $each"
	done
}

devices=$(gpus)
# shellcheck disable=SC2046,SC2086
exec "$ENGINE" run --rm $terminal $(user) $devices $(variables) \
	--security-opt label=disable --security-opt no-new-privileges --shm-size 8g --stop-timeout 120 \
	--mount "type=bind,source=$PWD,target=/job" --mount "type=bind,source=$weights,target=/hf" \
	${CONTAINER_ARGS:-} "$IMAGE" "$@"
