#!/usr/bin/env bash
# Builds the CPU image without a container engine and without pulling an image, then tests it: `trt-ptq doctor` is its
# health check, the check fails when a package is broken, and `trt-ptq quantize` works as the user of the image. The base
# is a Debian from debootstrap, instead of python:3.12-slim-bookworm in the Dockerfile.
#
# Needs root, about 4 GB, and:  apt-get install --no-install-recommends buildah debootstrap
# Usage: docker/build-without-engine.sh [EXTRAS] [FOLDER]    EXTRAS: images (default) or images,rtx; FOLDER: keep the image there.
# PIP_CONFIG_FILE and SSL_CERT_FILE are used for the build if they are set (networks with their own index or certificate).
set -euo pipefail

extras=${1:-images}
folder=${2:-$(mktemp -d -t trt-ptq-image.XXXXXX)}
[ $# -ge 2 ] || trap 'rm -rf "$folder"' EXIT
[ "$(id -u)" = 0 ] || { echo "error: debootstrap and buildah's chroot isolation need root" >&2; exit 2; }
for tool in buildah debootstrap; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing: apt-get install $tool" >&2; exit 2; }
done

base=localhost/debian-python
image=localhost/trt-ptq:cpu
mkdir -p "$folder"
cd "$(dirname "$0")/.."

say() { echo "== $SECONDS s: $*"; }
fail() { echo "error: $*" >&2; exit 1; }
buildah() { command buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs "$@"; }

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  say "base: Debian bookworm by debootstrap"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$folder/rootfs" >"$folder/debootstrap.log"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$folder/rootfs" / >/dev/null
  buildah commit --quiet --rm "$container" "$base" >/dev/null
  rm -rf "$folder/rootfs"
fi

say "image: docker/cpu.Dockerfile with EXTRAS=$extras"
secrets=()
pip_config=${PIP_CONFIG_FILE:-/etc/pip.conf}
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -f "$pip_config" ] || secrets+=(--secret "id=pip.conf,src=$pip_config")
[ ! -f "$certificates" ] || secrets+=(--secret "id=ca.crt,src=$certificates")
# --format docker: the OCI format has no health check.
buildah bud --quiet --isolation chroot --format docker --pull-never "${secrets[@]}" \
  --build-arg "BASE=$base" --build-arg "EXTRAS=$extras" --file docker/cpu.Dockerfile --tag "$image" .

# buildah ignores entry point and health check when it runs a container, so both are read from the image.
setting() { buildah inspect --type image --format "{{range .Docker.Config.$1}}{{println .}}{{end}}" "$image"; }
mapfile -t entry < <(setting Entrypoint | sed '/^$/d')
mapfile -t health < <(setting Healthcheck.Test | sed '/^$/d')
user=$(buildah inspect --type image --format '{{.Docker.Config.User}}' "$image")
[ "${entry[*]}" = trt-ptq ] || fail "the entry point is '${entry[*]}'"
[ "${health[0]}" = CMD ] || fail "the image has no health check"
[ "${user%%:*}" -gt 0 ] || fail "the image runs as '$user'"

container=$(buildah from --pull-never "$image")
mkdir -p "$folder/empty" "$folder/models"
chmod 1777 "$folder/models"
in_image() { buildah run --isolation chroot --volume "$folder/models:/models" "$container" -- "$@"; }

# Results are passed by exit status and by files: buildah 1.28 may lose the output of a short command in a chroot.
say "user: $user"
in_image sh -c "test \$(id -u):\$(id -g) = $user" || fail "the container does not run as $user"
! in_image touch /opt/trt-ptq/written 2>/dev/null || fail "the user can change the installation"

say "health: ${health[*]:1}"
in_image "${health[@]:1}"
in_image sh -c 'ls -d /opt/trt-ptq/lib/python3.*/site-packages/onnxruntime/capi >/models/hidden'
hidden=$(cat "$folder/models/hidden")
if buildah run --isolation chroot --volume "$folder/empty:$hidden" "$container" -- "${health[@]:1}" &>/dev/null
then fail "healthy although ONNX Runtime cannot be loaded"; fi

say "job: ${entry[*]} quantize"
cat >"$folder/models/make.py" <<'PYTHON'
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

rng = np.random.default_rng(0)
weight = numpy_helper.from_array(rng.normal(size=(32, 16, 3, 3)).astype(np.float32), "weight")
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "weight"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
    "tiny",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16, 12, 12])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32, 10, 10])],
    [weight],
)
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "tiny.onnx")
np.save("inputs.npy", rng.normal(size=(64, 16, 12, 12)).astype(np.float32))
PYTHON
in_image /opt/trt-ptq/bin/python make.py
in_image "${entry[@]}" quantize tiny.onnx --data inputs.npy --out int8 --max-drop 1%
[ "$(stat --format %u "$folder/models/int8/model.int8.onnx")" = "${user%%:*}" ] || fail "the results are not the user's"

say "a user that the image does not know"
buildah run --isolation chroot --user 4242:4242 --volume "$folder/models:/models" "$container" -- \
  "${entry[@]}" quantize tiny.onnx --data inputs.npy --out int8-other --max-drop 1% >/dev/null
[ "$(stat --format %u "$folder/models/int8-other/model.int8.onnx")" = 4242 ] || fail "the results are not user 4242's"

say "done: $(buildah images --format '{{.Size}}' "$image"), its base $(buildah images --format '{{.Size}}' "$base")"
buildah rm "$container" >/dev/null
