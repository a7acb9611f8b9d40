"""Compiles the kernels with NVRTC for every GPU generation and packs them into bin/kernels.bin and bin/kernels.json.

Run by scripts/cuda-kernels, which installs the pinned compiler. Fails where a kernel spills registers or keeps a stack frame.

kernels.bin, little-endian: "bitai/cubins/v0" and a zero byte; u32 count; an entry each of u32 architecture (10 x major + minor, plus
1,000 where the image runs on exactly that one), u32 kind (0 cubin, 1 PTX), u32 offset and u32 length of a zlib stream.
kernels.json: the compiler, its options, the BLAKE3 of kernels.bin and one of the sources (for every file that compiles, by name: name, zero byte, length as u64,
content), and what ptxas says of every kernel on each architecture ([registers, static shared bytes]). A test without a compiler can so tell
whether the committed images belong to the committed sources.
"""

import argparse
import ctypes
import json
import pathlib
import re
import struct
import sys
import time
import zlib

import blake3

HERE = pathlib.Path(__file__).resolve().parent
BIN, JSON = HERE / "bin" / "kernels.bin", HERE / "bin" / "kernels.json"
MAGIC = b"bitai/cubins/v0\0"
ENTRY = "module.cu"
# sm_90a, 100a and 103a hold what only those processors have; the others run on later ones of their generation too.
TARGETS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_103a", "sm_120", "compute_80"]
OPTIONS = ["-std=c++17", "-default-device", "--no-source-include", "--ptxas-options=-v"]


def library():
    """The NVRTC of the pinned package."""
    for place in sys.path:
        found = pathlib.Path(place) / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
        if found.exists():
            return ctypes.CDLL(str(found))
    sys.exit("compile.py: no nvidia-cuda-nvrtc-cu12 here; run scripts/cuda-kernels")


def package_version():
    for place in sys.path:
        for found in pathlib.Path(place).glob("nvidia_cuda_nvrtc_cu12-*.dist-info"):
            return found.name.removeprefix("nvidia_cuda_nvrtc_cu12-").removesuffix(".dist-info")
    return "unknown"


def sources():
    files = sorted([*HERE.glob("*.h"), *HERE.glob("*.cu")], key=lambda f: f.name)
    return {f.name: f.read_bytes() for f in files}


def hash_of(content):
    return blake3.blake3(content).hexdigest()


def digest(files):
    h = blake3.blake3()
    for name, content in files.items():
        h.update(name.encode() + b"\0" + struct.pack("<Q", len(content)) + content)
    return h.hexdigest()


