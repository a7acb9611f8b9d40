//! Tokenizer fields, special ids and chat template of a GGUF file.

use super::{ImportError, gguf::Gguf};
use crate::{
    pack::Special,
    tokenizer::{Kind, TokenType, Vocabulary},
};

/// What the file says about text.
pub(crate) struct Text {
    /// Canonical bytes of the tokenizer section.
    pub(crate) section: Vec<u8>,
    /// Special ids.
    pub(crate) special: Special,
    /// Chat template.
    pub(crate) chat_template: Option<String>,
}

/// Names of control tokens that end a turn or a text, whatever `eos` is.
const ENDS: [&str; 7] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|end|>",
    "<|eom_id|>",
    "<|end_of_text|>",
];

/// Reads and checks all of it: the tokenizer is built once, so that what cannot work is refused here.
pub(crate) fn read(gguf: &Gguf, vocab: u32) -> Result<Text, ImportError> {
    let key = |k: &str| format!("tokenizer.ggml.{k}");
    let model = gguf.text(&key("model"))?;
    let pre = gguf.text_opt(&key("pre")).transpose()?.unwrap_or("default");
    let kind = Kind::of_gguf(model, pre).ok_or_else(|| ImportError::Unsupported {
        what: format!("tokenizer {model:?} with pre-tokenizer {pre:?}"),
    })?;
    let tokens = gguf
        .texts_opt(&key("tokens"))
        .unwrap_or_else(|| Err(ImportError::field(&key("tokens"), "missing")))?;
    if tokens.len() != vocab as usize {
        return Err(ImportError::field(
            &key("tokens"),
            format!("{} tokens for an embedding of {vocab} rows", tokens.len()),
        ));
    }
    let types = match gguf.ints_opt(&key("token_type")).transpose()? {
        Some(types) => types
            .into_iter()
            .map(|t| {
                let known = i64::try_from(t).ok().and_then(TokenType::of_gguf);
                known.ok_or_else(|| ImportError::field(&key("token_type"), format!("{t} is no type")))
            })
            .collect::<Result<_, _>>()?,
        None => vec![TokenType::Normal; tokens.len()],
    };
    let merges = gguf.texts_opt(&key("merges")).transpose()?.unwrap_or_default();
    // Only their order counts, and a total order of floats is an order of integers.
    let scores = gguf.floats_opt(&key("scores")).transpose()?.unwrap_or_default();
    let scores = scores.into_iter().map(ordered).collect();
    let id = |name: &str| -> Result<Option<u32>, ImportError> {
        let key = key(name);
        match gguf.u32_opt(&key).transpose()? {
            Some(id) if id >= vocab => Err(ImportError::field(
                &key,
                format!("{id} is not below the vocabulary of {vocab}"),
            )),
            other => Ok(other),
        }
    };
    let bos = id("bos_token_id")?;
    let mut stop: Vec<u32> = ["eos_token_id", "eot_token_id", "eom_token_id"]
        .into_iter()
        .filter_map(|name| id(name).transpose())
        .collect::<Result<_, _>>()?;
    let controls = (0u32..)
        .zip(&tokens)
        .zip(&types)
        .filter(|(_, t)| **t == TokenType::Control);
    stop.extend(
        controls
            .filter(|((_, name), _)| ENDS.contains(&name.as_str()))
            .map(|((id, _), _)| id),
    );
    stop.sort_unstable();
    stop.dedup();
    let add_bos = gguf
        .bool_opt(&key("add_bos_token"))
        .transpose()?
        .unwrap_or(kind.adds_bos_by_default())
        && bos.is_some();
    let add_space = gguf
        .bool_opt(&key("add_space_prefix"))
        .transpose()?
        .unwrap_or(true);
    let unknown = id("unknown_token_id")?;
    let vocabulary = Vocabulary {
        kind,
        tokens,
        types,
        merges,
        scores,
        add_space,
        unknown,
    };
    vocabulary.build()?;
    Ok(Text {
        section: vocabulary.encode(),
        special: Special {
            bos,
            eos: id("eos_token_id")?,
            stop,
            add_bos,
        },
        chat_template: gguf
            .text_opt("tokenizer.chat_template")
            .transpose()?
            .map(str::to_owned),
    })
}

/// An integer with the order of the float (IEEE 754 totalOrder).
fn ordered(x: f32) -> i32 {
    let bits = x.to_bits().cast_signed();
    if bits < 0 { bits ^ i32::MAX } else { bits }
}
