//! AMX int8: tiles of 16 weight rows times 16 tokens, 64 values of K an instruction.
//!
//! Weight rows are the left operand as they lie in the pack; activations are the right one, four values of K
//! a token, which is what [`super::panel`] packs. Two-plane activations go as two right operands, weights
//! with multipliers as two left ones, and the int32 sums of the planes join in int64.
//!
//! The intrinsics are not stable yet, so the instructions stand in one block of inline assembly that leaves no
//! tile behind. A process asks the operating system for the tiles' state once; where it is refused, the
//! machine counts as one without AMX.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers.
#![allow(clippy::needless_range_loop)]

use std::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count, _xgetbv},
    },
    sync::LazyLock,
};

use super::{
    Site,
    blocked::Packed,
    panel::{LANES, Line, Part, Rows},
};

/// Weight rows of a tile pair.
const ROWS: usize = 32;
/// Words of K that an instruction takes.
const STEP: usize = 16;

/// Whether the processor has AMX int8 and the operating system lets this process use it.
pub(in crate::cpu) fn is_here() -> bool {
    static HERE: LazyLock<bool> = LazyLock::new(|| processor_has_it() && permitted());
    *HERE
}

/// CPUID's word for it, and whether the operating system saves the tiles' state.
fn processor_has_it() -> bool {
    /// Leaf 7, EDX: AMX-TILE and AMX-INT8.
    const FEATURES: u32 = 1 << 24 | 1 << 25;
    /// XCR0: tile configuration and tile data.
    const STATE: u64 = 0b11 << 17;
    /// Leaf 1, ECX: the operating system has turned XSAVE on, so XGETBV may be asked.
    const OSXSAVE: u32 = 1 << 27;
    #[target_feature(enable = "xsave")]
    fn state() -> u64 {
        // SAFETY: register 0 always exists where XGETBV does.
        unsafe { _xgetbv(0) }
    }
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & FEATURES != FEATURES {
        return false;
    }
    // SAFETY: OSXSAVE says that XGETBV is there and enabled.
    unsafe { state() & STATE == STATE }
}

/// Asks Linux for the tiles' state, which is large and therefore not given to every process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: this system call takes two numbers and touches no memory of ours; the kernel's entry spoils rcx
    // and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

/// 32 weight rows times two right operands: `[operand][row][token]`, a sum each.
#[repr(C, align(64))]
struct Sums([[[i32; LANES]; ROWS]; 2]);

/// Weight rows `first ..` against every panel; the machine has AMX.
pub(super) fn block(
    site: &Site<'_>,
    packed: &Packed,
    rows: &mut [Rows; 2],
    first: usize,
    pieces: &mut [&mut [i32]],
) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn run(site: &Site<'_>, packed: &Packed, rows: &mut [Rows; 2], first: usize, pieces: &mut [&mut [i32]]) {
        walk(site, packed, rows, first, pieces, multiply);
    }
    // SAFETY: a site's instruction set is one that the machine was found to have; AMX counts as had only
    // where AVX512-VNNI is.
    unsafe { run(site, packed, rows, first, pieces) }
}

