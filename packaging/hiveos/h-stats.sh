#!/usr/bin/env bash
# Hands HiveOS the figures of the miner's own API. It sources this file and reads `khs` and `stats`.
# The rate is tokens of answers a second over the last minute, for the whole rig: one job may run on any of its devices.

khs=0
stats=null
summary=$(curl --silent --fail --max-time 5 "http://${BITAI_MONITOR_LISTEN:-127.0.0.1:9187}/1/summary" || true)
if [ -n "$summary" ]; then
    # `null` where a driver gives no figure, as HiveOS wants it; its bus numbers are decimal.
    stats=$(printf '%s' "$summary" | jq --compact-output '
        def hex: explode | reduce .[] as $c (0; . * 16 + (if $c > 96 then $c - 87 elif $c > 64 then $c - 55 else $c - 48 end));
        [.devices[] | select(.index != null)] as $gpus
        | {
            hs: [.tokens.in_60s / 60],
            hs_units: "hs",
            temp: [$gpus[].temperature],
            fan: [$gpus[].fan_percent],
            power: [$gpus[] | if .milliwatts then .milliwatts / 1000 | floor else null end],
            bus_numbers: [$gpus[].id | split(":")[1] | hex],
            uptime: .uptime_seconds,
            ver: .version,
            ar: [.jobs.paid, .jobs.refunded + .jobs.unpaid],
            algo: "bitai"
          }')
    khs=$(printf '%s' "$summary" | jq '.tokens.in_60s / 60 / 1000')
fi
