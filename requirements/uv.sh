#!/usr/bin/env bash
# Runs the uv of .venv with the index settings that pip has. uv reads neither pip's variables nor pip's configuration
# files, so they are handed on here; a UV_ variable that is already set wins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What pip would use for an option: its variable, else its configuration for `install`, else for everything; one line.
pip_setting() {
    local variable="PIP_${1^^}"
    local value="${!variable-}"
    for section in install global; do
        [[ -n "$value" ]] || value="$(.venv/bin/python -m pip config get "$section.${1//_/-}" 2>/dev/null || true)"
    done
    echo $value # unquoted on purpose: several values come on several lines
}

# Exports $1 as the value $2 unless that is empty or $1 is set.
hand_on() {
    if [[ -n "$2" && -z "${!1-}" ]]; then export "$1=$2"; fi
}

find_links="$(pip_setting find_links)"
hand_on UV_FIND_LINKS "${find_links// /,}"
hand_on UV_EXTRA_INDEX_URL "$(pip_setting extra_index_url)"
hand_on UV_INSECURE_HOST "$(pip_setting trusted_host)"
hand_on UV_HTTP_TIMEOUT "$(pip_setting default_timeout)"
hand_on SSL_CERT_FILE "$(pip_setting cert)"
if [[ -z "${UV_INDEX_URL-}" ]]; then hand_on UV_DEFAULT_INDEX "$(pip_setting index_url)"; fi
# pip takes the best version of all indexes; uv by default only looks at the first index that has the package.
if [[ -n "${UV_EXTRA_INDEX_URL-}${UV_INDEX-}" ]]; then hand_on UV_INDEX_STRATEGY unsafe-best-match; fi

exec .venv/bin/uv "$@"
