//! CPU kernels at SmolLM2-135M's sites, each beside the limit of this machine measured in the same run: a
//! plain streaming read of memory for what reads weights once, multiply-adds in cache for what reuses them.
//!
//! `cargo bench --profile dev -p bitai-benches --bench kernels [-- FILTER]`: the profile that tests and the devnet run.
//! `BITAI_THREADS` sets the threads (all cores).

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bitai_kernels::{
    DType, Hash, HostTensor, Sampler, Trace,
    cpu::{CpuDevice, CpuOps, CpuWeight},
    num::Scale,
    ops::{AttentionParams, HostWeight, KvSpan, Ops, QuantRows},
    rows::kv_row_len,
};
use bitai_model::{
    engine::Engine,
    pack::Profile,
    synthetic::{self, Shape},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;

/// SmolLM2-135M's linears: name, outputs, inputs, whether grouped.
const SITES: [(&str, usize, usize, bool); 5] = [
    ("q_or_o", 576, 576, false),
    ("k_or_v", 192, 576, false),
    ("gate_or_up", 1536, 576, false),
    ("down", 576, 1536, false),
    ("head", 49_152, 576, true),
];
/// Tokens of the prefill benches.
const TOKENS: usize = 32;
/// Keys of the attention bench.
const KEYS: usize = 1024;
/// Weights are laid out as copies beyond any cache, so that each call finds its own in memory.
const COLD_BYTES: usize = 256 << 20;
/// Rounds of a limit's measurement; the best counts.
const ROUNDS: usize = 5;
/// Rounds of a millisecond of a measurement of the peak.
const PEAK_ROUNDS: usize = 200;

fn threads() -> usize {
    std::env::var("BITAI_THREADS")
        .ok()
        .and_then(|t| t.parse().ok())
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1)
}

/// A reproducible byte stream in +-127.
fn bytes(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key("bitai kernels bench")
        .finalize_xof()
        .fill(&mut out);
    out.iter_mut().filter(|b| **b == 0x80).for_each(|b| *b = 0);
    out
}

/// As many copies of a weight as go beyond the caches.
fn weights(ops: &CpuOps, n: usize, k: usize, grouped: bool) -> Vec<CpuWeight> {
    let copies = COLD_BYTES.div_ceil(n * k);
    let q = bytes(n * k);
    (0..copies)
        .map(|_| {
            let weight = HostWeight {
                n,
                k,
                q: HostTensor::owned(DType::I8, n, k, q.clone()),
                scales: vec![Scale { m: 40_000, e: -26 }; n],
                mult: grouped.then(|| HostTensor::owned(DType::U8, n, k / 32, vec![7; n * k / 32])),
                bias: None,
            };
            ops.load_weight(weight).expect("a weight within the spec")
        })
        .collect()
}

fn quantised(rows: usize, cols: usize, group: usize, planes: u8) -> QuantRows {
    let mut x = QuantRows::default();
    x.reset(rows, cols, group, planes);
    let raw = bytes(rows * cols);
    for (q, b) in x.q.iter_mut().zip(raw) {
        *q = i16::from(b.cast_signed()) * if planes == 2 { 256 } else { 1 };
    }
    x.scales.fill(Scale { m: 50_000, e: -28 });
    x
}

/// Seconds of the best of a few rounds.
fn best(mut f: impl FnMut()) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64()
        })
        .fold(f64::MAX, f64::min)
}

/// `n` calls inside one batch, as the engine makes them: threads stay awake from call to call.
fn timed(ops: &CpuOps, n: u64, call: &mut (impl FnMut() + Send)) -> Duration {
    ops.scope(|| {
        let start = Instant::now();
        (0..n).for_each(|_| call());
        start.elapsed()
    })
}

/// Bytes a second of a plain streaming read on all threads.
fn read_limit(ops: &CpuOps, memory: &[u64]) -> f64 {
    let t = best(|| {
        let sum = ops.scope(|| {
            memory
                .par_chunks(1 << 16)
                .map(|c| c.iter().fold(0u64, |a, b| a ^ b))
                .reduce(|| 0, |a, b| a ^ b)
        });
        black_box(sum);
    });
    size_of_val(memory) as f64 / t
}

