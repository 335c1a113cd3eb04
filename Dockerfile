# The `forge-otel` command: the StatsD bridge and the demo of docker-compose.yml.
ARG PYTHON_IMAGE=python:3.13.13-slim

FROM ${PYTHON_IMAGE} AS build
RUN python -m venv /opt/forge-otel
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
COPY examples /src/examples
RUN --mount=type=cache,target=/var/cache/pip /opt/forge-otel/bin/pip install --cache-dir /var/cache/pip '/src[demo,statsd-bridge]'

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/forge-otel /opt/forge-otel
ENV PATH=/opt/forge-otel/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["forge-otel"]
