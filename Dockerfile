# Three images from one file: `docker build --target server|job|airflow .`; the last one, airflow, is the default.
# `make prove-images` builds them with podman and looks whether they do their work.
#
# BASE_IMAGE   any Debian-like image with Python 3.11 as python3, its pip and venv, and CA certificates
# TORCH_INDEX  where torch for no graphics card is found: PyTorch's own index, another one, or, if it is empty, wherever
#              pip looks anyway. docker/torch.txt names the two files that count; pip takes no other.
#
# Everything comes from package indexes, by wheels whose digests stand in uv.lock: no code of a package runs while
# an image is built, and no compiler is needed. pip's own settings (an index, a proxy's certificate) come as the secrets
# `pip` (a pip.conf) and `ca` (certificates; pip.conf names /run/secrets/ca), and stay in no layer:
#   docker build --secret id=pip,src=pip.conf --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt ...
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ENV PYTHONPATH=/opt/evergreen:/opt/evergreen/plugins \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    SCARF_ANALYTICS=false
# No pip in the environment: the base image's own fills it, which is `python3` until PATH names the environment. The
# lists are complete, so pip resolves nothing; `pip check` then finds what one of them may lack.
RUN python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "the lock is for Python 3.11")' \
    && python3 -m venv --without-pip /opt/venv \
    && useradd --uid 10001 --create-home evergreen
WORKDIR /opt/evergreen

# --- the list of each image, from the one lock; uv itself comes by its digests in requirements.txt, and uses no network ---
FROM base AS lists
WORKDIR /lists
COPY pyproject.toml uv.lock requirements.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip="python3 -m pip --python /opt/venv/bin/python --no-cache-dir --disable-pip-version-check" \
    && locked="--require-hashes --no-deps --only-binary=:all:" \
    && sed -n '/^uv==/,/[^\\]$/p' requirements.txt > uv.txt && $pip install $locked -r uv.txt \
    && list="/opt/venv/bin/uv export --quiet --frozen --offline --no-annotate --no-header" \
    && $list --only-group server --output-file server.txt \
    && $list --only-group job --output-file job.txt \
    && $list --no-default-groups --group airflow-image --output-file airflow.txt

# --- what one model server needs, and nothing of Airflow, MLflow or torch -----------------------------------------------
FROM base AS server
COPY --from=lists /lists/server.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip="python3 -m pip --python /opt/venv/bin/python --no-cache-dir --disable-pip-version-check" \
    && locked="--require-hashes --no-deps --only-binary=:all:" \
    && $pip install $locked -r server.txt && $pip check
ENV PATH=/opt/venv/bin:$PATH
COPY include include
RUN python -m compileall -q include && install -d -o evergreen /serving
ENV EVERGREEN_BIND=0.0.0.0 \
    EVERGREEN_PORT=8000 \
    EVERGREEN_SERVING_DIR=/serving
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=2s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['EVERGREEN_PORT'] + '/health', timeout=2)"]
# EVERGREEN_SLOT (blue or green) has no default: the server says so and ends.
CMD ["python", "-m", "include.serving"]

# --- what a job needs: training, evaluation, monitoring; no Airflow -----------------------------------------------------
FROM base AS job
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY docker/torch.txt ./
COPY --from=lists /lists/job.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip="python3 -m pip --python /opt/venv/bin/python --no-cache-dir --disable-pip-version-check" \
    && locked="--require-hashes --no-deps --only-binary=:all:" \
    && $pip install $locked ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt \
    && $pip install $locked -r job.txt && $pip check
ENV PATH=/opt/venv/bin:$PATH
COPY include include
RUN python -m compileall -q include
USER 10001
CMD ["python", "-m", "include.jobs"]

# --- Airflow, with all that local jobs need: the scheduler starts them as processes -------------------------------------
FROM base AS airflow
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY docker/torch.txt ./
COPY --from=lists /lists/airflow.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip="python3 -m pip --python /opt/venv/bin/python --no-cache-dir --disable-pip-version-check" \
    && locked="--require-hashes --no-deps --only-binary=:all:" \
    && $pip install $locked ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt \
    && $pip install $locked -r airflow.txt && $pip check
ENV PATH=/opt/venv/bin:$PATH
COPY include include
COPY plugins plugins
COPY dags dags
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/evergreen/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/evergreen/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS=False
# Volumes take over the owner of the directory they are mounted on. The second name of the user, the second path and the
# label are for the Astro CLI, which finds the tree, the logs and the user only where its own image has them.
RUN python -m compileall -q include plugins dags \
    && install -d -o evergreen /opt/airflow /opt/airflow/logs /var/lib/evergreen /var/lib/mlflow \
    && useradd --non-unique --uid 10001 --gid evergreen --no-create-home astro \
    && ln -s /opt/airflow/logs /opt/evergreen/logs \
    && ln -s /opt/evergreen /usr/local/airflow
LABEL io.astronomer.docker.runtime.version=3.3-1
USER 10001
CMD ["airflow", "version"]
