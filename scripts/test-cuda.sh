#!/usr/bin/env bash
# What a GPU without TensorRT can prove, in at most five minutes: see tests/gpu/cuda/README.md.
#
#   scripts/test-cuda.sh                on the machine with the GPU, which may be offline
#   scripts/test-cuda.sh prepare        beforehand, where PyPI and g++ are: fills .cuda, which goes along
#   scripts/test-cuda.sh --stand-in     the same tests on the stand-in driver, where no GPU is
#
# PYTHON: the interpreter (both machines need the same minor version). CUDA_FOLDER: instead of .cuda.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
folder=$(realpath -m "${CUDA_FOLDER:-.cuda}")
export TRT_PTQ_STANDIN_CACHE=$folder/standins
export PYTHONPATH=$PWD:$folder/site${PYTHONPATH:+:$PYTHONPATH}

standins() { "$python" -c "from tests.standins.libraries import build; print(build().libraries)"; }
pycuda() { "$python" -c "from tests.standins import build, packages; print(packages.pycuda(build.build()))"; }

if [ "${1:-}" = prepare ]; then
    "$python" -m pip install --quiet --no-deps --only-binary :all: --target "$folder/site" --upgrade \
        --requirement tests/gpu/cuda/wheels.txt
    standins
    "$python" -c "from tests.standins import packages; print(packages.tensorrt_bindings(packages.TENSORRT_VERSIONS[-1]))"
    pycuda || echo "without pycuda: it could not be compiled"
    rm -rf "$folder"/standins/cuda-headers-*
    find "$folder" -name __pycache__ -prune -exec rm -rf {} +
    exit
fi

for name in "$folder"/standins/pycuda-*; do
    [ -d "$name" ] && export PYTHONPATH=$PYTHONPATH:$name
done
speed=(--device cuda)
if [ "${1:-}" = --stand-in ]; then
    LD_LIBRARY_PATH=$(standins)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    speed=(--device cpu --batches 1 --batch-size 2)
fi
timeout 240 "$python" -m pytest -q -p no:cacheprovider -m gpu tests/gpu/cuda
timeout 60 "$python" -m tests.gpu.cuda.images_per_second "${speed[@]}"
