# syntax=docker/dockerfile:1
# Tidegate for the node and every worker: which of them a container is, its command says.
#
#   docker build -t tidegate .
#   docker run --rm tidegate tidegate --help

# Not `-alpine`: chDB and others come as glibc wheels. The minor version is the one that the tests ran with.
FROM python:3.11-slim-bookworm AS build

WORKDIR /src
RUN python -m venv /opt/tidegate
COPY pyproject.toml constraints.txt README.md py.typed ./
COPY *.py ./
COPY schemas ./schemas
COPY producers ./producers
COPY sinks ./sinks
COPY processors ./processors
COPY dashboards ./dashboards
# Exactly the versions that the tests ran with.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/tidegate/bin/pip install --disable-pip-version-check -c constraints.txt '.[node,kafka,guardrails]'


FROM python:3.11-slim-bookworm

# The numbers are fixed, so that who owns a volume does not change with an upgrade.
RUN groupadd --system --gid 10001 tidegate \
    && useradd --system --uid 10001 --gid tidegate --home-dir /var/lib/tidegate --create-home --shell /usr/sbin/nologin tidegate
COPY --from=build /opt/tidegate /opt/tidegate

# Inside a container loopback is the container's own; compose publishes on the host's loopback only. A node that listens
# beyond loopback refuses to start without TIDEGATE_TOKEN.
ENV PATH=/opt/tidegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_DATA_DIR=/var/lib/tidegate \
    TIDEGATE_HOST=0.0.0.0 \
    TIDEGATE_PORT=8400 \
    TIDEGATE_WORKER_HOST=0.0.0.0 \
    TIDEGATE_WORKER_PORT=8401 \
    HEALTH_PORT=8401

USER 10001:10001
WORKDIR /var/lib/tidegate
EXPOSE 8400 8401
# A node sets HEALTH_PORT=8400. Reading back a meter's memory may take a minute before the doors say that all is well.
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['HEALTH_PORT']}/healthz\", timeout=3)"]
CMD ["tidegate", "worker", "--role", "all"]
