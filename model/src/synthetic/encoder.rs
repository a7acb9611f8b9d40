//! A small encoder from a seed, for quick tests of jobs that embed: every kind of site that an imported one has.

use std::{
    io::{Cursor, Seek, Write},
    path::Path,
    sync::Arc,
};

use bitai_kernels::{
    DType, Hash,
    program::{Activation, Pooling},
};

use super::{Matrix, matrix, stream};
use crate::{
    SPEC_VERSION,
    arch::encoder::{EncoderPart, EncoderShape, plan, unit_gain},
    pack::{Hyper, Info, Pack, PackError, PackFile, PackWriter, Profile, Source, Special},
    tokenizer::{Kind, TokenType, Vocabulary},
};

/// The vocabulary: ids in this order.
pub const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "sea", "is", "deep", "##er", "blue", "sky", ",",
];
/// Fraction bits of the norms' gains: 2^20 stands for one.
const GAIN_F: i8 = 20;

/// Four layers of 64 elements over 12 words and 24 positions; 64 words out.
pub fn tiny() -> EncoderShape {
    EncoderShape {
        layers: 4,
        d_model: 64,
        heads: 4,
        d_ff: 96,
        // As many as there are.
        vocab: WORDS.len() as u32,
        context: 24,
        eps: 1e-12,
        activation: Activation::GeluErf,
        pooling: Pooling::Mean,
        planes: 2,
    }
}

/// A pack in memory.
pub fn pack(shape: &EncoderShape, seed: u64) -> Result<Pack, PackError> {
    let path = Path::new("synthetic");
    let writer = PackWriter::new(Cursor::new(Vec::new()), path)?;
    let (sink, _) = fill(writer, shape, seed)?;
    Pack::from_bytes(Arc::new(sink.into_inner()), path)
}

/// The same pack as a file. Gives the model root.
pub fn write(path: &Path, shape: &EncoderShape, seed: u64) -> Result<Hash, PackError> {
    let (file, writer) = PackFile::create(path)?;
    let (sink, root) = fill(writer, shape, seed)?;
    file.commit(sink)?;
    Ok(root)
}

fn fill<W: Write + Seek>(
    mut writer: PackWriter<W>,
    shape: &EncoderShape,
    seed: u64,
) -> Result<(W, Hash), PackError> {
    let plan = plan(shape, &|_| GAIN_F);
    for part in &plan.parts {
        match part {
            EncoderPart::Weight {
                name,
                n,
                k,
                grouped,
                bias,
            } => {
                let weight = Matrix {
                    name,
                    n: *n as usize,
                    k: *k as usize,
                    grouped: *grouped,
                    gain: if *bias { 1.2 / f64::from(*k).sqrt() } else { 1.0 },
                };
                matrix(&mut writer, &weight, seed)?;
                if *bias {
                    ints(&mut writer, &format!("{name}.bias"), &small(seed, name, *n, 0))?;
                }
            }
            EncoderPart::Norm { name } => {
                let gain = small(seed, &format!("{name}.gain"), shape.d_model, 1 << GAIN_F);
                ints(&mut writer, name, &gain)?;
                let bias = format!("{name}.bias");
                ints(&mut writer, &bias, &small(seed, &bias, shape.d_model, 0))?;
            }
            EncoderPart::UnitGain => ints(&mut writer, "unit", &unit_gain(shape.d_model).0)?,
        }
    }
    let info = Info {
        spec_version: SPEC_VERSION,
        architecture: "bert".into(),
        name: "synthetic encoder".into(),
        profile: Profile::A,
        source: Source {
            kind: "synthetic".into(),
            bytes: 0,
            blake3: *blake3::hash(&seed.to_le_bytes()).as_bytes(),
            importer: "bitai-synthetic 1".into(),
        },
        hyper: Hyper {
            layers: shape.layers,
            d_model: shape.d_model,
            heads: shape.heads,
            kv_heads: shape.heads,
            head_dim: shape.d_model / shape.heads,
            d_ff: shape.d_ff,
            vocab: shape.vocab,
            context: shape.context,
            tied: false,
        },
        special: Special {
            bos: Some(2),
            eos: Some(3),
            stop: vec![],
            add_bos: true,
        },
        chat_template: None,
        tensor_count: 0,
        site_count: 0,
    };
    writer.finish(info, plan.program, &vocabulary(shape.vocab).encode())
}

/// `count` integers of at most 2^14 around `centre`.
fn small(seed: u64, name: &str, count: u32, centre: i32) -> Vec<i32> {
    let mut bytes = vec![0; count as usize * 2];
    stream(seed, name).fill(&mut bytes);
    let pairs = bytes.as_chunks::<2>().0.iter();
    pairs
        .map(|b| centre + i32::from(i16::from_le_bytes(*b)) / 2)
        .collect()
}

fn ints<W: Write + Seek>(writer: &mut PackWriter<W>, name: &str, ints: &[i32]) -> Result<(), PackError> {
    let bytes: Vec<u8> = ints.iter().flat_map(|v| v.to_le_bytes()).collect();
    writer.whole(name, DType::I32, 1, ints.len(), &bytes)?;
    Ok(())
}

/// [`WORDS`], and unused names up to the vocabulary.
fn vocabulary(vocab: u32) -> Vocabulary {
    let mut tokens: Vec<String> = WORDS.iter().map(|w| (*w).to_owned()).collect();
    let mut types: Vec<TokenType> = WORDS
        .iter()
        .map(|w| match w.starts_with('[') {
            true => TokenType::Control,
            false => TokenType::Normal,
        })
        .collect();
    tokens.resize(vocab as usize, String::new());
    types.resize(vocab as usize, TokenType::Unused);
    Vocabulary {
        kind: Kind::WordPieceUncased,
        tokens,
        types,
        merges: Vec::new(),
        scores: Vec::new(),
        add_space: false,
        unknown: Some(1),
    }
}
