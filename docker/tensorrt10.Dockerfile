# trt-ptq with TensorRT 10, the last major version with INT8 calibrators, and pycuda. From the root of the repository:
#     docker build -f docker/tensorrt10.Dockerfile -t trt-ptq:tensorrt10 .
# On NVIDIA's own image, which includes TensorRT and the CUDA toolkit:
#     … --build-arg BASE=nvcr.io/nvidia/tensorrt:26.05-py3 --build-arg BUILDER_BASE=nvcr.io/nvidia/tensorrt:26.05-py3 \
#       --build-arg TENSORRT=
ARG BASE=nvidia/cuda:12.9.1-runtime-ubuntu24.04
# pycuda is compiled from source, with the headers of the CUDA toolkit, which the final image does not need.
ARG BUILDER_BASE=nvidia/cuda:12.9.1-devel-ubuntu24.04

FROM ${BUILDER_BASE} AS builder
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ARG TENSORRT=tensorrt-cu12==10.16.1.11
ARG PYCUDA=pycuda==2026.1
ARG EXTRAS=images
WORKDIR /src
COPY . .
# Without cuRAND, which nothing here uses, pycuda links only to the driver.
# The two secrets are optional, for networks with their own package index or certificate.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    echo "CUDA_ENABLE_CURAND = False" > "${HOME}/.aksetup-defaults.py" \
    && if [ -n "${TENSORRT}" ]; then python3 -m venv /opt/trt-ptq; \
       else python3 -m venv --system-site-packages /opt/trt-ptq; fi \
    && /opt/trt-ptq/bin/pip install --no-cache-dir ".[${EXTRAS}]" "${PYCUDA}" ${TENSORRT:+"${TENSORRT}"} \
    && /opt/trt-ptq/bin/pip uninstall --quiet --yes pip

# make test-gpu in a container: docker build --target tests -t trt-ptq:tensorrt10-tests -f docker/tensorrt10.Dockerfile . && docker run --rm --gpus all …
FROM builder AS tests
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/trt-ptq/bin/python -m ensurepip \
    && /opt/trt-ptq/bin/python -m pip install --no-cache-dir "pytest>=8.3" "pytest-timeout>=2.3"
ENTRYPOINT ["/opt/trt-ptq/bin/python", "-m", "pytest", "-m", "gpu", "tests/gpu"]

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
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
