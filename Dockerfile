# Three images from one file: `docker build --target server|job|airflow .`; the last one, airflow, is the default.
# Not built yet anywhere: this project is developed where no container engine runs. Versions come from the lock files.
#
# BASE_IMAGE   any Debian-like image with Python 3.11 as python3, venv and CA certificates
# TORCH_INDEX  another index for torch, such as PyTorch's CPU one; without it pip may take the much larger CUDA build
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/evergreen:/opt/evergreen/plugins \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DO_NOT_TRACK=1 \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    SCARF_ANALYTICS=false
RUN python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "the lock files are for Python 3.11")' \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --create-home evergreen
WORKDIR /opt/evergreen

# --- what one model server needs, and nothing of Airflow, MLflow or torch -----------------------------------------------
FROM base AS server
COPY requirements.server.txt ./
RUN pip install -r requirements.server.txt
COPY include include
ENV EVERGREEN_BIND=0.0.0.0 \
    EVERGREEN_PORT=8000 \
    EVERGREEN_SERVING_DIR=/serving
RUN install -d -o evergreen /serving
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=2s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['EVERGREEN_PORT'] + '/health', timeout=2)"]
# EVERGREEN_SLOT (blue or green) has no default: the server says so and ends.
CMD ["python", "-m", "include.serving"]

# --- what a job needs: training, evaluation, monitoring; no Airflow -----------------------------------------------------
FROM base AS job
ARG TORCH_INDEX
COPY requirements.job.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.job.txt)" \
    && pip install -r requirements.job.txt
COPY include include
USER 10001
CMD ["python", "-m", "include.jobs"]

# --- Airflow, with all that local jobs need: the scheduler starts them as processes -------------------------------------
FROM base AS airflow
ARG TORCH_INDEX
COPY requirements.txt ./
COPY docker/requirements.txt docker/
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.txt)" \
    && pip install -r requirements.txt -r docker/requirements.txt
COPY include include
COPY plugins plugins
COPY dags dags
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/evergreen/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/evergreen/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS=False
# Volumes take over the owner of the directory they are mounted on.
RUN install -d -o evergreen /opt/airflow /opt/airflow/logs /var/lib/evergreen /var/lib/mlflow
USER 10001
CMD ["airflow", "version"]
