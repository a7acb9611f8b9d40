//! Error of the attention rules (A1 to A9) against the real softmax of the same int8 queries, keys and values, at 4,096,
//! 32,768 and 131,072 keys: `cargo run -p bitai-benches --bin attention_error`.
//!
//! Four kinds of heads: *diffuse* (scores spread by half a log2 unit), *peaked* (3 keys above all others), *mixed* (2 keys hold
//! about half of the mass) and *sink* (one key holds nearly all of it and has a V that is 64 times smaller).
use bitai_kernels::{
    Scale,
    ops::AttentionParams,
    reference::attention::attention_head,
    rows::{kv_record_len, kv_row_len},
};

const D: usize = 64;
const QUERIES: usize = 4;
const HOT: f64 = 0.03;

/// Reproducible noise.
struct Noise(blake3::OutputReader);

impl Noise {
    fn uniform(&mut self) -> f64 {
        let mut b = [0; 8];
        self.0.fill(&mut b);
        (u64::from_le_bytes(b) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let r = (-2.0 * self.uniform().max(1e-300).ln()).sqrt();
        r * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn int(&mut self, mean: f64, sd: f64) -> i8 {
        (mean + sd * self.normal()).clamp(-127.0, 127.0).round() as i8
    }
}

fn scale(real: f64) -> Scale {
    let e = real.log2().floor() as i16 - 15;
    let m = (real * f64::from(-e).exp2()).round().min(65_535.0);
    Scale { m: m as u16, e }
}

fn real(s: Scale) -> f64 {
    f64::from(s.m) * f64::from(s.e).exp2()
}

struct Head {
    q: Vec<i16>,
    c: Scale,
    /// K, K scale, V, V scale of each key.
    keys: Vec<([i8; D], Scale, [i8; D], Scale)>,
}

fn head(noise: &mut Noise, kind: &str, keys: usize) -> Head {
    let q: Vec<i16> = (0..D).map(|_| i16::from(noise.int(0.0, 40.0))).collect();
    let mean: Vec<f64> = (0..D).map(|_| 20.0 * noise.normal()).collect();
    let mut keys: Vec<_> = (0..keys)
        .map(|_| {
            let k = [0; D].map(|_: i8| noise.int(0.0, 40.0));
            let k_scale = scale(HOT * (0.3 * noise.normal()).exp());
            let v = std::array::from_fn(|i| noise.int(mean[i], 30.0));
            (k, k_scale, v, scale(0.01 * (0.4 * noise.normal()).exp()))
        })
        .collect();
    let (hot, share, above) = match kind {
        "peaked" => (3, 1.0, 4.0),
        "mixed" => (2, 0.8, 0.5),
        "sink" => (1, 0.8, 3.0),
        _ => (0, 0.0, 0.0),
    };
    for _ in 0..hot {
        let at = if kind == "sink" {
            0
        } else {
            (noise.uniform() * keys.len() as f64) as usize
        };
        let key = &mut keys[at];
        key.0 = std::array::from_fn(|i| (f64::from(q[i]) * share).round() as i8);
        key.1 = scale(HOT);
        if kind == "sink" {
            key.3 = scale(0.01 / 64.0);
        }
    }
    let norm: f64 = q.iter().map(|q| f64::from(*q).powi(2)).sum();
    let c = if hot == 0 {
        0.5 / (norm.sqrt() * 40.0 * HOT)
    } else {
        ((keys.len() as f64).log2() + above) / (norm * share * HOT)
    };
    Head { q, c: scale(c), keys }
}

fn exact(h: &Head) -> Vec<f64> {
    let xs: Vec<f64> = h
        .keys
        .iter()
        .map(|k| {
            let dot: i64 =
                h.q.iter()
                    .zip(&k.0)
                    .map(|(q, k)| i64::from(*q) * i64::from(*k))
                    .sum();
            dot as f64 * real(k.1) * real(h.c)
        })
        .collect();
    let max = xs.iter().copied().fold(f64::MIN, f64::max);
    let z: f64 = xs.iter().map(|x| (x - max).exp2()).sum();
    (0..D)
        .map(|i| {
            let sum: f64 = xs
                .iter()
                .zip(&h.keys)
                .map(|(x, k)| (x - max).exp2() * f64::from(k.2[i]) * real(k.3))
                .sum();
            sum / z
        })
        .collect()
}

fn integers(h: &Head, p_bits: u8) -> Vec<f64> {
    let row_len = kv_row_len(1, D);
    let mut rows = vec![0u8; h.keys.len() * row_len];
    for (row, (k, ks, v, vs)) in rows.chunks_exact_mut(row_len).zip(&h.keys) {
        let (a, b) = row[..kv_record_len(D)].split_at_mut(D + 4);
        for (half, ints, s) in [(a, k, ks), (b, v, vs)] {
            half[..D].copy_from_slice(&ints.map(i8::cast_unsigned));
            half[D..].copy_from_slice(&s.to_bytes());
        }
    }
    let p = AttentionParams {
        heads: 1,
        kv_heads: 1,
        head_dim: D,
        scale: h.c,
        p_bits,
        window: 0,
        causal: true,
        f_out: 30,
    };
    let mut out = vec![0; D];
    let one = Scale { m: 1 << 15, e: -15 };
    let pos = h.keys.len() as u32 - 1;
    attention_head(p, &h.q, one, 0, pos, &rows, row_len, &mut out);
    out.iter().map(|o| f64::from(*o) * (-30f64).exp2()).collect()
}

fn main() {
    println!("keys    head     p_bits  rms error / rms of the output   largest error / it");
    for keys in [4_096, 32_768, 131_072] {
        for kind in ["diffuse", "peaked", "mixed", "sink"] {
            let seed = blake3::Hasher::new().update(kind.as_bytes()).finalize_xof();
            let mut noise = Noise(seed);
            let heads: Vec<Head> = (0..QUERIES).map(|_| head(&mut noise, kind, keys)).collect();
            for p_bits in [15, 23] {
                let (mut rms, mut largest) = (0.0, 0f64);
                for h in &heads {
                    let want = exact(h);
                    let size = (want.iter().map(|w| w * w).sum::<f64>() / D as f64).sqrt();
                    let errors: Vec<f64> = integers(h, p_bits)
                        .iter()
                        .zip(&want)
                        .map(|(g, w)| g - w)
                        .collect();
                    rms +=
                        (errors.iter().map(|e| e * e).sum::<f64>() / D as f64).sqrt() / size / QUERIES as f64;
                    largest = errors.iter().fold(largest, |l, e| l.max(e.abs() / size));
                }
                println!("{keys:<7} {kind:<8} {p_bits:<7} {rms:<31.1e} {largest:.1e}");
            }
        }
    }
}
