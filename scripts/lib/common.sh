# shellcheck shell=bash disable=SC2034 # the sourcing scripts use these variables
# Sourced by every script here. Written for bash 3.2, which is what macOS has.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# refuse WHAT [MORE ...]: one line each, then exit code 2 (openrs's code for "a retry can't help").
refuse() {
  printf '%s\n' "$@" >&2
  exit 2
}

# took SECONDS -> "45 s" or "6 min 12 s"
took() {
  if [ "$1" -lt 60 ]; then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

# Settings of every run here: no hub, no telemetry, and one thread (with two, OpenMP's spinning makes training 10x slower
# on a busy machine; losses are the same). Python may keep what it compiles: uv installs torch, transformers and TRL as source alone, and every
# process that imports TRL's trainer would compile them anew, 31 s of processor time and not 12 (dev/LOG.md).
export_run_settings() {
  export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1
  unset PYTHONDONTWRITEBYTECODE
}

# try_python COMMAND "3.11 3.12": sets PYTHON and PYTHON_VERSION and succeeds if it is one of these and can make virtual
# environments; else adds the reason to TRIED. It is really started: pyenv's shims are there without an interpreter behind.
try_python() {
  local answer
  if ! command -v "$1" >/dev/null 2>&1; then
    TRIED="$TRIED  $1: not found"$'\n'
  elif ! answer=$("$1" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); then
    TRIED="$TRIED  $1: does not start"$'\n'
  elif [ "${2#*"${answer%.*}"}" = "$2" ]; then
    TRIED="$TRIED  $1: is $answer"$'\n'
  elif ! "$1" -I -c 'import ensurepip, venv' 2>/dev/null; then
    TRIED="$TRIED  $1: is $answer, but without venv (Debian, Ubuntu: apt install python${answer%.*}-venv)"$'\n'
  else
    PYTHON=$1 PYTHON_VERSION=$answer
    return 0
  fi
  return 1
}

# versions "3.11 3.12 3.13" -> "3.11, 3.12 or 3.13"
versions() { echo "$1" | sed -e 's/ \([^ ]*\)$/ or \1/' -e 's/\([0-9]\) \([0-9]\)/\1, \2/g'; }

# find_python ["3.11 3.12"]: sets PYTHON and PYTHON_VERSION: the first that is there, else one that uv brings; or refuses with what was
# tried. OPENRS_PYTHON overrides the search.
find_python() {
  local wanted=${1:-3.11 3.12 3.13} minor candidate
  TRIED=
  if [ -n "${OPENRS_PYTHON:-}" ]; then
    try_python "$OPENRS_PYTHON" "$wanted" && return
    refuse "OPENRS_PYTHON is not a Python that openrs can use ($(versions "$wanted")):" "${TRIED%$'\n'}"
  fi
  for minor in $wanted; do try_python "python$minor" "$wanted" && return; done
  for candidate in python3 python; do try_python "$candidate" "$wanted" && return; done
  for minor in $wanted; do
    for candidate in "${PYENV_ROOT:-${HOME:-/}/.pyenv}/versions/$minor".*/bin/python; do
      [ ! -x "$candidate" ] || { try_python "$candidate" "$wanted" && return; }
    done
  done
  minor=${wanted%% *}
  if command -v uv >/dev/null 2>&1; then
    echo "no Python $(versions "$wanted") here: uv brings $minor, into its own folder" >&2
    if uv python install --quiet "$minor" && candidate=$(uv python find --python-preference only-managed "$minor"); then
      try_python "$candidate" "$wanted" && return
    else
      TRIED="${TRIED}  uv: could not bring $minor"$'\n'
    fi
  fi
  refuse "openrs needs Python $(versions "$wanted"), and found none. Tried:" "${TRIED%$'\n'}" \
    "Install one (Debian, Ubuntu: apt install python$minor python$minor-venv; macOS: brew install python@$minor), or uv, which brings" \
    "one at the next call (https://docs.astral.sh/uv), or name one:" \
    "  OPENRS_PYTHON=/path/to/python$minor $0"
}
