# trt-ptq without a GPU: calibrates, quantizes and compares with ONNX Runtime's CPU provider. With EXTRAS=images,rtx it
# also builds TensorRT-RTX engines, which needs no GPU either. From the root of the repository:
#     docker build -f docker/cpu.Dockerfile -t trt-ptq:cpu .

# Any Debian or Ubuntu image with Python 3.10 to 3.13 and its venv module.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS builder
ARG EXTRAS=images
WORKDIR /src
COPY . .
# The two secrets are optional, for networks with their own package index or certificate.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/trt-ptq \
    && /opt/trt-ptq/bin/pip install --no-cache-dir ".[${EXTRAS}]" \
    && /opt/trt-ptq/bin/pip uninstall --quiet --yes pip

FROM ${BASE}
COPY --from=builder /opt/trt-ptq /opt/trt-ptq
# Writable for every user, like /tmp: --user may name a user that the image does not know.
RUN useradd --uid 10001 --user-group --home-dir /caches --no-create-home trt-ptq \
    && install --directory --mode=1777 /caches /models /data
ENV PATH=/opt/trt-ptq/bin:${PATH} HOME=/caches NUMBA_CACHE_DIR=/caches/numba PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /models
HEALTHCHECK --interval=5m --timeout=1m CMD ["trt-ptq", "doctor"]
ENTRYPOINT ["trt-ptq"]
CMD ["--help"]
