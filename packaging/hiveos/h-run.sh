#!/usr/bin/env bash
# Starts the neuron with what h-config.sh wrote. Models, keys and the journal stay on the rig's own disk.

cd "$(dirname "$0")" || exit 1
# shellcheck source=packaging/hiveos/h-manifest.conf
. ./h-manifest.conf
mkdir -p "$(dirname "$CUSTOM_LOG_BASENAME")"
export BITAI_DATA_DIR="${BITAI_DATA_DIR:-/hive-config/bitai}"
if [ -z "${BITAI_PASSWORD_FILE:-}" ] && [ -r "$BITAI_DATA_DIR/password" ]; then
    export BITAI_PASSWORD_FILE="$BITAI_DATA_DIR/password"
fi
arguments=()
[ ! -r "$CUSTOM_CONFIG_FILENAME" ] || mapfile -t arguments <"$CUSTOM_CONFIG_FILENAME"
./bitai-miner run "${arguments[@]}" 2>&1 | tee -a "$CUSTOM_LOG_BASENAME.log"
exit "${PIPESTATUS[0]}"
