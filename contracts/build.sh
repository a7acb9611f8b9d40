#!/usr/bin/env bash
# Compiles the contracts and writes ABI and creation bytecode to contracts/abi; the same bytes on every machine.
# Usage: build.sh [--check]   with --check nothing is written and a difference to what is committed fails.
set -euo pipefail
cd "$(dirname "$0")"
forge=${FORGE:-node_modules/.bin/forge}
if [ ! -x "$forge" ]; then
  echo "forge is missing: run 'npm ci' in contracts/ (or set FORGE to a forge 1.7.1)" >&2
  exit 3
fi

# On their own and from scratch: what else is compiled along could number the sources differently.
FOUNDRY_PROFILE=release "$forge" build --force src --out out/release --cache-path cache/release >/dev/null

node - "${1:-}" <<'JS'
"use strict";
const fs = require("fs");
const check = process.argv[2] === "--check";
const contracts = ["Attestations", "ModelRegistry", "PocVerifier", "ProgramBook", "WorkerHub"];
let stale = 0;
for (const name of contracts) {
  const built = JSON.parse(fs.readFileSync(`out/release/${name}.sol/${name}.json`, "utf8"));
  const lines = built.abi.map((item) => "    " + JSON.stringify(item));
  const text = `{\n  "contractName": "${name}",\n  "abi": [\n${lines.join(",\n")}\n  ],\n  "bytecode": "${built.bytecode.object}"\n}\n`;
  const path = `abi/${name}.json`;
  if (fs.existsSync(path) && fs.readFileSync(path, "utf8") === text) continue;
  if (check) {
    console.error(`${path} is not what the sources compile to: run contracts/build.sh and commit it`);
    stale = 1;
  } else {
    fs.mkdirSync("abi", { recursive: true });
    fs.writeFileSync(path, text);
    console.log(`wrote contracts/${path}`);
  }
}
process.exitCode = stale;
JS
