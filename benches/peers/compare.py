"""Runs our engine and the peer in turn and prints medians, spreads and ratios as Markdown; called by scripts/bench-peers."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
# Instruction sets that decide which loops either engine takes.
FLAGS = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8"]


def machine():
    """The processor's name, its cores and those of FLAGS that it has."""
    name, flags = platform.machine(), set()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                name = value
            elif key == "flags":
                flags = set(value.split())
    except OSError:
        pass
    has = [f for f in FLAGS if f in flags]
    return f"{name}, {os.cpu_count()} cores, {' '.join(has) or 'none of ' + ' '.join(FLAGS)}"


def run(command, nice):
    """One engine's line of JSON, at the priority that both have."""
    if nice:
        command = ["nice", "-n", str(nice), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("speed", "python", "place", "commit"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rounds", "threads", "prompt", "decode", "nice"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    size = ["--prompt", str(args.prompt), "--decode", str(args.decode), "--threads", str(args.threads)]
    place = pathlib.Path(args.place)
    engines = {
        "profile A": [args.speed, "--json", "--pack", str(place / "a.pack"), *size],
        "llama.cpp Q8_0": [args.python, str(HERE / "llama.py"), "bench", str(place / "q8_0.gguf"), *size],
        "profile B": [args.speed, "--json", "--pack", str(place / "b.pack"), *size],
    }
    peer = "llama.cpp Q8_0"
    results = {name: [] for name in engines}
    load = [os.getloadavg()[0]]
    for _ in range(args.rounds):
        for name, command in engines.items():
            results[name].append(run(command, args.nice))
    load.append(os.getloadavg()[0])

    print(f"# CPU engine beside llama.cpp, {datetime.date.today().isoformat()}\n")
    print(f"Machine: {machine()}. Load average {load[0]:.1f} before, {load[1]:.1f} after (the runs themselves count).")
    print(f"Commit {args.commit}, dev profile (opt-level 2, overflow checks on), hashing on; the peer built for this machine.\n")
    print(f"    ROUNDS={args.rounds} THREADS={args.threads} PROMPT={args.prompt} DECODE={args.decode} NICE={args.nice} scripts/bench-peers\n")
    print(f"SmolLM2-135M-Instruct. Tokens a second, median (least to most) of {args.rounds} runs of each engine in turn: a prompt of {args.prompt}")
    print(f"until the first id is chosen; {args.decode} ids one by one after a prompt of 16. Ratios are medians of each round's.\n")
    print(f"| engine | prefill {args.prompt} | of the peer | decode {args.decode} | of the peer |")
    print("|---|---|---|---|---|")
    for name, runs in results.items():
        cells = [name]
        for what in ("prefill", "decode"):
            cells.append(spread([r[what] for r in runs]))
            ratios = [r[what] / p[what] for r, p in zip(runs, results[peer])]
            cells.append(f"{statistics.median(ratios):.2f}")
        print("| " + " | ".join(cells) + " |")
    print()
    for name, runs in results.items():
        print(f"- {name}: {runs[0]['engine']}")


main()
