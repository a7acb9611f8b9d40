"""The peer's side of scripts/bench-peers: llama.cpp through llama-cpp-python's C bindings.

    llama.py quantize SOURCE.gguf TARGET.gguf
    llama.py bench MODEL.gguf --prompt 512 --decode 128 --threads 2

`bench` prints one line of JSON: prompt tokens a second until the first id is chosen, and ids a second one by one
after a prompt of 16. The token ids are those that benches/src/bin/speed.rs takes.
"""

import argparse
import ctypes
import json
import os
import sys
import time

import llama_cpp as lib

# Tokens before decoding is timed, and to warm up with; as in speed.rs.
SHORT = 16
VERBOSE = os.environ.get("PEER_VERBOSE") == "1"


@lib.llama_log_callback
def quiet(level, text, data):
    if VERBOSE:
        sys.stderr.write(text.decode(errors="replace"))


def quantize(source, target):
    params = lib.llama_model_quantize_default_params()
    params.ftype = lib.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
    if lib.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
        sys.exit(f"llama.py: {source} could not be quantised to Q8_0 (PEER_VERBOSE=1 says why)")


class Engine:
    """One model and one context."""

    def __init__(self, path, threads, tokens):
        self.model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.py: {path} could not be loaded (PEER_VERBOSE=1 says why)")
        params = lib.llama_context_default_params()
        params.n_ctx = tokens
        params.n_threads = params.n_threads_batch = threads
        self.context = lib.llama_init_from_model(self.model, params)
        self.memory = lib.llama_get_memory(self.context)
        self.sampler = lib.llama_sampler_init_greedy()
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def feed(self, ids):
        """Runs ids after those before and chooses the next."""
        array = (lib.llama_token * len(ids))(*ids)
        if lib.llama_decode(self.context, lib.llama_batch_get_one(array, len(ids))) != 0:
            sys.exit("llama.py: the peer refused a batch")
        return lib.llama_sampler_sample(self.sampler, self.context, -1)

    def prefill(self, count):
        """Seconds from the first of `count` prompt ids to the id after them, and that id."""
        lib.llama_memory_clear(self.memory, True)
        prompt = [(i * 7919 + 11) % self.vocab for i in range(count)]
        start = time.perf_counter()
        chosen = self.feed(prompt)
        return time.perf_counter() - start, chosen

    def decode(self, chosen, count):
        """Seconds for `count` more ids."""
        start = time.perf_counter()
        for _ in range(count):
            chosen = self.feed([chosen])
        return time.perf_counter() - start


def bench(path, prompt, decode, threads):
    engine = Engine(path, threads, max(prompt, SHORT + decode) + 8)
    engine.decode(engine.prefill(SHORT)[1], 2)
    prefill = engine.prefill(prompt)[0]
    decoding = engine.decode(engine.prefill(SHORT)[1], decode)
    result = {"prefill": prompt / prefill, "decode": decode / decoding}
    info = lib.llama_print_system_info().decode()
    print(json.dumps(result | {"engine": f"llama.cpp ({info.strip()})"}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    todo = parser.add_subparsers(dest="todo", required=True)
    sub = todo.add_parser("quantize")
    sub.add_argument("source")
    sub.add_argument("target")
    sub = todo.add_parser("bench")
    sub.add_argument("model")
    sub.add_argument("--prompt", type=int, default=512)
    sub.add_argument("--decode", type=int, default=128)
    sub.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    lib.llama_backend_init()
    if args.todo == "quantize":
        quantize(args.source, args.target)
    else:
        bench(args.model, args.prompt, args.decode, args.threads)


main()
