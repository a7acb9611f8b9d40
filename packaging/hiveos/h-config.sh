#!/usr/bin/env bash
# Turns the flight sheet into arguments, one a line: the pool URL is the node, the wallet is the name of a key on the rig,
# and the extra arguments go to `run` as they are, one or more a line.
# A line an argument, so that nothing in the flight sheet is ever read by a shell.

: "${CUSTOM_CONFIG_FILENAME:?HiveOS sets it from h-manifest.conf}"
{
    if [ -n "${CUSTOM_URL:-}" ]; then
        printf '%s\n' --node "$(printf '%s' "$CUSTOM_URL" | tr -s ' \n' ',,' | sed 's/^,//; s/,$//')"
    fi
    if [ -n "${CUSTOM_TEMPLATE:-}" ]; then
        printf '%s\n' --keystore "$CUSTOM_TEMPLATE"
    fi
    if [ -n "${CUSTOM_USER_CONFIG:-}" ]; then
        printf '%s\n' "$CUSTOM_USER_CONFIG" | tr -s ' \t' '\n\n' | sed '/^$/d'
    fi
} >"$CUSTOM_CONFIG_FILENAME.part"
mv "$CUSTOM_CONFIG_FILENAME.part" "$CUSTOM_CONFIG_FILENAME"
