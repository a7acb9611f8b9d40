//! Imports an encoder of the BERT family from a folder as sentence-transformers and Hugging Face lay it out:
//! `config.json`, `model.safetensors`, `tokenizer.json`, and `1_Pooling/config.json` where there is one.

use std::{
    collections::HashMap,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use bitai_kernels::{
    DType,
    program::{Activation, Pooling},
};
use rayon::prelude::*;
use serde_json::Value;

use super::{
    IMPORTER, ImportError, ImportOptions, Imported,
    number::{self, GROUP},
    safetensors::Source as Tensors,
    weights,
};
use crate::{
    arch::encoder::{EncoderPart, EncoderShape, F_ENCODER, plan, unit_gain},
    pack::{Hyper, Info, PackFile, PackWriter, Profile, Source, Special},
    tokenizer::{Kind, TokenType, Vocabulary},
};

/// Elements that one task quantises.
const TASK: usize = 1 << 17;
/// Layer norm's epsilon is a real number below this.
const EPS_MAX: f64 = 1.0;

/// A JSON file of the folder.
struct Json {
    path: PathBuf,
    value: Value,
}

impl Json {
    fn read(path: PathBuf) -> Result<Self, ImportError> {
        let bytes = std::fs::read(&path).map_err(|source| ImportError::Io {
            path: path.clone(),
            source,
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self { path, value }),
            Err(e) => Err(ImportError::Json {
                path,
                why: e.to_string(),
            }),
        }
    }

    fn bad(&self, why: impl Into<String>) -> ImportError {
        ImportError::Json {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    fn number(&self, key: &str) -> Result<u32, ImportError> {
        let value = self.value[key].as_u64().and_then(|v| u32::try_from(v).ok());
        value.filter(|v| *v > 0).ok_or_else(|| {
            self.bad(format!(
                "{key} must be a number from 1 to 2^32 - 1, got {}",
                self.value[key]
            ))
        })
    }

    fn text(&self, key: &str) -> Result<&str, ImportError> {
        let text = self.value[key].as_str();
        text.ok_or_else(|| self.bad(format!("{key} must be text, got {}", self.value[key])))
    }
}

/// Reads the folder and writes `target` (atomically). `progress` hears (rows done, rows in all).
pub(super) fn import(
    folder: &Path,
    target: &Path,
    options: &ImportOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Imported, ImportError> {
    if options.profile == Profile::B {
        return Err(ImportError::Unsupported {
            what: "profile b for an encoder, whose norms behind each block do not commute with a rotation (profile a is)"
                .into(),
        });
    }
    let config = Json::read(folder.join("config.json"))?;
    let shape = shape(folder, &config, options)?;
    let tensors = Tensors::open(&folder.join("model.safetensors"))?;
    let prefix = prefix(&tensors);
    let (vocabulary, special) = tokenizer(&Json::read(folder.join("tokenizer.json"))?, shape.vocab)?;

    let mut gains: HashMap<String, (Vec<i32>, i8)> = HashMap::new();
    for part in plan(&shape, &|_| 0).parts {
        if let EncoderPart::Norm { name } = part {
            let floats = vector(&tensors, &format!("{prefix}{name}.weight"), shape.d_model)?;
            let (ints, f) = number::gains(&floats);
            // number::gains keeps f within +-97.
            gains.insert(name, (ints, f as i8));
        }
    }
    let plan = plan(&shape, &|name| gains[name].1);
    plan.program
        .validate()
        .map_err(|source| crate::pack::PackError::Program {
            path: target.to_owned(),
            source,
        })?;
    refuse_unknown_tensors(&tensors, prefix, &plan.parts)?;

    let (file, mut writer) = PackFile::create(target)?;
    let rows_all: u64 = plan.parts.iter().map(rows_of).sum();
    let mut rows_done = 0;
    for part in &plan.parts {
        match part {
            EncoderPart::Weight { .. } => write_weight(&mut writer, &tensors, prefix, &shape, part)?,
            EncoderPart::Norm { name } => {
                write_ints(&mut writer, name, &gains[name].0)?;
                let bias = vector(&tensors, &format!("{prefix}{name}.bias"), shape.d_model)?;
                write_ints(&mut writer, &format!("{name}.bias"), &fixed(&bias))?;
            }
            EncoderPart::UnitGain => write_ints(&mut writer, "unit", &unit_gain(shape.d_model).0)?,
        }
        rows_done += rows_of(part);
        progress(rows_done, rows_all);
    }
    let count = writer.next_id();
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned());
    let info = Info {
        spec_version: crate::SPEC_VERSION,
        architecture: "bert".into(),
        name: config.value["_name_or_path"]
            .as_str()
            .map(str::to_owned)
            .or(name)
            .unwrap_or_default(),
        profile: options.profile,
        source: Source {
            kind: "safetensors".into(),
            bytes: tensors.len,
            blake3: tensors.hash()?,
            importer: IMPORTER.into(),
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
        special,
        chat_template: None,
        tensor_count: 0,
        site_count: 0,
    };
    let (mut sink, model_root) = writer.finish(info, plan.program, &vocabulary.encode())?;
    let pack_bytes = std::io::Seek::stream_position(&mut sink).map_err(|source| ImportError::Io {
        path: target.to_owned(),
        source,
    })?;
    file.commit(sink)?;
    Ok(Imported {
        model_root,
        pack_bytes,
        tensors: count,
    })
}

fn shape(folder: &Path, config: &Json, options: &ImportOptions) -> Result<EncoderShape, ImportError> {
    let unsupported = |what: String| Err(ImportError::Unsupported { what });
    let kind = config.text("model_type")?;
    if kind != "bert" {
        return unsupported(format!("model_type {kind:?} in config.json (bert is)"));
    }
    let positions = config.value["position_embedding_type"]
        .as_str()
        .unwrap_or("absolute");
    if positions != "absolute" {
        return unsupported(format!("position_embedding_type {positions:?} (absolute is)"));
    }
    let activation = match config.text("hidden_act")? {
        "gelu" => Activation::GeluErf,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "silu" | "swish" => Activation::Silu,
        other => {
            return unsupported(format!(
                "hidden_act {other:?} (gelu, gelu_new, gelu_pytorch_tanh and silu are)"
            ));
        }
    };
    let eps = config.value["layer_norm_eps"].as_f64().unwrap_or(1e-12);
    if !(0.0..EPS_MAX).contains(&eps) {
        return Err(config.bad(format!("layer_norm_eps must be in 0..{EPS_MAX}, got {eps}")));
    }
    let (d_model, heads) = (
        config.number("hidden_size")?,
        config.number("num_attention_heads")?,
    );
    if !d_model.is_multiple_of(heads) {
        return Err(config.bad(format!("{heads} heads do not divide hidden_size {d_model}")));
    }
    let longest = config.number("max_position_embeddings")?;
    Ok(EncoderShape {
        layers: config.number("num_hidden_layers")?,
        d_model,
        heads,
        d_ff: config.number("intermediate_size")?,
        vocab: config.number("vocab_size")?,
        context: match options.context {
            0 => longest,
            cut => cut.min(longest),
        },
        eps,
        activation,
        pooling: pooling(folder)?,
        planes: 2,
    })
}

/// What sentence-transformers does behind the model: its list of modules, all of which must be known.
fn pooling(folder: &Path) -> Result<Pooling, ImportError> {
    let modules = folder.join("modules.json");
    if modules.exists() {
        let modules = Json::read(modules)?;
        for module in modules.value.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or_default();
            let known = ["Transformer", "Pooling", "Normalize"];
            if !known.iter().any(|k| kind.ends_with(k)) {
                return Err(ImportError::Unsupported {
                    what: format!("module {kind:?} in modules.json ({} are)", known.join(", ")),
                });
            }
        }
    }
    let path = folder.join("1_Pooling/config.json");
    if !path.exists() {
        // What sentence-transformers does with a plain model.
        return Ok(Pooling::Mean);
    }
    let config = Json::read(path)?;
    let on: Vec<&str> = config
        .value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with("pooling_mode_") && value.as_bool() == Some(true))
        .map(|(key, _)| key.as_str())
        .collect();
    match on.as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::First),
        other => Err(ImportError::Unsupported {
            what: format!("pooling {other:?} (pooling_mode_mean_tokens or pooling_mode_cls_token alone is)"),
        }),
    }
}

