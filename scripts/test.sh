#!/usr/bin/env bash
# Sets up .venv on a fresh machine and runs the tests.
# Usage: bash scripts/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up test,quant,torchao,model
exec .venv/bin/python -m pytest "$@"
