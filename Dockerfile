# openrs in an image: the software of one lock and nothing else, the same layers from the same sources (docs/docker.md).
#
#   ./scripts/image                     CUDA where there is a GPU, else CPU; prints the time and the size of each layer
#   docker build .                      the same, for the CUDA lock
#   docker build --build-arg LOCK=cpu .              for laptops and CI
#   docker build --target paper .                    the paper's own evaluation software of March 2025
#   docker build --target sbom --output sbom .       CycloneDX bill of materials and provenance, as files
#
# No "# syntax=" line: it would fetch a program from a registry before anything else. Needs BuildKit (Docker 23 or newer).
ARG BASE=nvidia/cuda:13.0.3-cudnn-runtime-ubuntu24.04@sha256:14f6d08d1cd4a96effbfe3101d0b56326f552c199d05e4979ee0bd616df5811b
ARG PAPER_BASE=nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04@sha256:622e78a1d02c0f90ed900e3985d6c975d8e2dc9ee5e61643aed587dcf9129f42

# Wheels that come from a folder and not from an index: docker build --build-context wheels=FOLDER takes this place.
FROM scratch AS wheels

# --- what the system brings: Python, tini, and a compiler, which triton and DeepSpeed call at run time -------------------------------
FROM ${BASE} AS system
# Ubuntu's archive as of a time, e.g. 20261115T000000Z (snapshot.ubuntu.com). Empty: as it is now.
ARG APT_SNAPSHOT=
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Versions are the archive's of that time, and stand in the provenance: a pin here would be gone from the archive in a month.
# hadolint ignore=DL3008
RUN --mount=type=bind,source=docker/same-times,target=/build/same-times \
    /build/same-times begin; \
    rm -f /etc/apt/sources.list.d/cuda*; \
    apt-get -o APT::Snapshot="$APT_SNAPSHOT" update; \
    DEBIAN_FRONTEND=noninteractive apt-get -o APT::Snapshot="$APT_SNAPSHOT" install -y --no-install-recommends \
      ca-certificates g++ libc6-dev python3 python3-dev python3-venv tini; \
    apt-get clean; \
    rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* /var/lib/dpkg/*-old; \
    echo 'openrs:x:10001:10001:openrs:/tmp:/usr/sbin/nologin' >>/etc/passwd; \
    echo 'openrs:x:10001:' >>/etc/group; \
    install -d -m 1777 /data /data/runs /data/cache /data/cache/huggingface; \
    /build/same-times end

# --- what builds, and is in no image ---------------------------------------------------------------------------------------------------
FROM system AS tools
RUN --mount=type=cache,target=/build/cache/pip \
    --mount=type=bind,source=locks/image.txt,target=/build/image.txt \
    python3 -m venv /opt/tools; \
    /opt/tools/bin/pip install --quiet --disable-pip-version-check --cache-dir /build/cache/pip --require-hashes \
      -r /build/image.txt

# The lock alone, so that a change of another one rebuilds nothing. cuda: locks/cuda-py3NN.txt, for the base's Python; else locks/NAME.txt
FROM scratch AS lock
ARG LOCK=cuda
COPY locks/${LOCK}*.txt locks/image.txt /

# --- the packages of the lock ----------------------------------------------------------------------------------------------------------
FROM system AS dependencies
ARG LOCK=cuda
RUN --mount=type=cache,target=/build/cache/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=lock,target=/build/locks \
    --mount=type=bind,source=docker/same-times,target=/build/same-times \
    --mount=type=bind,source=docker/install-lock,target=/build/install-lock \
    --mount=type=bind,source=docker/compile,target=/build/compile \
    --mount=type=bind,source=scripts/lib/after_install.py,target=/build/after_install.py \
    /build/same-times begin; \
    python3 -m venv --without-pip /opt/openrs; \
    /build/install-lock "$LOCK" /opt/openrs; \
    /opt/openrs/bin/python -I /build/after_install.py; \
    /build/compile /opt/openrs/bin/python /opt/openrs/lib/python3*/site-packages/*; \
    /build/same-times end /opt/openrs

# --- openrs itself: a change of its code is built in seconds -----------------------------------------------------------------------
FROM dependencies AS project
WORKDIR /build/project
COPY pyproject.toml README.md LICENSE ./
COPY k8s/base k8s/base
COPY openrs openrs
ARG BASE
ARG LOCK=cuda
ARG REVISION=unknown
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=docker,target=/build/docker \
    /build/docker/project /staged

FROM project AS materials
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
      --output-file /openrs-sbom.cdx.json /opt/openrs/bin/python

FROM scratch AS sbom
COPY --from=materials /openrs-sbom.cdx.json /staged/openrs-provenance.json /

# --- the paper's own evaluation software (docs/docker.md): lighteval on vLLM 0.7.2, CUDA 12.4.1, from locks/paper-eval.txt --------------
FROM ${PAPER_BASE} AS paper
# A version: uv fetches that CPython (python-build-standalone, checked against uv's own hashes), for no index and no Ubuntu 22.04 has it.
# Or a path, e.g. /usr/bin/python3, where another 3.11 will do.
ARG PAPER_PYTHON=3.11.10
ARG PAPER_BASE
ARG REVISION=unknown
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN --mount=type=bind,source=docker/same-times,target=/build/same-times \
    /build/same-times begin; \
    rm -f /etc/apt/sources.list.d/cuda*; \
    apt-get update; \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates g++ libc6-dev tini; \
    apt-get clean; \
    rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* /var/lib/dpkg/*-old; \
    echo 'openrs:x:10001:10001:openrs:/tmp:/usr/sbin/nologin' >>/etc/passwd; \
    echo 'openrs:x:10001:' >>/etc/group; \
    install -d -m 1777 /data /data/runs /data/cache /data/cache/huggingface; \
    /build/same-times end
RUN --mount=type=cache,target=/build/cache/uv \
    --mount=type=bind,from=tools,source=/opt/tools/bin/uv,target=/opt/tools/bin/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=locks/image.txt,target=/build/locks/image.txt \
    --mount=type=bind,source=locks/paper-eval.txt,target=/build/locks/paper-eval.txt \
    --mount=type=bind,source=docker,target=/build/docker \
    /build/docker/same-times begin; \
    UV_CACHE_DIR=/build/cache/uv UV_PYTHON_INSTALL_DIR=/opt/python \
      /opt/tools/bin/uv venv --quiet --no-config --python "$PAPER_PYTHON" /opt/paper; \
    /build/docker/install-lock paper-eval /opt/paper; \
    /build/docker/compile /opt/paper/bin/python /opt/paper/lib/python3*/site-packages/*; \
    BASE="$PAPER_BASE" LOCK=paper-eval /opt/paper/bin/python -I /build/docker/provenance.py >/openrs-provenance.json; \
    /build/docker/same-times end /opt/paper
ENV PATH=/opt/paper/bin:$PATH HOME=/tmp USER=openrs LOGNAME=openrs HF_HOME=/data/cache/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1 GIT_PYTHON_REFRESH=quiet \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["tini", "--", "lighteval"]
CMD ["--help"]

# --- the image -------------------------------------------------------------------------------------------------------------------------
FROM dependencies AS openrs
COPY --from=project /staged /
# HOME: what can be written under a read-only root. USER: torch needs a user name, and the container may run as any user id.
# OMP_NUM_THREADS: with more, OpenMP's spinning makes training on a CPU ten times slower; GPUs do not mind.
# GIT_PYTHON_REFRESH: lighteval imports GitPython, which demands a git that nothing here calls.
# FlashInfer's sampler needs nvcc, which is not in the image: set explicitly, so that vLLM does not select it.
# OPENRS_COMPILE_CACHE: /tmp is empty at each start; what vLLM and Triton compile is kept in the cache volume (openrs/run/vllm_env.py).
ENV PATH=/opt/openrs/bin:$PATH HOME=/tmp USER=openrs LOGNAME=openrs \
    HF_HOME=/data/cache/huggingface HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1 \
    OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 VLLM_USE_FLASHINFER_SAMPLER=0 \
    GIT_PYTHON_REFRESH=quiet OPENRS_COMPILE_CACHE=/data/cache/compiled \
    OPENRS_LOCK=/opt/openrs/lock.txt
WORKDIR /data
USER 10001:10001
HEALTHCHECK --interval=2m --timeout=30s --start-period=1m CMD ["as-owner", "openrs", "doctor", "--quick"]
ENTRYPOINT ["tini", "--", "openrs"]
CMD ["--help"]
ARG REVISION=unknown
ARG VERSION=unknown
ARG LOCK=cuda
ARG LOCK_SHA256=unknown
ENV OPENRS_COMMIT=$REVISION
LABEL org.opencontainers.image.title="openrs" \
      org.opencontainers.image.description="GRPO on small models: run the Open-RS paper again, train your own" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      openrs.lock="$LOCK" \
      openrs.lock.sha256="$LOCK_SHA256"