/// The walk, compiled for the caller's vectors; `multiply` as the function of that name.
#[inline(always)]
fn walk(
    site: &Site<'_>,
    packed: &Packed,
    rows: &mut [Rows; 2],
    first: usize,
    pieces: &mut [&mut [i32]],
    multiply: impl Fn(&[u32], usize, [&[Line]; 2], &mut Sums),
) {
    let count = pieces.first().map_or(0, |p| p.len());
    let grouped = !site.m.is_empty();
    let parts: &[Part] = if grouped {
        &[Part::High, Part::Low]
    } else {
        &[Part::Plain]
    };
    for (part, rows) in parts.iter().zip(rows.iter_mut()) {
        let padded = count.next_multiple_of(ROWS);
        rows.take(
            *part,
            &site.weight.host,
            first..first + count,
            padded,
            site.x.group,
        );
    }
    let two_planes = site.x.planes != 1;
    let panels = packed.panels.count;
    // One plane leaves the second right operand to the next panel.
    let step = if two_planes { 1 } else { 2 };
    let mut sums = Sums([[[0; LANES]; ROWS]; 2]);
    for p in (0..panels).step_by(step) {
        let ps = [p, (p + 1).min(panels - 1)];
        for r in (0..count).step_by(ROWS) {
            let mut tile = [[[0i32; LANES]; 2]; ROWS];
            for s in 0..site.x.groups() {
                let x = if two_planes {
                    [0, 1].map(|plane| packed.panels.segment(plane, p, s))
                } else {
                    ps.map(|p| packed.panels.segment(0, p, s))
                };
                let mut total = [[[0i64; LANES]; 2]; ROWS];
                for (i, rows) in rows.iter().enumerate().take(parts.len()) {
                    let (w, stride) = rows.stack(r, s);
                    multiply(w, stride, x, &mut sums);
                    // High parts of weights count 256.
                    let up = if grouped && i == 0 { 8 } else { 0 };
                    for (j, total) in total.iter_mut().enumerate() {
                        for lane in 0..LANES {
                            // Sums of planes fit int32 (T3), and four of them, shifted by 16 at most, int64.
                            let [a, b] = [0, 1].map(|o| i64::from(sums.0[o][j][lane]));
                            if two_planes {
                                let joined = a.wrapping_shl(8).wrapping_add(b);
                                total[0][lane] = total[0][lane].wrapping_add(joined.wrapping_shl(up));
                            } else {
                                total[0][lane] = total[0][lane].wrapping_add(a.wrapping_shl(up));
                                total[1][lane] = total[1][lane].wrapping_add(b.wrapping_shl(up));
                            }
                        }
                    }
                }
                for j in 0..ROWS.min(count - r) {
                    for q in 0..step {
                        site.add_part(packed, ps[q], s, first + r + j, &total[j][q], &mut tile[j][q]);
                    }
                }
            }
            if two_planes {
                site.put_tile::<ROWS, 1>(&mut tile.map(|row| [row[0]]), p, first, r, pieces);
            } else {
                site.put_tile::<ROWS, 2>(&mut tile, p, first, r, pieces);
            }
        }
    }
}

/// 32 weight rows, each `stride` words after the last, times two right operands of one length: a multiple
/// of [`STEP`] words.
fn multiply(w: &[u32], stride: usize, x: [&[Line]; 2], sums: &mut Sums) {
    let words = x[0].len();
    assert!(
        words > 0 && words.is_multiple_of(STEP) && x[1].len() == words,
        "operands of whole tiles"
    );
    assert!(w.len() >= (ROWS - 1) * stride + words, "32 rows");
    // SAFETY: tile loads read 16 rows of 64 bytes: on the left from rows 0 and 16 of `w`, 64 bytes further a
    // step, `words` words in all, which the assertion bounds; on the right 16 lines a step of `words` lines.
    // Stores fill `sums`, four tiles of 1,024 bytes. The configuration is a valid one for palette 1. All
    // tiles are released before the block ends, and the compiler uses none.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{w0} + {stride}*1]",
            "tileloadd tmm6, [{x0} + {line}*1]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{w1} + {stride}*1]",
            "tdpbssd tmm1, tmm5, tmm6",
            "tileloadd tmm7, [{x1} + {line}*1]",
            "tdpbssd tmm2, tmm4, tmm7",
            "tdpbssd tmm3, tmm5, tmm7",
            "add {w0}, 64",
            "add {w1}, 64",
            "add {x0}, 1024",
            "add {x1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 1024], tmm1",
            "tilestored [{sums} + {line}*1 + 2048], tmm2",
            "tilestored [{sums} + {line}*1 + 3072], tmm3",
            "tilerelease",
            config = in(reg) &raw const CONFIG,
            w0 = inout(reg) w.as_ptr() => _,
            w1 = inout(reg) w.as_ptr().wrapping_add(16 * stride) => _,
            x0 = inout(reg) x[0].as_ptr() => _,
            x1 = inout(reg) x[1].as_ptr() => _,
            stride = in(reg) 4 * stride,
            line = in(reg) 64usize,
            steps = inout(reg) words / STEP => _,
            sums = in(reg) &raw mut *sums,
            options(nostack),
        );
    }
}

