//! Every op against the reference, on every instruction set that this machine has and 1, 2 and 8 threads: random shapes, odd sizes,
//! extreme values. Bit for bit.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{CpuDevice, CpuOps, Isa, bounds};
use crate::{
    Device, Sampler, conformance,
    num::Scale,
    ops::{AttentionParams, HostWeight, KvSpan, NormParams, Ops, QuantParams, QuantRows},
    program::{Activation, RopeStyle},
    reference::{self, ReferenceOps},
    rows::kv_row_len,
    tensor::{DType, HostTensor},
};

/// What is under test: the loops of every instruction set that this machine has, on 1, 2 and 8 threads.
static ALL: LazyLock<Vec<(String, CpuOps)>> = LazyLock::new(|| {
    [1, 2, 8]
        .into_iter()
        .flat_map(|threads| Isa::here().into_iter().map(move |isa| (isa, threads)))
        .map(|(isa, threads)| (format!("{isa} x {threads}"), CpuOps::with(isa, threads).unwrap()))
        .collect()
});

/// Runs `f` on the reference and on everything else; all must give the same.
fn same<R: PartialEq + std::fmt::Debug + Send>(want: &R, f: impl Fn(&CpuOps) -> R + Sync) {
    for (name, ops) in ALL.iter() {
        let got = ops.scope(|| f(ops));
        assert!(
            got == *want,
            "{name} differs from the reference: {got:?}, not {want:?}"
        );
    }
}

/// A reproducible stream of numbers with many extremes.
struct Source(blake3::OutputReader);

impl Source {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn u64(&mut self) -> u64 {
        let mut b = [0; 8];
        self.0.fill(&mut b);
        u64::from_le_bytes(b)
    }

    /// In -max..=max; a third of the time at an end, or 0.
    fn within(&mut self, max: i64) -> i64 {
        match self.u64() % 9 {
            0 => max,
            1 => -max,
            2 => 0,
            _ => (self.u64() % (2 * max as u64 + 1)) as i64 - max,
        }
    }

    /// Usual scales, and now and then a hostile one.
    fn scale(&mut self) -> Scale {
        match self.u64() % 12 {
            0 => Scale::ZERO,
            1 => Scale {
                m: self.u64() as u16,
                e: self.u64() as i16,
            },
            _ => Scale {
                m: 0x8000 | self.u64() as u16,
                e: -20 - (self.u64() % 12) as i16,
            },
        }
    }

    fn i32s(&mut self, len: usize, max: i64) -> Vec<i32> {
        (0..len).map(|_| self.within(max) as i32).collect()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.within(127) as i8 as u8).collect()
    }

    fn weight(&mut self, n: usize, k: usize, grouped: bool, biased: bool) -> HostWeight {
        let groups = k / reference::linear::GROUP;
        HostWeight {
            n,
            k,
            q: HostTensor::owned(DType::I8, n, k, self.bytes(n * k)),
            scales: (0..n).map(|_| self.scale()).collect(),
            mult: grouped.then(|| {
                let m = (0..n * groups).map(|_| (8 + self.within(7)) as u8).collect();
                HostTensor::owned(DType::U8, n, groups, m)
            }),
            bias: biased.then(|| self.i32s(n, 1 << 24)),
        }
    }

    fn quant(&mut self, rows: usize, cols: usize, group: usize, planes: u8) -> QuantRows {
        let mut q = QuantRows::default();
        q.reset(rows, cols, group, planes);
        q.q.fill_with(|| self.within(reference::quant::q_max(planes)) as i16);
        q.scales.fill_with(|| self.scale());
        q
    }
}

/// Cases a property: fewer where a slow emulator runs them.
fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    set.unwrap_or(48)
}

/// Token counts: few, half a panel, and some around whole panels.
fn rows() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..5, 5usize..9, 9usize..40]
}

