# Shared set-up of tools/demo.sh and tools/test.sh; source it, then `setup_medtune [EXTRAS]`.
#
# Makes a virtual environment (MEDTUNE_VENV, default .venv in the tree) with PYTHON (default python3) and installs medtune
# into it from constraints.txt, editable. A stamp of everything that decides the result makes a second run instant.
# Sets VENV and puts its bin folder first in PATH.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '\n$ %s\n' "$*"; }

run() {
  say "$@"
  "$@"
}

check_python() {
  local python="$1"
  if ! command -v "$python" >/dev/null; then
    echo "set-up: no '$python' here. Install Python 3.10, 3.11 or 3.12, or name one: PYTHON=python3.11 bash $0" >&2
    exit 3
  fi
  if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
    echo "set-up: '$python' is $("$python" --version 2>&1), medtune wants Python 3.10, 3.11 or 3.12." \
      "Name another: PYTHON=python3.11 bash $0" >&2
    exit 3
  fi
  if ! "$python" -c 'import ensurepip, venv'; then
    echo "set-up: '$python' has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2
    exit 3
  fi
}

# What decides the contents of the environment, as one line.
stamp_text() {
  echo "$ROOT$1 $("$VENV/bin/python" --version)" \
    "$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" "$ROOT/tools/setup.sh" | cksum)"
}

# The environment is up to date for these extras; one with [dev] in it serves for all.
is_set_up() {
  local stamp
  stamp="$(cat "$VENV/medtune_stamp" 2>/dev/null)" || return 1
  [ "$stamp" = "$(stamp_text "$1")" ] || [ "$stamp" = "$(stamp_text "[dev]")" ]
}

pinned() { grep -E "^$1==" "$ROOT/constraints.txt" | cut -d' ' -f1; }

setup_medtune() {
  local extras="${1:-}"
  VENV="${MEDTUNE_VENV:-$ROOT/.venv}"
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    check_python "${PYTHON:-python3}"
    run "${PYTHON:-python3}" -m venv "$VENV"
  fi
  VENV="$(cd "$VENV" && pwd)"
  export PATH="$VENV/bin:$PATH"
  if is_set_up "$extras"; then return; fi
  rm -f "$VENV/medtune_stamp"
  # torch first and alone: so its pinned build is settled before another package asks for "any torch".
  run python -m pip install --quiet "$(pinned torch)"
  run python -m pip install --quiet -c "$ROOT/constraints.txt" setuptools -e "$ROOT$extras"
  # opencv-python is linked against libGL, which servers lack; the headless build goes in last, in its place.
  if python -m pip show --quiet opencv-python 2>/dev/null; then
    run python -m pip uninstall --quiet --yes opencv-python
  fi
  run python -m pip install --quiet --force-reinstall --no-deps "$(pinned opencv-python-headless)"
  stamp_text "$extras" >"$VENV/medtune_stamp"
}
