# shellcheck shell=bash
# What the scripts around containers share. Sourced after common.sh. Written for bash 3.2.

# need_docker: an engine that responds, with compose and buildx, or exit code 2 naming what is missing.
need_docker() {
  command -v docker >/dev/null 2>&1 ||
    refuse "docker is not installed. Install Docker Engine with its plugins compose and buildx: https://docs.docker.com/engine/install/"
  docker version >/dev/null 2>&1 ||
    refuse "no container engine answers:" "  $(docker version 2>&1 | tail -n 1)" \
      "Start it, or join the group docker (then log in again)."
  docker compose version >/dev/null 2>&1 || refuse "docker has no plugin compose: install docker-compose-plugin."
  docker buildx version >/dev/null 2>&1 || refuse "docker has no plugin buildx: install docker-buildx-plugin."
}

# gpus_here: how many GPUs nvidia-smi finds.
gpus_here() {
  command -v nvidia-smi >/dev/null 2>&1 || { echo 0 && return; }
  nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true
}

# setting NAME DEFAULT: from the environment, else from .env, else the default; as compose itself finds it.
setting() {
  local value=${!1:-}
  [ -n "$value" ] || ! [ -f "$ROOT/.env" ] || value=$(sed -n "s/^$1=//p" "$ROOT/.env" | tail -n 1)
  echo "${value:-$2}"
}

# prepare_compose LOCK: .env with the lock, once, and a folder for the runs that is the caller's own.
prepare_compose() {
  local user=${SUDO_UID:-$(id -u)} group=${SUDO_GID:-$(id -g)} runs
  if ! [ -e "$ROOT/.env" ]; then
    sed -e "s/^OPENRS_LOCK=.*/OPENRS_LOCK=$1/" "$ROOT/.env.example" >"$ROOT/.env"
    chmod 600 "$ROOT/.env" # a token may come into it
    [ -z "${SUDO_UID:-}" ] || chown "$user:$group" "$ROOT/.env"
    echo "wrote .env: lock $1 (.env.example lists all variables)"
  fi
  runs=$(setting OPENRS_RUNS ./runs)
  case $runs in /*) ;; *) runs=$ROOT/$runs ;; esac
  if ! [ -d "$runs" ]; then
    mkdir -p "$runs"
    [ -z "${SUDO_UID:-}" ] || chown "$user:$group" "$runs"
  fi
}

# readable BYTES -> "1.9 GB"
readable() { awk -v bytes="$1" 'BEGIN { if (bytes >= 1e9) printf "%.2f GB", bytes / 1e9; else printf "%.0f MB", bytes / 1e6 }'; }