fn check_linear(weight: &HostWeight, x: &QuantRows, f_out: u8) {
    let run = |ops: &dyn Fn(&mut [i32])| {
        let mut out = vec![0; x.rows * weight.n];
        ops(&mut out);
        out
    };
    let want = run(&|out| ReferenceOps.linear(weight, x, f_out, out));
    same(&want, |ops| {
        let weight = ops.load_weight(weight.clone()).unwrap();
        run(&|out| ops.linear(&weight, x, f_out, out))
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn linear_is_the_reference(
        seed: u64, n in 1usize..40, k in 1usize..150, segments in 0u32..4, rows in rows(),
        planes in 1u8..3, biased: bool,
    ) {
        let mut s = Source::new(seed);
        let segments = 1 << segments;
        let weight = s.weight(n, k * segments, false, biased);
        check_linear(&weight, &s.quant(rows, k * segments, k, planes), 16);
    }

    #[test]
    fn grouped_linear_is_the_reference(
        seed: u64, n in 1usize..40, groups in 1usize..12, segments in 0u32..4, rows in rows(),
        planes in 1u8..3, biased: bool,
    ) {
        let mut s = Source::new(seed);
        let (segments, len) = (1 << segments, groups * bounds::GROUP);
        let weight = s.weight(n, len * segments, true, biased);
        check_linear(&weight, &s.quant(rows, len * segments, len, planes), 16);
    }

    #[test]
    fn attention_is_the_reference(
        seed: u64, kv_heads in 1usize..4, shared in 1usize..4, head_dim in 1usize..90, spans in prop::collection::vec((0u32..30, 1usize..6), 1..4),
        wide: bool, window in 0u32..20, causal: bool,
    ) {
        let mut s = Source::new(seed);
        let p = AttentionParams {
            heads: kv_heads * shared, kv_heads, head_dim, scale: Scale { m: 0xb8aa, e: -18 },
            p_bits: if wide { 23 } else { 15 }, window, causal, f_out: 16,
        };
        let row_len = kv_row_len(kv_heads, head_dim);
        let caches: Vec<Vec<u8>> = spans.iter().map(|(first, count)| {
            let mut rows = s.bytes((*first as usize + count) * row_len);
            // Usual scales in most records, so that scores are not all at an end.
            for row in rows.chunks_exact_mut(row_len) {
                for h in 0..kv_heads {
                    let at = crate::rows::kv_record_offset(h, head_dim);
                    for at in [at + head_dim, at + 2 * head_dim + 4] {
                        row[at..at + 4].copy_from_slice(&s.scale().to_bytes());
                    }
                }
            }
            rows
        }).collect();
        let spans: Vec<KvSpan<'_>> = spans.iter().zip(&caches)
            .map(|((first, count), rows)| KvSpan { rows, row_len, first: *first, count: *count })
            .collect();
        let q = s.quant(spans.iter().map(|s| s.count).sum(), p.heads * head_dim, head_dim, 1);
        let run = |f: &dyn Fn(&mut [i32])| { let mut out = vec![0; q.q.len()]; f(&mut out); out };
        let want = run(&|out| ReferenceOps.attention(p, &q, &spans, out));
        same(&want, |ops| run(&|out| ops.attention(p, &q, &spans, out)));
    }

    #[test]
    fn quant_is_the_reference(
        seed: u64, rows in 1usize..9, groups in 1usize..4, planes in 1u8..3, block in 0u32..6, bits in 0u32..31,
    ) {
        let mut s = Source::new(seed);
        let group = 3 << 5;
        let p = QuantParams { planes, wht: if block == 0 { 0 } else { 1 << block }, group, f_in: 16 };
        let x = s.i32s(rows * groups * group, (1 << bits) - 1);
        let run = |f: &dyn Fn(&mut QuantRows)| {
            let mut out = QuantRows::default();
            out.reset(rows, groups * group, group, planes);
            f(&mut out);
            out
        };
        let want = run(&|out| ReferenceOps.quant(p, &x, out));
        same(&want, |ops| run(&|out| ops.quant(p, &x, out)));
    }

    #[test]
    fn norm_rope_glu_add_and_embed_are_the_reference(seed: u64, rows in 1usize..40, pairs in 1usize..20, f in 8u8..20) {
        let mut s = Source::new(seed);
        let d = 2 * pairs;
        let (x, y) = (s.i32s(rows * 2 * d, i64::from(i32::MAX)), s.i32s(rows * 2 * d, 1 << 20));
        let gain = s.i32s(d, 1 << 22);
        let norm = NormParams { gain: &gain, gain_f: 21, eps: 7, f_out: f };
        let context = 64;
        let table: Vec<i16> = (0..context * d).map(|_| s.within(32_767) as i16).collect();
        let positions: Vec<u32> = (0..rows).map(|_| (s.u64() % context as u64) as u32).collect();
        let weight = s.weight(50, 2 * d, false, false);
        let ids: Vec<u32> = (0..rows).map(|_| (s.u64() % 50) as u32).collect();
        fn all<O: Ops>(
            ops: &O, x: &[i32], y: &[i32], norm: NormParams<'_>, table: &[i16], positions: &[u32],
            weight: &HostWeight, ids: &[u32], f: u8,
        ) -> Vec<Vec<i32>> {
            let mut outs = vec![];
            let mut run = |g: &mut dyn FnMut(&mut [i32])| { let mut out = vec![0; x.len()]; g(&mut out); outs.push(out) };
            run(&mut |out| ops.rms_norm(norm, x, out));
            for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
                run(&mut |out| ops.rope(table, norm.gain.len(), style, positions, x, out));
            }
            for act in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
                run(&mut |out| ops.glu(act, f, y, x, out));
            }
            run(&mut |out| ops.add(x, y, out));
            let weight = ops.load_weight(weight.clone()).unwrap();
            run(&mut |out| ops.embed(&weight, ids, f, out));
            outs
        }
        let want = all(&ReferenceOps, &x, &y, norm, &table, &positions, &weight, &ids, f);
        same(&want, |ops| all(ops, &x, &y, norm, &table, &positions, &weight, &ids, f));
    }
}

