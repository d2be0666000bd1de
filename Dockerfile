# Any base with Python 3.11 or newer, its venv module and pip will do: the final stage uses the interpreter alone.
ARG BASE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Two environments, so that neither pip nor the build backend is in the one that is shipped. Its path is the final one.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/billing
COPY requirements.txt requirements-build.txt ./
RUN /opt/build/bin/pip install --only-binary :all: --require-hashes -r requirements-build.txt \
 && /opt/build/bin/pip --python /opt/billing/bin/python install --only-binary :all: --require-hashes -r requirements.txt
COPY pyproject.toml ./
COPY src src
COPY migrations migrations
RUN /opt/build/bin/hatchling build -t wheel -d dist \
 && /opt/build/bin/pip --python /opt/billing/bin/python install --no-deps --no-index dist/*.whl

# hadolint ignore=DL3006
FROM ${BASE}
LABEL org.opencontainers.image.title="billing-service" \
      org.opencontainers.image.description="Usage ledger and billing runs over gRPC"
# A number, because orchestrators check by it that this is not root; a name, because initdb of the embedded default asks
# for one. /run/billing is for unix sockets: a volume mounted there gets the owner it has here.
RUN groupadd --gid 10001 billing \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/billing-service --shell /usr/sbin/nologin billing \
 && install -d -o 10001 -g 10001 -m 0755 /var/lib/billing-service /run/billing
COPY --from=build /opt/billing /opt/billing
ENV PATH=/opt/billing/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BILLING_DATA_DIR=/var/lib/billing-service \
    BILLING_LISTEN_ADDRESS=0.0.0.0:50051 \
    BILLING_METRICS_ADDRESS=0.0.0.0:9464
WORKDIR /var/lib/billing-service
USER 10001:10001
EXPOSE 50051 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["billing", "health"]
ENTRYPOINT ["billing"]
CMD ["serve"]