fn linear(c: &mut Criterion) {
    let ops = CpuOps::new(threads()).expect("a pool of the machine's threads");
    let memory = vec![1u64; COLD_BYTES / 8];
    for (name, n, k, grouped) in SITES {
        let weights = weights(&ops, n, k, grouped);
        for tokens in [1, TOKENS] {
            let x = quantised(tokens, k, k, 2);
            let mut out = vec![0; tokens * n];
            let mut next = 0;
            let mut call = || {
                next = (next + 1) % weights.len();
                ops.linear(&weights[next], &x, 16, black_box(&mut out));
            };
            let limit = read_limit(&ops, &memory);
            let calls = weights.len();
            let seconds = best(|| ops.scope(|| (0..calls).for_each(|_| call()))) / calls as f64;
            println!(
                "{name} x {tokens}: {:.2} GB/s of weights, {:.0} % of a plain read ({:.2} GB/s); {:.1} GMAC/s",
                (n * k) as f64 / seconds / 1e9,
                (n * k) as f64 / seconds / limit * 100.0,
                limit / 1e9,
                (tokens * n * k) as f64 / seconds / 1e9,
            );
            let mut group = c.benchmark_group(if tokens == 1 { "gemv" } else { "gemm" });
            group.throughput(Throughput::Elements((tokens * n * k) as u64));
            group.sample_size(20);
            group.bench_function(name, |b| b.iter_custom(|n| timed(&ops, n, &mut call)));
        }
    }
}