/// Multiply-adds on tiles that stay where they are, four sums side by side.
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    if rounds > 0 {
        // SAFETY: the configuration is a valid one for palette 1, nothing but tiles is touched, they are
        // released before the block ends, and the compiler uses none.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "2:",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm5, tmm6",
                "tdpbssd tmm2, tmm4, tmm7",
                "tdpbssd tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &raw const CONFIG,
                rounds = inout(reg) rounds => _,
                options(nostack),
            );
        }
    }
    // 16 rows, 16 columns and 64 values of K an instruction.
    (rounds * 4 * 16 * 16 * 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        DType, HostTensor,
        cpu::{Isa, linear::CpuWeight},
        num::Scale,
        ops::{HostWeight, QuantRows},
        reference::linear::linear_rows,
    };

    /// What the instructions do, in plain Rust: four int8 of a word times four of a token's.
    fn plain(w: &[u32], stride: usize, x: [&[Line]; 2], sums: &mut Sums) {
        let bytes = |word: u32| word.to_le_bytes().map(|b| i32::from(b.cast_signed()));
        for (x, sums) in x.iter().zip(&mut sums.0) {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    *sum = w[row * stride..]
                        .iter()
                        .zip(*x)
                        .flat_map(|(w, line)| bytes(*w).into_iter().zip(bytes(line.0[lane])))
                        .map(|(w, x)| w * x)
                        .sum();
                }
            }
        }
    }

    fn values(seed: u64, len: usize, max: i64) -> Vec<i64> {
        let mut bytes = vec![0; len * 2];
        blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        let raw = bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| i64::from(i16::from_le_bytes(*b)));
        // A third of them at an end.
        raw.map(|v| {
            if v % 3 == 0 {
                v.signum() * max
            } else {
                v % (max + 1)
            }
        })
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// All but the instructions themselves, on every machine.
        #[test]
        fn tiles_joined_are_the_rule(
            seed: u64, n in 1usize..70, groups in 1usize..5, odd in 0usize..40, segments in 0u32..3,
            tokens in 1usize..50, two_planes: bool, grouped: bool,
        ) {
            let segments = 1 << segments;
            let len = if grouped { groups * 32 } else { groups * 32 + odd };
            let k = len * segments;
            let q = values(seed, n * k, 127).iter().map(|v| *v as i8 as u8).collect();
            let mult = grouped.then(|| {
                let m = values(!seed, n * k / 32, 7).iter().map(|v| (v + 8) as u8).collect();
                HostTensor::owned(DType::U8, n, k / 32, m)
            });
            let host = HostWeight {
                n, k, mult,
                q: HostTensor::owned(DType::I8, n, k, q),
                scales: vec![Scale { m: 40_000, e: -22 }; n],
                bias: Some((0..n as i32).map(|i| i << 20).collect()),
            };
            let mut x = QuantRows::default();
            x.reset(tokens, k, len, if two_planes { 2 } else { 1 });
            let max = if two_planes { 32_639 } else { 127 };
            for (x, v) in x.q.iter_mut().zip(values(seed ^ 1, tokens * k, max)) {
                *x = v as i16;
            }
            x.scales.fill(Scale { m: 50_000, e: -24 });
            let mut want = vec![0; tokens * n];
            linear_rows(&host, &x, 16, &mut want);
            let weight = CpuWeight::new(host);
            let site = Site::new(Isa::AmxInt8, &weight, &x, 16);
            let mut got = vec![0; tokens * n];
            site.blocked(48, &mut got, |packed, rows, first, pieces| {
                walk(&site, packed, rows, first, pieces, plain);
            });
            prop_assert_eq!(got, want);
        }
    }

    /// Where the machine has AMX, its instructions do what the plain loops do.
    #[test]
    fn the_instructions_are_the_plain_loops() {
        if !is_here() {
            return;
        }
        for words in [16, 48] {
            let stride = words + 16;
            let word = |v: i64| (v as u32).wrapping_mul(0x9e37_79b9);
            let w: Vec<u32> = values(1, ROWS * stride, 32_767).into_iter().map(word).collect();
            let x: [Vec<Line>; 2] = [2, 3].map(|seed| {
                let words = values(seed, words * LANES, 32_767);
                words
                    .as_chunks::<LANES>()
                    .0
                    .iter()
                    .map(|line| Line(line.map(word)))
                    .collect()
            });
            let [mut got, mut want] = [0, 1].map(|_| Sums([[[0; LANES]; ROWS]; 2]));
            multiply(&w, stride, [&x[0], &x[1]], &mut got);
            plain(&w, stride, [&x[0][..], &x[1][..]], &mut want);
            assert!(got.0 == want.0);
        }
    }
}
