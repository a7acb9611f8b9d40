#!/usr/bin/env python3
"""Counts the SASS instructions in the loop of each kernel of softmax.cu: count.py FILE (what `nvdisasm -c` prints)."""

import collections
import re
import sys

KEYS = 16

body, name = {}, None
for line in open(sys.argv[1]):
    if m := re.match(r"\s*\.text\.(\w+):", line):
        name = m.group(1)
        body[name] = []
    elif name and (m := re.match(r"\s*(\.L_x_\d+):", line)):
        body[name].append(("label", m.group(1)))
    elif name and (m := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line)):
        body[name].append(("op", m.group(1)))

for name, lines in body.items():
    at = {text: i for i, (kind, text) in enumerate(lines) if kind == "label"}
    loops = []
    for i, (kind, text) in enumerate(lines):
        target = re.search(r"BRA.*?(\.L_x_\d+)", text) if kind == "op" else None
        if target and at.get(target.group(1), i) < i:
            loops.append([t for k, t in lines[at[target.group(1)] : i + 1] if k == "op"])
    if not loops:
        continue
    ops = [re.sub(r"^@!?\w+\s+", "", t).split()[0] for t in max(loops, key=len)]
    other = [o for o in ops if o.startswith(("LD", "ST", "BRA", "ISETP", "UISETP"))]
    kinds = collections.Counter(".".join(o.split(".")[:2]) for o in ops)
    print(f"{name}: {(len(ops) - len(other)) / KEYS:.2f} a key, besides {len(other)} loads, stores and loop control", dict(kinds))
