# Three stages: one builds the fast decoder of remote-write, one installs exactly the lock file, and the last holds neither compiler
# nor installer and runs as nobody in particular.
# Build: docker build -t aiops:0.1.0 .
ARG PYTHON=3.11

FROM rust:1-slim-bookworm AS native
COPY aiops /app/aiops
RUN cargo build --release --offline --locked --manifest-path /app/aiops/remote_write/native/Cargo.toml --target-dir /target

FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.lock scripts/link-checkout /build/
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --require-hashes --no-deps -r /build/requirements.lock \
 && /build/link-checkout /opt/venv /app \
 && /opt/venv/bin/python -m pip uninstall --yes --quiet pip

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="aiops" \
      org.opencontainers.image.description="Anomaly detection, root cause and verified self-healing for AI clusters" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
COPY aiops /app/aiops
COPY --from=native /target/release/libaiops_remote_write.so /app/aiops/remote_write/
COPY detectors /app/detectors
COPY correlators /app/correlators
COPY remediations /app/remediations
COPY policies /app/policies
RUN python -m compileall -q /app \
 && pip uninstall --yes --quiet --root-user-action=ignore pip \
 && install -d -o 65532 -g 65532 /var/lib/aiops
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp AIOPS_STORE=/var/lib/aiops \
    NUMBA_CACHE_DIR=/var/lib/aiops/compiled
WORKDIR /var/lib/aiops
VOLUME ["/var/lib/aiops"]
USER 65532:65532
EXPOSE 8750
ENTRYPOINT ["/opt/venv/bin/aiops"]
CMD ["run"]
