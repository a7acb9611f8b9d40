//! Imports a GGUF file into a pack: the one place where a model's floats become integers. The same file
//! gives the same `model_root` on every machine and thread count (PROTOCOL rule 10).

mod error;
mod fold;
mod gguf;
pub(crate) mod number;
mod rope;
mod shape;
mod special;
mod weights;

pub use error::ImportError;
pub(crate) use rope::table as rope_table;

use std::{collections::HashMap, path::Path};

use bitai_kernels::{DType, Hash};

use crate::{
    llama::{Part, Plan, Role, Settings, plan},
    pack::{Hyper, Info, PackFile, Profile, Source},
};
use fold::Fold;
use gguf::Gguf;
use shape::Model;

/// Name and version of these import rules: changes whenever the integers that they make do.
pub const IMPORTER: &str = "bitai-import 1";

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Numeric profile.
    pub profile: Profile,
    /// Threads; 0 = one a core. Changes nothing but time.
    pub threads: usize,
    /// Cuts the context (and with it the RoPE table and a job's memory); 0 = the file's.
    pub context: u32,
}

/// What an import made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The pack's root.
    pub model_root: Hash,
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// Tensors written.
    pub tensors: u32,
}

/// Reads `gguf` and writes `pack` (atomically). `progress` hears (tensor rows done, rows in all).
/// Memory: slabs of some MiB; with profile B the largest layer weight as f64.
pub fn import_gguf(
    gguf: &Path,
    pack: &Path,
    options: &ImportOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Imported, ImportError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|e| ImportError::Threads {
            threads: options.threads,
            why: e.to_string(),
        })?;
    pool.install(|| import(gguf, pack, options, progress))
}

fn import(
    path: &Path,
    target: &Path,
    options: &ImportOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Imported, ImportError> {
    let gguf = Gguf::open(path)?;
    let model = Model::read(&gguf, options)?;
    let tokenizer = special::read(&gguf, model.shape.vocab)?;
    let hash = gguf.hash()?;
    let fold = Fold::new(options.profile, &model.shape);

    // Norms are small and their fraction bits are part of the program: they come first.
    let mut gains: HashMap<String, (Vec<i32>, i8)> = HashMap::new();
    let mut raw_gains: HashMap<String, Vec<f64>> = HashMap::new();
    for name in model.norms() {
        let t = gguf.shaped(&format!("{name}.weight"), 1, model.shape.d_model as usize)?;
        let g = gguf.rows(&t, 0, 1)?;
        let (ints, f) = number::gains(&fold.gain_left(&g));
        // number::gains keeps f within +-97.
        gains.insert(name.clone(), (ints, f as i8));
        raw_gains.insert(name, g);
    }
    let mut shape = model.shape.clone();
    shape.tied &= !fold.unties();
    let Plan { program, parts } = plan(&shape, Settings::of(options.profile), &|name| gains[name].1);
    program
        .validate()
        .map_err(|source| crate::pack::PackError::Program {
            path: path.to_owned(),
            source,
        })?;

    let (file, mut writer) = PackFile::create(target)?;
    let rows_all: u64 = parts
        .iter()
        .map(|p| match p {
            Part::Linear(l) => u64::from(l.n),
            _ => 0,
        })
        .sum();
    let mut rows_done = 0;
    for part in &parts {
        match part {
            Part::Rope => {
                let bytes = model.rope_table(&gguf)?;
                writer.whole(
                    "rope",
                    DType::I16,
                    shape.context as usize,
                    shape.head_dim as usize,
                    &bytes,
                )?;
            }
            Part::Gain { name } => {
                let bytes: Vec<u8> = gains[name].0.iter().flat_map(|g| g.to_le_bytes()).collect();
                writer.whole(name, DType::I32, 1, gains[name].0.len(), &bytes)?;
            }
            Part::Linear(linear) => {
                let gain = fold_gain(&raw_gains, linear);
                // A tied head has no tensor of its own in the file.
                let source = if linear.role == Role::Head && model.shape.tied {
                    "token_embd"
                } else {
                    &linear.name
                };
                weights::write(&gguf, &mut writer, linear, source, &fold, gain, &mut |rows| {
                    rows_done += rows;
                    progress(rows_done, rows_all);
                })?;
            }
        }
    }
    let tensors = writer.next_id();
    let info = Info {
        spec_version: crate::SPEC_VERSION,
        architecture: "llama".into(),
        name: model.name.clone(),
        profile: options.profile,
        source: Source {
            kind: "gguf".into(),
            bytes: gguf.len,
            blake3: hash,
            importer: IMPORTER.into(),
        },
        hyper: Hyper {
            layers: shape.layers,
            d_model: shape.d_model,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            d_ff: shape.d_ff,
            vocab: shape.vocab,
            context: shape.context,
            tied: shape.tied,
        },
        special: tokenizer.special,
        chat_template: tokenizer.chat_template,
        tensor_count: 0,
        site_count: 0,
    };
    let (mut sink, model_root) = writer.finish(info, program, &tokenizer.section)?;
    let pack_bytes = std::io::Seek::stream_position(&mut sink).map_err(|source| ImportError::Io {
        path: target.to_owned(),
        source,
    })?;
    file.commit(sink)?;
    Ok(Imported {
        model_root,
        pack_bytes,
        tensors,
    })
}

/// The gain of the norm before a weight, which a rotation folds into it.
fn fold_gain<'g>(
    gains: &'g HashMap<String, Vec<f64>>,
    linear: &crate::llama::LinearPart,
) -> Option<&'g [f64]> {
    let layer = linear.name.rsplit_once('.').map_or("", |(layer, _)| layer);
    let norm = match linear.role {
        Role::QueryKey | Role::Value => format!("{layer}.attn_norm"),
        Role::GateUp => format!("{layer}.ffn_norm"),
        Role::Head => "output_norm".into(),
        Role::Embed | Role::AttnOut | Role::Down => return None,
    };
    gains.get(&norm).map(Vec::as_slice)
}
