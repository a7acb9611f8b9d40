//! Llama-shaped packs of any size from a seed (and small encoders: [`encoder`]), for quick tests and for benches of shapes whose weights are
//! not at hand. Integers come straight from BLAKE3's stream: no floats but the RoPE table's.

pub mod encoder;

use std::{
    io::{Cursor, Seek, Write},
    path::Path,
    sync::Arc,
};

use bitai_kernels::{
    DType, Hash,
    program::{Activation, RopeStyle},
};

use crate::{
    SPEC_VERSION,
    arch::{Description, F_RESIDUAL, Layer, LinearPart, Part, Role, Rope, Settings, plan},
    import::{number, rope_table},
    pack::{Hyper, Info, Pack, PackError, PackFile, PackWriter, Profile, Source, Special},
    tokenizer::{Kind, TokenType, Vocabulary},
};

/// Size of a synthetic model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements a head, even.
    pub head_dim: u32,
    /// Inner width of the gated unit.
    pub d_ff: u32,
    /// Vocabulary, at least 258: the bytes, begin and end.
    pub vocab: u32,
    /// Longest sequence.
    pub context: u32,
    /// Whether head and embedding are one tensor.
    pub tied: bool,
    /// Numeric profile.
    pub profile: Profile,
}

impl Shape {
    /// A model that runs in milliseconds and still has every kind of site, grouped queries and a committed
    /// `out` row.
    pub fn tiny() -> Self {
        Self {
            layers: 16,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            d_ff: 96,
            vocab: 320,
            context: 512,
            tied: true,
            profile: Profile::A,
        }
    }

    fn llama(&self) -> Description {
        Description {
            d_model: self.heads * self.head_dim,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            d_ff: self.d_ff,
            vocab: self.vocab,
            context: self.context,
            layers: vec![Layer { rope: 0, window: 0 }; self.layers as usize],
            ropes: vec![Rope {
                name: "rope",
                base: 10_000.0,
                linear: 1.0,
                factors: None,
            }],
            rope_style: RopeStyle::Interleaved,
            eps: 1e-5,
            qkv_bias: false,
            qk_norm: false,
            post_norms: false,
            activation: Activation::Silu,
            attention_divisor: f64::from(self.head_dim).sqrt(),
            embed_scale: 1.0,
            f_residual: F_RESIDUAL,
            tied: self.tied,
        }
    }
}

/// Begin of sequence: the id after the bytes.
const BOS: u32 = 256;
/// End of sequence.
const EOS: u32 = 257;

/// A pack in memory.
pub fn pack(shape: &Shape, seed: u64) -> Result<Pack, PackError> {
    let path = Path::new("synthetic");
    let writer = PackWriter::new(Cursor::new(Vec::new()), path)?;
    let (sink, _) = fill(writer, shape, seed)?;
    Pack::from_bytes(Arc::new(sink.into_inner()), path)
}

/// The same pack as a file; streams, so that any size can be made. Gives the model root.
pub fn write(path: &Path, shape: &Shape, seed: u64) -> Result<Hash, PackError> {
    let (file, writer) = PackFile::create(path)?;
    let (sink, root) = fill(writer, shape, seed)?;
    file.commit(sink)?;
    Ok(root)
}

/// A stream of bytes for one tensor.
fn stream(seed: u64, name: &str) -> blake3::OutputReader {
    let mut h = blake3::Hasher::new();
    h.update(b"bitai/synthetic/v0");
    h.update(&seed.to_le_bytes());
    h.update(name.as_bytes());
    h.finalize_xof()
}

fn fill<W: Write + Seek>(
    mut writer: PackWriter<W>,
    shape: &Shape,
    seed: u64,
) -> Result<(W, Hash), PackError> {
    let llama = shape.llama();
    // Gains around 1: 2^20 to 2^21 with 20 fraction bits.
    let plan = plan(&llama, Settings::of(shape.profile, &llama), &|_| 20);
    for part in &plan.parts {
        match part {
            Part::Rope { rope } => {
                let rope = &llama.ropes[*rope];
                let bytes = rope_table(llama.context, llama.head_dim, rope);
                writer.whole(
                    rope.name,
                    DType::I16,
                    llama.context as usize,
                    llama.head_dim as usize,
                    &bytes,
                )?;
            }
            Part::Gain { name, cols, .. } => {
                let mut bytes = vec![0; *cols as usize * 4];
                stream(seed, name).fill(&mut bytes);
                for g in bytes.as_chunks_mut::<4>().0 {
                    *g = ((1 << 20) + u32::from_le_bytes(*g) % (1 << 20)).to_le_bytes();
                }
                writer.whole(name, DType::I32, 1, *cols as usize, &bytes)?;
            }
            Part::Linear(linear) => matrix(&mut writer, &Matrix::of(linear), seed)?,
            Part::Rescaled { name, .. } => {
                unreachable!("{name}: a synthetic model's embedding has no factor of its own")
            }
        }
    }
    let vocabulary = vocabulary(shape.vocab);
    let info = Info {
        spec_version: SPEC_VERSION,
        architecture: "llama".into(),
        name: "synthetic".into(),
        profile: shape.profile,
        source: Source {
            kind: "synthetic".into(),
            bytes: 0,
            blake3: *blake3::hash(&seed.to_le_bytes()).as_bytes(),
            importer: "bitai-synthetic 1".into(),
        },
        hyper: Hyper {
            layers: shape.layers,
            d_model: llama.d_model,
            heads: llama.heads,
            kv_heads: llama.kv_heads,
            head_dim: llama.head_dim,
            d_ff: llama.d_ff,
            vocab: llama.vocab,
            context: llama.context,
            tied: llama.tied,
        },
        special: Special {
            bos: Some(BOS),
            eos: Some(EOS),
            stop: vec![EOS],
            add_bos: true,
        },
        chat_template: None,
        tensor_count: 0,
        site_count: 0,
    };
    writer.finish(info, plan.program, &vocabulary.encode())
}

