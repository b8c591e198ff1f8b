# The image holds everything that the job needs, but not the job. The code is the checkout, mounted on /job, so that DVC
# hashes the code that runs. `make image` builds the image, `make container-train` uses it.

ARG BASE_IMAGE=docker.io/nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE_IMAGE} AS builder
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /opt/venv/
# For a driver too old for the CUDA version that torch comes with: an index of torch builds for another CUDA version.
ARG TORCH_INDEX=
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/venv \
 && if [ -n "$TORCH_INDEX" ]; then \
        /opt/venv/bin/pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' /opt/venv/requirements.lock)"; \
    fi \
 && /opt/venv/bin/pip install --quiet --requirement /opt/venv/requirements.lock


FROM ${BASE_IMAGE} AS job
# Triton needs gcc and Python's headers: it compiles a launcher for each of its kernels.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc git libc6-dev make python3 python3-dev tini \
 && rm -rf /var/lib/apt/lists/*
COPY --from=builder /opt/venv /opt/venv
# safe.directory: the checkout may belong to another user, and libgit2 reads this setting only from a file.
# The identity is for experiments and commits, if the checkout does not configure one.
RUN git config --system --add safe.directory '*' \
 && git config --system user.name falcon-job \
 && git config --system user.email falcon-job@localhost \
 && install -d -m 1777 /hf
COPY --chmod=0755 tools/falcon-job.sh /usr/local/bin/falcon-job
# Any uid can run the image, and the root file system may be read-only: weights go to /hf, temporary files to /tmp and
# everything else to /job. A uid without a name needs USER and LOGNAME. DVC starts its stages with SHELL.
ENV PATH=/opt/venv/bin:$PATH \
    FALCON_JOB_IMAGE=1 \
    HOME=/tmp \
    USER=job \
    LOGNAME=job \
    SHELL=/bin/sh \
    LANG=C.UTF-8 \
    PYTHONPATH=/job \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/hf \
    HF_MODULES_CACHE=/tmp/hf-modules \
    HF_DATASETS_CACHE=/tmp/hf-datasets \
    HF_EVALUATE_CACHE=/tmp/hf-evaluate \
    HF_METRICS_CACHE=/tmp/hf-metrics \
    DVC_SITE_CACHE_DIR=/tmp/dvc \
    DVC_NO_ANALYTICS=1
WORKDIR /job
USER 10001:10001
# -g: forward signals to the whole process group, so that they also reach what a shell or make started.
ENTRYPOINT ["tini", "-g", "--"]
CMD ["falcon-job", "run"]


# `make container-test` builds this stage, which runs the tests marked `container` as the image's own user.
FROM job AS test
COPY --chown=10001:10001 . /job/
# DVC needs a Git repository to unpack the bundled data.
RUN git init --quiet && python -m pytest -m container


FROM job AS runtime
ARG BASE_IMAGE
ARG REVISION=
LABEL org.opencontainers.image.title="falcon_job" \
      org.opencontainers.image.description="Fine-tune Falcon models to answer questions about passages" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="$BASE_IMAGE"
