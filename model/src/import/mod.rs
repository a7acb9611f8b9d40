//! Imports a GGUF file into a pack: the one place where a model's floats become integers. The same file
//! gives the same `model_root` on every machine and thread count (PROTOCOL rule 10).

mod bert;
mod dequant;
mod error;
mod fold;
mod gguf;
mod gguf_header;
pub(crate) mod number;
mod rope;
mod safetensors;
mod special;
mod weights;

pub use error::ImportError;
pub(crate) use gguf::Gguf;
pub(crate) use rope::table as rope_table;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use bitai_kernels::{DType, Hash};

use crate::{
    arch::{self, Description, Fields, Part, Plan, Role, Settings, plan},
    pack::{Hyper, Info, PackFile, Profile, Source},
};
use fold::Fold;

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
    threads(options)?.install(|| import(&Gguf::open(gguf)?, pack, options, progress))
}

/// Reads an encoder's folder (`config.json`, `model.safetensors`, `tokenizer.json`) and writes `pack` (atomically).
/// `progress` hears (tensor rows done, rows in all). Memory: the largest weight as integers.
pub fn import_encoder(
    folder: &Path,
    pack: &Path,
    options: &ImportOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Imported, ImportError> {
    threads(options)?.install(|| bert::import(folder, pack, options, progress))
}

/// The pool that an import runs on.
fn threads(options: &ImportOptions) -> Result<rayon::ThreadPool, ImportError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|e| ImportError::Threads {
            threads: options.threads,
            why: e.to_string(),
        })
}