/// Models with a head on top keep the encoder under `bert.`.
fn prefix(tensors: &Tensors) -> &'static str {
    if tensors.shape("bert.embeddings.word_embeddings.weight").is_some() {
        "bert."
    } else {
        ""
    }
}

/// A tensor of the encoder that nothing reads means another model than this one.
fn refuse_unknown_tensors(tensors: &Tensors, prefix: &str, parts: &[EncoderPart]) -> Result<(), ImportError> {
    let known = |name: &str| {
        let Some(name) = name.strip_prefix(prefix) else {
            return true;
        };
        // The token types' first row joins the positions; position ids are 0, 1, 2 ...; the pooler is a head.
        if name.starts_with("embeddings.token_type_embeddings.")
            || name == "embeddings.position_ids"
            || name.starts_with("pooler.")
        {
            return true;
        }
        let Some((stem, suffix)) = name.rsplit_once('.') else {
            return false;
        };
        parts.iter().any(|p| match p {
            EncoderPart::Weight { name, bias, .. } => {
                name == stem && (suffix == "weight" || *bias && suffix == "bias")
            }
            EncoderPart::Norm { name } => name == stem,
            EncoderPart::UnitGain => false,
        })
    };
    match tensors.names().into_iter().find(|n| !known(n)) {
        Some(name) => Err(ImportError::ExtraTensor { name }),
        None => Ok(()),
    }
}

