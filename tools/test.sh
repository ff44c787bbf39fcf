#!/usr/bin/env bash
# Set up an environment and run every check: lint, format, types, all tests, on two cores. Further arguments go to pytest.
#
#   bash tools/test.sh                      everything
#   bash tools/test.sh -m "not slow"        the unit tier
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

setup_medtune "[dev]"

cd "$ROOT"
run ruff check .
run ruff format --check .
run mypy
run python -m pytest -n 2 "$@"