fn import(
    gguf: &Gguf,
    target: &Path,
    options: &ImportOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Imported, ImportError> {
    let family = arch::of_name(gguf.text("general.architecture")?)?;
    let model = (family.describe)(&Fields::new(gguf, family.name, options.context))?;
    if options.profile == Profile::B && model.post_norms {
        return Err(ImportError::Unsupported {
            what: format!(
                "profile b for {}, whose norms behind each block do not commute with a rotation (profile a is)",
                family.name
            ),
        });
    }
    let settings = Settings::of(options.profile, &model);
    refuse_unknown_tensors(gguf, &model, settings)?;
    let tokenizer = special::read(gguf, model.vocab)?;
    let hash = gguf.hash()?;
    let fold = Fold::new(options.profile, &model);
    let gains = Gains::read(gguf, &model, settings, &fold)?;
    let shape = Description {
        tied: model.tied && !fold.unties(),
        ..model.clone()
    };
    let Plan { program, parts } = plan(&shape, settings, &|name| gains.fraction_bits(name));
    program
        .validate()
        .map_err(|source| crate::pack::PackError::Program {
            path: target.to_owned(),
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
    // Row scales of the last weight, for a part that rescales them.
    let mut scales = Vec::new();
    for part in &parts {
        match part {
            Part::Rope { rope } => {
                let rope = &shape.ropes[*rope];
                let (rows, cols) = (shape.context as usize, shape.head_dim as usize);
                let bytes = rope::table(shape.context, shape.head_dim, rope);
                writer.whole(rope.name, DType::I16, rows, cols, &bytes)?;
            }
            Part::Gain { name, cols, .. } => {
                let bytes: Vec<u8> = gains.ints[name].0.iter().flat_map(|g| g.to_le_bytes()).collect();
                writer.whole(name, DType::I32, 1, *cols as usize, &bytes)?;
            }
            Part::Linear(linear) => {
                let gain = linear.norm.as_ref().map(|norm| gains.floats[norm].as_slice());
                // A tied head has no tensor of its own in the file.
                let source = if linear.role == Role::Head && model.tied {
                    "token_embd"
                } else {
                    &linear.name
                };
                scales = weights::write(gguf, &mut writer, linear, source, &fold, gain, &mut |rows| {
                    rows_done += rows;
                    progress(rows_done, rows_all);
                })?;
            }
            Part::Rescaled { name, by } => {
                let scaled: Vec<_> = scales
                    .iter()
                    .map(|s| number::scale(number::scale_value(*s) * by))
                    .collect();
                weights::write_scales(&mut writer, name, &scaled)?;
            }
        }
    }
    let tensors = writer.next_id();
    let info = Info {
        spec_version: crate::SPEC_VERSION,
        architecture: family.name.into(),
        name: gguf
            .text_opt("general.name")
            .transpose()?
            .unwrap_or_default()
            .to_owned(),
        profile: options.profile,
        source: Source {
            kind: "gguf".into(),
            bytes: gguf.len,
            blake3: hash,
            importer: IMPORTER.into(),
        },
        hyper: Hyper {
            layers: program.layers,
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

/// Gains of all norms by name. They are small, and their fraction bits are part of the program, so they
/// come before it.
struct Gains {
    /// As the file has them.
    floats: HashMap<String, Vec<f64>>,
    /// What stays in the norms: integers and their fraction bits.
    ints: HashMap<String, (Vec<i32>, i8)>,
}

impl Gains {
    fn read(gguf: &Gguf, model: &Description, settings: Settings, fold: &Fold) -> Result<Self, ImportError> {
        let mut gains = Self {
            floats: HashMap::new(),
            ints: HashMap::new(),
        };
        // Which norms there are does not depend on their fraction bits.
        for part in plan(model, settings, &|_| 0).parts {
            let Part::Gain { name, cols, folds } = part else {
                continue;
            };
            let t = gguf.shaped(&format!("{name}.weight"), 1, cols as usize)?;
            let floats = gguf.rows(&t, 0, 1)?;
            let (ints, f) = number::gains(&fold.gain_left(folds, &floats));
            // number::gains keeps f within +-97.
            gains.ints.insert(name.clone(), (ints, f as i8));
            gains.floats.insert(name, floats);
        }
        Ok(gains)
    }

    fn fraction_bits(&self, name: &str) -> i8 {
        self.ints[name].1
    }
}

/// A tensor that nothing here reads means a part of the model that would be lost.
fn refuse_unknown_tensors(gguf: &Gguf, model: &Description, settings: Settings) -> Result<(), ImportError> {
    let mut known: HashSet<String> = HashSet::from(["rope_freqs.weight".to_owned()]);
    for part in plan(model, settings, &|_| 0).parts {
        match part {
            Part::Gain { name, .. } => {
                known.insert(format!("{name}.weight"));
            }
            Part::Linear(l) => {
                known.insert(format!("{}.weight", l.name));
                if l.bias {
                    known.insert(format!("{}.bias", l.name));
                }
            }
            Part::Rope { .. } | Part::Rescaled { .. } => {}
        }
    }
    match gguf.tensor_names().into_iter().find(|n| !known.contains(n)) {
        Some(name) => Err(ImportError::ExtraTensor { name }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The model's file, or `None` where it is absent and nobody insists (`BITAI_REQUIRE_MODEL=1`).
    fn smollm2() -> Option<PathBuf> {
        let path = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/SmolLM2-135M-Instruct.Q4_1.gguf"
        ));
        let wanted = std::env::var_os("BITAI_REQUIRE_MODEL").is_some_and(|v| v == "1");
        assert!(path.exists() || !wanted, "{} is absent", path.display());
        path.exists().then_some(path)
    }

    #[test]
    fn the_whole_model_has_one_root_with_candles_vector_paths_and_with_our_scalar_ones() {
        let Some(path) = smollm2() else { return };
        let dir = tempfile::tempdir().unwrap();
        let vector = Gguf::open(&path).unwrap().with_dequantise(|format, raw, out| {
            out.copy_from_slice(&dequant::tests::candle(format, raw));
        });
        let options = ImportOptions::default();
        let made = import(&vector, &dir.path().join("m.pack"), &options, &mut |_, _| {}).unwrap();
        // tests/smollm2.rs holds the scalar import to the same committed root.
        let committed = include_str!("../../tests/smollm2.root").trim();
        assert_eq!(hex::encode(made.model_root), committed);
    }
}
