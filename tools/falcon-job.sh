#!/bin/sh
# The image's `falcon-job`: the one of the checkout that is mounted on /job, on the libraries that it is locked to.
if ! [ -d /job/falcon_job ]; then
	echo "No checkout is mounted on /job: start the container with --volume CLONE:/job" >&2
	exit 2
fi
if ! cmp -s /job/requirements.lock /opt/venv/requirements.lock; then
	echo "This image holds other libraries than the checkout's requirements.lock names: make it anew with make image" >&2
	exit 2
fi
exec python -m falcon_job "$@"
