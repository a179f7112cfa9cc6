# The planning service, without torch. Built from the repository's root; deploy/Dockerfile.worker trains.
FROM python:3.11-slim-bookworm

WORKDIR /opt/tightfit
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY planner_service planner_service
COPY executor executor
RUN pip install --no-cache-dir --constraint constraints.txt ".[postgresql,oidc,telemetry,parquet]" \
    && useradd --uid 10001 --create-home tightfit \
    && install --directory --owner tightfit /data /kernels

# A number, so that a cluster can check that it is not root.
USER 10001
WORKDIR /data
# Compiled kernels are kept outside the image's read-only packages.
ENV NUMBA_CACHE_DIR=/kernels \
    TIGHTFIT_DATA_DIR=/data
VOLUME ["/data", "/kernels"]
EXPOSE 8080
# On every address of the container, so it asks for keys: make one with `tightfit keys create`.
CMD ["tightfit", "serve", "--host", "0.0.0.0", "--port", "8080"]