/// The largest products there are, of one sign, over every block length that an int32 sum may have.
#[test]
fn the_largest_sums_do_not_overflow() {
    for k in [
        bounds::PLAIN_BLOCK - 16,
        bounds::PLAIN_BLOCK,
        2 * bounds::PLAIN_BLOCK + 17,
    ] {
        for grouped in [false, true] {
            let k = if grouped {
                k.next_multiple_of(bounds::GROUP)
            } else {
                k
            };
            for (w, x) in [(127i8, 32_639i16), (127, -32_639), (-127, -32_639)] {
                let n = 5;
                let weight = HostWeight {
                    n,
                    k,
                    q: HostTensor::owned(DType::I8, n, k, vec![w as u8; n * k]),
                    scales: vec![Scale { m: 0x8000, e: -20 }; n],
                    mult: grouped.then(|| HostTensor::owned(DType::U8, n, k / 32, vec![15; n * (k / 32)])),
                    bias: None,
                };
                for tokens in [1, 2, 7, 18] {
                    let mut rows = Source::new(1).quant(tokens, k, k, 2);
                    rows.q.fill(x);
                    rows.scales.fill(Scale { m: 0x8000, e: -30 });
                    check_linear(&weight, &rows, 8);
                }
            }
        }
    }
}

/// Segments that begin inside an aligned block and end in the next: each half fits int32, the whole does not.
#[test]
fn segments_across_a_block_of_the_largest_values_do_not_overflow() {
    const GROUPED: &[(usize, usize)] = &[(192, 224), (256, 288)];
    const PLAIN: &[(usize, usize)] = &[(768, 1504)];
    for (k, grouped, heavy) in [(384, true, GROUPED), (1536, false, PLAIN)] {
        let n = 5;
        let mut w = vec![0u8; k];
        let mut m = vec![1u8; k / 32];
        for (from, to) in heavy {
            w[*from..*to].fill(127);
            m[from / 32..to / 32].fill(15);
        }
        let weight = HostWeight {
            n,
            k,
            q: HostTensor::owned(DType::I8, n, k, w.repeat(n)),
            scales: vec![Scale { m: 0x8000, e: -20 }; n],
            mult: grouped.then(|| HostTensor::owned(DType::U8, n, k / 32, m.repeat(n))),
            bias: None,
        };
        for tokens in [1, 8, 18] {
            let mut rows = Source::new(1).quant(tokens, k, k / 2, 2);
            rows.q.fill(32_639);
            rows.scales.fill(Scale { m: 0x8000, e: -30 });
            check_linear(&weight, &rows, 8);
        }
    }
}