fn rows_of(part: &EncoderPart) -> u64 {
    match part {
        EncoderPart::Weight { n, .. } => u64::from(*n),
        EncoderPart::Norm { .. } | EncoderPart::UnitGain => 1,
    }
}

fn vector(tensors: &Tensors, name: &str, cols: u32) -> Result<Vec<f64>, ImportError> {
    let t = tensors.shaped(name, 1, cols as usize)?;
    tensors.rows(&t, 0, 1)
}

fn fixed(floats: &[f64]) -> Vec<i32> {
    floats.iter().map(|b| number::fixed(*b, F_ENCODER)).collect()
}

fn write_ints(writer: &mut PackWriter<BufWriter<File>>, name: &str, ints: &[i32]) -> Result<(), ImportError> {
    let bytes: Vec<u8> = ints.iter().flat_map(|g| g.to_le_bytes()).collect();
    writer.whole(name, DType::I32, 1, ints.len(), &bytes)?;
    Ok(())
}

fn write_weight(
    writer: &mut PackWriter<BufWriter<File>>,
    tensors: &Tensors,
    prefix: &str,
    shape: &EncoderShape,
    part: &EncoderPart,
) -> Result<(), ImportError> {
    let EncoderPart::Weight {
        name,
        n,
        k,
        grouped,
        bias,
    } = part
    else {
        return Ok(());
    };
    let (rows, cols) = (*n as usize, *k as usize);
    // A context that was cut reads the first rows of a longer table.
    let held = tensors
        .shape(&format!("{prefix}{name}.weight"))
        .map_or(rows, |(held, _)| {
            if name.ends_with("position_embeddings") {
                held.max(rows)
            } else {
                rows
            }
        });
    let source = tensors.shaped(&format!("{prefix}{name}.weight"), held, cols)?;
    // Every token of an encoder job is of the first type: its row is part of every position's.
    let added = if name.ends_with("position_embeddings") {
        let types = format!("{prefix}embeddings.token_type_embeddings.weight");
        let held = tensors.shape(&types).map_or(1, |(rows, _)| rows);
        let t = tensors.shaped(&types, held, shape.d_model as usize)?;
        tensors.rows(&t, 0, 1)?
    } else {
        vec![]
    };
    let task = (TASK / cols).max(1);
    let starts: Vec<usize> = (0..rows).step_by(task).collect();
    let blocks: Vec<Result<weights::Block, ImportError>> = starts
        .par_iter()
        .map(|&first| {
            let mut w = tensors.rows(&source, first, task.min(rows - first))?;
            if !added.is_empty() {
                for row in w.chunks_mut(cols) {
                    row.iter_mut().zip(&added).for_each(|(w, a)| *w += a);
                }
            }
            weights::quantise(name, *grouped, cols, first, &w)
        })
        .collect();
    let (mut q, mut scales, mut mults) = (vec![], vec![], vec![]);
    for block in blocks {
        let block = block?;
        q.extend(block.q);
        scales.extend(block.scales);
        mults.extend(block.mult);
    }
    writer.whole(&format!("{name}.q"), DType::I8, rows, cols, &q)?;
    weights::write_scales(writer, &format!("{name}.scale"), &scales)?;
    if *grouped {
        writer.whole(&format!("{name}.mult"), DType::U8, rows, cols / GROUP, &mults)?;
    }
    if *bias {
        let floats = vector(tensors, &format!("{prefix}{name}.bias"), *n)?;
        write_ints(writer, &format!("{name}.bias"), &fixed(&floats))?;
    }
    Ok(())
}

