#!/usr/bin/env bash
# From a fresh checkout to depths: sets up .venv, fetches the bundled model, measures eight bundled concepts.
# Usage: bash scripts/quickstart.sh [CONCEPT…] [ANY OPTION OF `concept-depth run`]   ("all" measures every concept)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up run,model
# Concepts may be typed in front of options; without any, these eight go from simple facts to what must be `never`.
if [ $# -eq 0 ] || [[ $1 == -* ]]; then
  set -- cities capitals country_facts negated_facts larger_than arithmetic coin_flip random_labels "$@"
fi
exec .venv/bin/concept-depth run smollm2-135m "$@" --out runs/quickstart