/// Equal keys have equal weights, the largest there are where one key carries the unit: long contexts must
/// leave int32 in time.
#[test]
fn long_contexts_of_the_largest_values_do_not_overflow() {
    for (count, p_bits) in [(bounds::KEY_BLOCK + 1, 15), (3 * bounds::KEY_BLOCK + 7, 23)] {
        for v in [127u8, 129, 128] {
            let (d, row_len) = (17, kv_row_len(1, 17));
            let mut row = vec![3; row_len];
            row[d..d + 4].copy_from_slice(&Scale { m: 0x8000, e: -20 }.to_bytes());
            row[d + 4..2 * d + 4].fill(v);
            row[2 * d + 4..].copy_from_slice(&Scale { m: 0xffff, e: -16 }.to_bytes());
            let rows = row.repeat(count);
            let p = AttentionParams {
                heads: 1,
                kv_heads: 1,
                head_dim: d,
                scale: Scale { m: 0x8000, e: -20 },
                p_bits,
                window: 0,
                causal: true,
                f_out: 16,
            };
            let q = Source::new(3).quant(1, d, d, 1);
            let spans = [KvSpan {
                rows: &rows,
                row_len,
                first: count as u32 - 1,
                count: 1,
            }];
            let mut want = vec![0; d];
            ReferenceOps.attention(p, &q, &spans, &mut want);
            same(&want, |ops| {
                let mut out = vec![0; d];
                ops.attention(p, &q, &spans, &mut out);
                out
            });
        }
    }
}

/// Where a run says what its machine must have (`scripts/test-neon`), a test that found less would test less.
#[test]
fn the_machine_has_what_the_run_requires() {
    if let Ok(names) = std::env::var("BITAI_REQUIRE_ISAS") {
        let here: Vec<&str> = Isa::here().into_iter().map(Isa::name).collect();
        assert_eq!(here.join(","), names);
    }
}

#[test]
fn rejects_no_threads_and_absurdly_many() {
    for threads in [0, 1 << 20] {
        let err = CpuDevice::new(threads).err().unwrap().to_string();
        assert_eq!(err, format!("cpu threads: expected 1 to 1024, got {threads}"));
    }
}

#[test]
fn says_what_it_runs_on() {
    let info = CpuDevice::portable(2).unwrap().info();
    assert_eq!(
        (info.backend, info.name.as_str()),
        ("cpu", "cpu (portable, 2 threads)")
    );
}

#[test]
fn counts_the_multiply_adds_of_every_thread() {
    for isa in Isa::here() {
        let [one, two] = [1, 2].map(|threads| CpuOps::with(isa, threads).unwrap().multiply_adds(3));
        assert_eq!((two, one % 3), (2 * one, 0));
        assert!(one > 0);
    }
}

#[test]
fn sampling_nothing_is_token_zero() {
    same(&0, |ops| ops.sample(&[], 16, &Sampler::Greedy, 0));
}

/// The suite that every backend passes, for the loops of every instruction set and 1, 2 and 8 threads.
#[test]
fn passes_the_conformance_suite() {
    for threads in [1, 2, 8] {
        for isa in Isa::here() {
            let device = CpuDevice::with(isa, threads).unwrap();
            let cases = conformance::run(&device).unwrap_or_else(|e| panic!("{}: {e}", device.info().name));
            assert!(cases > 0);
        }
    }
}