/// A weight to be made up.
struct Matrix<'a> {
    /// Name without suffix.
    name: &'a str,
    /// Rows.
    n: usize,
    /// Elements a row.
    k: usize,
    /// Whether it has a multiplier for every 32 weights.
    grouped: bool,
    /// What a typical weight is worth.
    gain: f64,
}

impl<'a> Matrix<'a> {
    /// These keep each layer's output near its input's size, the embedding near 1 and logits a few units apart.
    fn of(part: &'a LinearPart) -> Self {
        let gain = match part.role {
            Role::Embed => 1.0,
            Role::AttnOut | Role::Down => 0.7 / f64::from(part.k).sqrt(),
            _ => 1.5 / f64::from(part.k).sqrt(),
        };
        Self {
            name: &part.name,
            n: part.n as usize,
            k: part.k as usize,
            grouped: part.grouped,
            gain,
        }
    }
}

/// Writes `.q`, `.scale` and, where it is grouped, `.mult`.
fn matrix<W: Write + Seek>(
    writer: &mut PackWriter<W>,
    part: &Matrix<'_>,
    seed: u64,
) -> Result<(), PackError> {
    let (n, k) = (part.n, part.k);
    let mut bytes = stream(seed, part.name);
    let mut row = vec![0; k];
    let mut out = writer.tensor(&format!("{}.q", part.name), DType::I8, n, k)?;
    for _ in 0..n {
        bytes.fill(&mut row);
        for w in &mut row {
            // -128 is no weight.
            if *w == 0x80 {
                *w = 0x81;
            }
        }
        out.write(&row)?;
    }
    out.finish()?;
    // Uniform bytes have a deviation of 74.
    let (m, e) = number::scale(part.gain / 74.0 / if part.grouped { 8.0 } else { 1.0 });
    let mut scales = Vec::with_capacity(n * 4);
    let mut jitter = stream(seed, &format!("{}.scale", part.name));
    for _ in 0..n {
        let mut b = [0; 2];
        jitter.fill(&mut b);
        // A little below m, never below 2^15.
        let m = m.saturating_sub(u16::from_le_bytes(b) >> 4).max(1 << 15);
        scales.extend(m.to_le_bytes());
        scales.extend(e.to_le_bytes());
    }
    writer.whole(&format!("{}.scale", part.name), DType::Scale, 1, n, &scales)?;
    if part.grouped {
        let mut mult = vec![0; n * (k / number::GROUP)];
        stream(seed, &format!("{}.mult", part.name)).fill(&mut mult);
        mult.iter_mut().for_each(|m| *m = *m % 15 + 1);
        writer.whole(
            &format!("{}.mult", part.name),
            DType::U8,
            n,
            k / number::GROUP,
            &mult,
        )?;
    }
    Ok(())
}

/// Bytes, begin, end, and unused names up to the vocabulary.
fn vocabulary(vocab: u32) -> Vocabulary {
    let mut tokens: Vec<String> = byte_names();
    let mut types = vec![TokenType::Normal; 256];
    for id in 256..vocab {
        tokens.push(match id {
            BOS => "<s>".into(),
            EOS => "</s>".into(),
            id => format!("<unused{id}>"),
        });
        types.push(if id <= EOS {
            TokenType::Control
        } else {
            TokenType::Unused
        });
    }
    Vocabulary {
        kind: Kind::Bytes,
        tokens,
        types,
        merges: Vec::new(),
        scores: Vec::new(),
        add_space: false,
        unknown: None,
    }
}

/// GPT-2's printable names of the 256 bytes: printable Latin-1 stands for itself, the rest for U+0100 on.
fn byte_names() -> Vec<String> {
    let mut next = 0x100;
    (0u8..=255)
        .map(|b| {
            let printable = matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let c = if printable {
                char::from(b)
            } else {
                next += 1;
                char::from_u32(next - 1).expect("below U+0200, far from the surrogates")
            };
            c.to_string()
        })
        .collect()
}
