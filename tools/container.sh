#!/bin/sh
# Run a command inside the image, on this checkout, as the caller: ENGINE=… IMAGE=… GPUS=… tools/container.sh COMMAND …
# Docker and podman, as root or rootless. CONTAINER_ARGS holds more arguments for the engine, mounts for example.
set -eu
cd "$(dirname "$0")/.."

if ! command -v "$ENGINE" >/dev/null; then
	echo "$ENGINE is not on this machine: install Docker or podman (ENGINE=podman), or use make train without a container" >&2
	exit 2
fi
"$ENGINE" image inspect "$IMAGE" >/dev/null 2>&1 || make image ENGINE="$ENGINE" IMAGE="$IMAGE" >&2

weights=${HF_HOME:-$HOME/.cache/huggingface}
mkdir -p "$weights"

# -t makes of a signal what the terminal does with it, so only where there is a terminal
if [ -t 0 ] && [ -t 1 ]; then terminal=-it; else terminal=; fi

# A command named docker may be podman.
case $("$ENGINE" --version) in *podman*) podman=yes ;; *) podman= ;; esac

# Files written inside must be the caller's: a rootless engine maps root to the caller, podman with keep-id each number
# to itself.
user() {
	if [ "$podman" ] && [ "$(id -u)" != 0 ]; then
		echo "--userns keep-id --user $(id -u):$(id -g)"
	elif [ ! "$podman" ] && "$ENGINE" info --format '{{.SecurityOptions}}' | grep -q rootless; then
		echo "--user 0:0"
	else
		echo "--user $(id -u):$(id -g)"
	fi
}

# All GPUs or those that GPUS numbers, by podman through CDI; none where the machine has none.
gpus() {
	if [ "$GPUS" = none ] || ! nvidia-smi --list-gpus >/dev/null 2>&1; then return; fi
	if [ "$podman" ]; then
		for each in $(echo "$GPUS" | tr , ' '); do echo "--device nvidia.com/gpu=$each"; done
	elif [ "$GPUS" = all ]; then
		echo "--gpus all"
	else
		echo "--gpus \"device=$GPUS\""
	fi
}

# By name alone, so that no value stands in a command line; what is not set here is not set inside.
variables() {
	for each in HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy \
		$(env | sed -n 's/^\(FALCON_JOB_[A-Z_]*\)=.*/\1/p'); do
		echo "--env $each"
	done
}

# shellcheck disable=SC2046,SC2086
exec "$ENGINE" run --rm $terminal $(user) $(gpus) $(variables) \
	--security-opt label=disable --shm-size 8g --stop-timeout 120 \
	--volume "$PWD:/job" --volume "$weights:/hf" ${CONTAINER_ARGS:-} "$IMAGE" "$@"
