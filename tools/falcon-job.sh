#!/bin/sh
# The image's `falcon-job` command: runs the checkout mounted on /job, with the libraries that it locks.
if ! [ -d /job/falcon_job ]; then
	echo "No checkout is mounted on /job: start the container with --volume CLONE:/job" >&2
	exit 2
fi
if ! cmp -s /job/requirements.lock /opt/venv/requirements.lock; then
	echo "The image's libraries differ from the checkout's requirements.lock: build the image again with make image" >&2
	exit 2
fi
exec python -m falcon_job "$@"
