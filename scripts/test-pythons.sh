#!/usr/bin/env bash
# Runs the smoke tests on every supported Python version found here, each in an environment with the required packages only.
# Usage: scripts/test-pythons.sh [VERSION…]    default: 3.10 3.11 3.12 3.13
#
# An interpreter is pythonX.Y on PATH, or one that pyenv installed. Versions without one are named at the end and do not fail the run.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=("$@")
[ $# -gt 0 ] || versions=(3.10 3.11 3.12 3.13)
passed=() failed=() missing=()

interpreter() {  # VERSION
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1"; do
    # pyenv puts a pythonX.Y on PATH that fails when that version is not the selected one: try it.
    if "$candidate" -c '' 2>/dev/null; then command -v "$candidate"; return; fi
  done
  return 1
}

smoke() {  # PYTHON VENV
  if [ ! "$2/ready" -nt pyproject.toml ]; then
    "$1" -m venv --clear "$2" &&
      "$2/bin/python" -m pip install --quiet --editable ".[smoke]" && touch "$2/ready" || return 1
  fi
  # Only the files with the marker: others import packages that this environment does not have.
  grep -rlE --include='*.py' 'mark\.smoke' tests | xargs "$2/bin/python" -m pytest -q -m smoke -p no:cacheprovider
}

for version in "${versions[@]}"; do
  if ! python=$(interpreter "$version"); then
    missing+=("$version")
    continue
  fi
  echo "== Python $version: $python"
  if smoke "$python" ".venv-$version"; then passed+=("$version"); else failed+=("$version"); fi
done

[ ${#missing[@]} = 0 ] || echo "smoke tests not run, no interpreter found: Python ${missing[*]}"
[ ${#failed[@]} = 0 ] || echo "smoke tests failed: Python ${failed[*]}"
echo "smoke tests passed: Python ${passed[*]:-(none)}"
[ ${#failed[@]} = 0 ]