/// WordPiece of `tokenizer.json`, with the ids that begin and end a text.
fn tokenizer(json: &Json, vocab: u32) -> Result<(Vocabulary, Special), ImportError> {
    let model = &json.value["model"];
    if model["type"].as_str() != Some("WordPiece")
        || model["continuing_subword_prefix"].as_str() != Some("##")
    {
        return Err(ImportError::Unsupported {
            what: format!("tokenizer model {} (WordPiece with prefix ## is)", model["type"]),
        });
    }
    let normalizer = &json.value["normalizer"];
    let plain = normalizer["type"].as_str() == Some("BertNormalizer")
        && normalizer["clean_text"].as_bool() == Some(true)
        && normalizer["handle_chinese_chars"].as_bool() == Some(true)
        && normalizer["strip_accents"].is_null();
    if !plain || json.value["pre_tokenizer"]["type"].as_str() != Some("BertPreTokenizer") {
        return Err(ImportError::Unsupported {
            what: format!("tokenizer normalizer {normalizer} (BertNormalizer with its usual settings is)"),
        });
    }
    let mut tokens = vec![String::new(); vocab as usize];
    let entries = model["vocab"]
        .as_object()
        .ok_or_else(|| json.bad("model.vocab is missing"))?;
    for (token, id) in entries {
        let slot = id
            .as_u64()
            .and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        *slot.ok_or_else(|| json.bad(format!("token {token:?} has id {id}, not below {vocab}")))? =
            token.clone();
    }
    let find = |name: &str| {
        entries
            .get(name)
            .and_then(Value::as_u64)
            .and_then(|id| u32::try_from(id).ok())
    };
    let need = |name: &str| find(name).ok_or_else(|| json.bad(format!("the vocabulary has no {name}")));
    let unknown = need(model["unk_token"].as_str().unwrap_or("[UNK]"))?;
    let (cls, sep) = (need("[CLS]")?, need("[SEP]")?);
    let types = tokens
        .iter()
        .map(|token| match token.as_str() {
            "" => TokenType::Unused,
            "[CLS]" | "[SEP]" | "[PAD]" | "[MASK]" | "[UNK]" => TokenType::Control,
            _ => TokenType::Normal,
        })
        .collect();
    let vocabulary = Vocabulary {
        kind: if normalizer["lowercase"].as_bool() == Some(true) {
            Kind::WordPieceUncased
        } else {
            Kind::WordPieceCased
        },
        tokens,
        types,
        merges: vec![],
        scores: vec![],
        add_space: false,
        unknown: Some(unknown),
    };
    vocabulary.build()?;
    let special = Special {
        bos: Some(cls),
        eos: Some(sep),
        stop: vec![],
        add_bos: true,
    };
    Ok((vocabulary, special))
}