/// Int8 multiply-adds a second in registers alone: the best of many rounds of about a millisecond, short
/// enough that some go undisturbed on a busy machine.
fn peak(ops: &CpuOps) -> f64 {
    let round = (1..).map(|i| 1usize << i).find(|rounds| {
        let t = Instant::now();
        black_box(ops.multiply_adds(*rounds));
        t.elapsed().as_secs_f64() > 5e-4
    });
    let rounds = round.unwrap_or(1);
    (0..PEAK_ROUNDS)
        .map(|_| {
            let t = Instant::now();
            ops.multiply_adds(rounds) as f64 / t.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// 1,024 tokens x 4,096 x 4,096 beside the peak of the machine's int8 arithmetic.
fn large_gemm(c: &mut Criterion) {
    let ops = CpuOps::new(threads()).expect("a pool of the machine's threads");
    let (tokens, n, k) = (1024, 4096, 4096);
    let weight = &weights(&ops, n, k, false)[0];
    let mut out = vec![0; tokens * n];
    for planes in [1u8, 2] {
        let x = quantised(tokens, k, k, planes);
        let mut call = || ops.linear(weight, &x, 16, black_box(&mut out));
        // Both in turn: a busy moment then strikes both.
        let (mut seconds, mut top) = (f64::MAX, 0.0f64);
        for _ in 0..ROUNDS {
            top = top.max(peak(&ops));
            seconds = seconds.min(timed(&ops, 1, &mut call).as_secs_f64());
        }
        let (rate, peak) = ((tokens * n * k) as f64 / seconds, top);
        println!(
            "{tokens} x {n} x {k}, A{}: {:.1} GMAC/s, {:.0} % of the peak of {:.1} GMAC/s ({}, {} threads: \
             its multiply-adds for exact int8 sums on registers alone, best of {} rounds of a millisecond)",
            8 * planes,
            rate / 1e9,
            rate / peak * 100.0,
            peak / 1e9,
            ops.isa(),
            threads(),
            ROUNDS * PEAK_ROUNDS,
        );
        let mut group = c.benchmark_group("gemm_1024x4096x4096");
        group.throughput(Throughput::Elements((tokens * n * k) as u64));
        group.sample_size(10);
        group.bench_function(format!("a{}", 8 * planes), |b| {
            b.iter_custom(|n| timed(&ops, n, &mut call));
        });
    }
}

/// A model of SmolLM2's layer shape and a tenth of its size: tokens one by one, and the same tokens again as one
/// batch, attention and hashing included.
fn recheck(c: &mut Criterion) {
    /// Takes what a trace gets.
    struct Nowhere;
    impl Trace for Nowhere {
        fn bodies(&mut self, _: u32, bodies: &[Hash]) {
            black_box(bodies);
        }
        fn sampled(&mut self, _: u32, _: u32) {}
    }
    let shape = Shape {
        layers: 3,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        d_ff: 1536,
        vocab: 4096,
        context: 512,
        tied: true,
        profile: Profile::A,
    };
    let pack = synthetic::pack(&shape, 1).expect("a synthetic pack");
    let device = CpuDevice::new(threads()).expect("a pool of the machine's threads");
    let mut engine = Engine::new(&pack, &device).expect("a pack that loads");
    let prompt: Vec<u32> = (0..16).collect();
    let count = 256;
    let mut generate = || {
        let run = engine.generate(&prompt, count, &[], &Sampler::Greedy, &mut Nowhere, &mut |_| {});
        run.expect("a run")
    };
    let output = generate();
    let generating = best(|| {
        black_box(generate());
    });
    let mut again = || {
        let run = engine.recheck(&prompt, &output, &Sampler::Greedy, &mut Nowhere);
        black_box(run.expect("a re-check"));
    };
    let checking = best(&mut again);
    println!(
        "re-check of {count} tokens: {:.1} ms, {:.2} of the {:.1} ms that generating took",
        checking * 1e3,
        checking / generating,
        generating * 1e3
    );
    let mut group = c.benchmark_group("recheck");
    group.throughput(Throughput::Elements(u64::from(count)));
    group.sample_size(10);
    group.bench_function("256_tokens", |b| b.iter(&mut again));
}

fn attention(c: &mut Criterion) {
    let ops = CpuOps::new(threads()).expect("a pool of the machine's threads");
    let p = AttentionParams {
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        scale: Scale { m: 0xb8aa, e: -24 },
        p_bits: 15,
        window: 0,
        causal: true,
        f_out: 16,
    };
    let row_len = kv_row_len(p.kv_heads, p.head_dim);
    let mut rows = bytes(KEYS * row_len);
    // Scales of the usual size in every record: 64 integers, 4 bytes of scale, for K and for V.
    for part in rows.chunks_exact_mut(p.head_dim + 4) {
        part[p.head_dim..].copy_from_slice(&Scale { m: 50_000, e: -28 }.to_bytes());
    }
    let memory = vec![1u64; COLD_BYTES / 8];
    for count in [1, TOKENS] {
        let q = quantised(count, p.heads * p.head_dim, p.head_dim, 1);
        let spans = [KvSpan {
            rows: &rows,
            row_len,
            first: (KEYS - count) as u32,
            count,
        }];
        let mut out = vec![0; count * p.heads * p.head_dim];
        let mut call = || ops.attention(p, &q, &spans, black_box(&mut out));
        let seconds = best(|| ops.scope(|| (0..20).for_each(|_| call()))) / 20.0;
        let limit = read_limit(&ops, &memory);
        println!(
            "attention x {count} at {KEYS} keys: {:.1} ns a (query head, key); cache read at {:.0} % of a plain read ({:.2} GB/s)",
            seconds * 1e9 / (count * p.heads * KEYS) as f64,
            (count * rows.len()) as f64 / seconds / limit * 100.0,
            limit / 1e9,
        );
        let mut group = c.benchmark_group("attention");
        group.throughput(Throughput::Elements((count * p.heads * KEYS) as u64));
        group.sample_size(20);
        group.bench_function(format!("{count}x{KEYS}"), |b| {
            b.iter_custom(|n| timed(&ops, n, &mut call));
        });
    }
}

/// What a run of 32 tokens hashes: a KV row a layer and token, an `out` row at every 16th layer.
fn hashing(c: &mut Criterion) {
    let ops = CpuOps::new(threads()).expect("a pool of the machine's threads");
    let (kv_len, out_len) = (kv_row_len(3, 64), 576 * 4);
    let kv = bytes(TOKENS * 30 * kv_len);
    let out = bytes(TOKENS * out_len);
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Bytes((kv.len() + out.len()) as u64));
    group.sample_size(20);
    group.bench_function("32_tokens", |b| {
        b.iter(|| {
            ops.scope(|| {
                (0..TOKENS).into_par_iter().for_each(|t| {
                    for row in kv[t * 30 * kv_len..][..30 * kv_len].chunks_exact(kv_len) {
                        black_box(blake3::hash(row));
                    }
                    black_box(blake3::hash(&out[t * out_len..][..out_len]));
                });
            });
        });
    });
}

/// Short: what is compared is printed from the best of a few rounds beside its limit.
fn brief() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = brief();
    targets = linear, large_gemm, attention, hashing, recheck
}
criterion_main!(benches);
