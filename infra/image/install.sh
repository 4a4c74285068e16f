#!/usr/bin/env bash
# /opt/spaceport: first the locked packages, then this project's code. The Dockerfile beside this runs the two as a thick and a thin layer;
# on a plain Debian, Ubuntu or Amazon Linux machine of EC2, before it becomes an AMI:   sudo bash infra/image/install.sh packages code
# TORCH says which torch (PyPI's Linux build brings CUDA); for a CPU: TORCH="torch==2.13.0 --torch-backend=cpu". It needs Python 3.11 to 3.13 with venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
into=/opt/spaceport tools=/opt/spaceport-uv
export UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1

packages() {
  "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/pip" install -q --disable-pip-version-check --no-cache-dir uv
  "${PYTHON:-python3}" -m venv --without-pip "$into"
  # Two steps and --no-deps, as in the Makefile: torch has a line of its own, and `uv sync` would take PyPI's. Unquoted: it may hold options.
  # shellcheck disable=SC2086
  "$tools/bin/uv" pip install -q -p "$into/bin/python" ${TORCH:-torch==2.13.0}
  "$tools/bin/uv" export -q --frozen --extra train --extra aws --extra kubernetes --no-dev --no-emit-project --prune torch -o /tmp/spaceport-requirements.txt
  "$tools/bin/uv" pip install -q -p "$into/bin/python" --no-deps -r /tmp/spaceport-requirements.txt
  rm -f /tmp/spaceport-requirements.txt
}

code() {
  "$tools/bin/uv" pip install -q --no-cache -p "$into/bin/python" --no-deps --reinstall-package hf-spaceport .
}

for part in "$@"; do
  case "$part" in
    packages | code) "$part" ;;
    *) echo "install.sh: what is $part? One of packages, code." >&2; exit 2 ;;
  esac
done