def compile_for(nvrtc, files, target):
    """The image of one target and the compiler's log."""
    names = list(files)
    array = ctypes.c_char_p * len(names)
    program = ctypes.c_void_p()
    main = f'#include "{ENTRY}"\n'.encode()
    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), main, b"kernels.cu", len(names), array(*files.values()), array(*(n.encode() for n in names))
    )
    if made != 0:
        sys.exit(f"compile.py: nvrtcCreateProgram gives {made}")
    options = [f"--gpu-architecture={target}", *OPTIONS]
    result = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
    log = fetch(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode(errors="replace").rstrip("\0\n")
    if result != 0:
        sys.exit(f"compile.py: {target} does not compile\n{log}")
    if target.startswith("sm"):
        image = fetch(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    else:
        image = fetch(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program).rstrip(b"\0")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return image, log


def fetch(size_of, get, program):
    size = ctypes.c_size_t()
    if size_of(program, ctypes.byref(size)) != 0:
        sys.exit("compile.py: NVRTC gives no result")
    out = ctypes.create_string_buffer(size.value)
    if get(program, out) != 0:
        sys.exit("compile.py: NVRTC gives no result")
    return out.raw


def usage(log):
    """Kernel -> (registers, static shared bytes), and what is wrong: warnings, spills, stack frames."""
    used, wrong, name = {}, [], None
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name = found[1]
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            if any(int(n) for n in found.groups()):
                wrong.append(f"{name}: {line.strip()}")
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            used[name] = (int(found[1]), int(shared[1]) if shared else 0)
        elif re.search(r"\b(warning|error)\b", line, re.IGNORECASE):
            wrong.append(line.strip())
    return used, wrong


def build(only):
    nvrtc, files = library(), sources()
    targets = [t for t in TARGETS if not only or t in only]
    images, used, bad = [], {}, []
    for target in targets:
        began = time.time()
        image, log = compile_for(nvrtc, files, target)
        of_target, wrong = usage(log)
        for kernel, numbers in of_target.items():
            used.setdefault(kernel, {})[target] = numbers
        bad += [f"{target}: {w}" for w in wrong]
        images.append((target, image))
        most = max((r for r, _ in of_target.values()), default=0)
        print(f"{target:11} {len(image):9,} bytes  {time.time() - began:5.1f} s  at most {most} registers", flush=True)
    if bad:
        sys.exit("compile.py: refused:\n" + "\n".join(bad))
    about = {
        "compiler": f"nvidia-cuda-nvrtc-cu12 {package_version()}",
        "options": OPTIONS,
        "sources": digest(files),
        "kernels": {k: {t: list(n) for t, n in used[k].items()} for k in sorted(used)},
    }
    return images, about


def pack(images):
    entries, body = b"", b""
    at = len(MAGIC) + 4 + 16 * len(images)
    for target, image in images:
        found = re.fullmatch(r"(sm|compute)_(\d+)(a?)", target)
        arch = int(found[2]) + (1000 if found[3] else 0)
        stream = zlib.compress(image, 9)
        entries += struct.pack("<4I", arch, 0 if found[1] == "sm" else 1, at + len(body), len(stream))
        body += stream
    return MAGIC + struct.pack("<I", len(images)) + entries + body


def unpack(file):
    if file[: len(MAGIC)] != MAGIC:
        return None
    (count,) = struct.unpack_from("<I", file, 16)
    entries = [struct.unpack_from("<4I", file, 20 + 16 * i) for i in range(count)]
    return [(arch, kind, zlib.decompress(file[at : at + size])) for arch, kind, at, size in entries]


def text(about):
    """JSON with a line a kernel: registers and static shared bytes by architecture."""
    kernels = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in about["kernels"].items())
    head = json.dumps({k: v for k, v in about.items() if k != "kernels"}, indent=2)
    return head[:-2] + ',\n  "kernels": {\n' + kernels + "\n  }\n}\n"


def main():
    parser = argparse.ArgumentParser(description="Compiles the CUDA kernels.")
    parser.add_argument("--check", action="store_true", help="compile, and say whether the committed images are these")
    parser.add_argument("--only", nargs="*", default=[], help="targets to compile; nothing is written")
    parser.add_argument("--report", action="store_true", help="print registers and shared memory by kernel")
    args = parser.parse_args()
    images, about = build(args.only)
    if args.report or args.only:
        for kernel, numbers in about["kernels"].items():
            print(f"{kernel:28}", "  ".join(f"{t} {r} r {s} B" for t, (r, s) in numbers.items()))
    if args.only:
        return
    packed = pack(images)
    if args.check:
        # Another zlib may pack the same images into other bytes, so what they unpack to is compared.
        same = BIN.exists() and JSON.exists() and unpack(BIN.read_bytes()) == unpack(packed)
        same = same and text(about | {"images": hash_of(BIN.read_bytes())}) == JSON.read_text()
        print("the committed images are these" if same else "compile.py: the committed images are not these; run scripts/cuda-kernels")
        sys.exit(0 if same else 1)
    BIN.parent.mkdir(exist_ok=True)
    about["images"] = hash_of(packed)
    for path, content in ((BIN, packed), (JSON, text(about).encode())):
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)
    print(f"{BIN.relative_to(HERE)}: {len(packed):,} bytes, {len(about['kernels'])} kernels")


if __name__ == "__main__":
    main()
