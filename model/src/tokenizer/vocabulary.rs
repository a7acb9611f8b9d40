//! The tokenizer section of a pack: a vocabulary with its rules, as canonical JSON, and how it becomes a
//! tokenizer.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, Tokenizer as Engine,
    decoders::{
        byte_fallback::ByteFallback, byte_level::ByteLevel as ByteDecoder, fuse::Fuse,
        sequence::Sequence as Decoders, strip::Strip, wordpiece::WordPiece as WordPieceDecoder,
    },
    models::{bpe::BPE, wordpiece::WordPiece},
    normalizers::{BertNormalizer, NFC, Prepend, Replace, Sequence as Normalizers},
    pre_tokenizers::{
        PreTokenizerWrapper,
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    tokenizer::SplitDelimiterBehavior,
};

use super::TokenizerError;

/// How text is cut before merging: the families that GGUF names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Byte-level BPE as in GPT-2.
    Gpt2,
    /// Digits alone, then as GPT-2 (SmolLM, StarCoder and others).
    DigitsGpt2,
    /// Llama 3.
    LlamaBpe,
    /// Qwen 2, 2.5 and 3: composed characters (NFC), digits one by one.
    Qwen2,
    /// GGUF's fallback for files that name none.
    DefaultBpe,
    /// SentencePiece BPE with byte fallback (Llama 1 and 2, Mistral, TinyLlama, Gemma).
    Spm,
    /// A token a byte: ids 0 to 255. Synthetic packs.
    Bytes,
    /// WordPiece over lower-cased text without accents (BERT uncased, MiniLM).
    WordPieceUncased,
    /// WordPiece over text as it is (BERT cased).
    WordPieceCased,
}

impl Kind {
    /// GGUF's `tokenizer.ggml.model` and `tokenizer.ggml.pre`.
    pub fn of_gguf(model: &str, pre: &str) -> Option<Self> {
        Some(match (model, pre) {
            ("gpt2", "gpt-2" | "gpt2") => Self::Gpt2,
            (
                "gpt2",
                "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b",
            ) => Self::DigitsGpt2,
            ("gpt2", "llama-bpe" | "llama3" | "llama-v3" | "falcon3") => Self::LlamaBpe,
            ("gpt2", "qwen2" | "deepseek-r1-qwen") => Self::Qwen2,
            ("gpt2", "default") => Self::DefaultBpe,
            ("llama", _) => Self::Spm,
            _ => return None,
        })
    }

    /// Whether a file that does not say puts `bos` in front of text.
    pub fn adds_bos_by_default(self) -> bool {
        matches!(self, Self::Spm | Self::LlamaBpe)
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum TokenType {
    /// Text.
    Normal = 1,
    /// Stands for what cannot be encoded.
    Unknown = 2,
    /// Control: never printed.
    Control = 3,
    /// Matched whole in text, printed.
    UserDefined = 4,
    /// Padding of the vocabulary.
    Unused = 5,
    /// One byte, `<0x41>`.
    Byte = 6,
}

impl TokenType {
    /// GGUF's number.
    pub fn of_gguf(t: i64) -> Option<Self> {
        u8::try_from(t).ok().and_then(|t| t.try_into().ok())
    }
}

impl From<TokenType> for u8 {
    fn from(t: TokenType) -> u8 {
        t as u8
    }
}

impl TryFrom<u8> for TokenType {
    type Error = String;

    fn try_from(t: u8) -> Result<Self, String> {
        Ok(match t {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            other => return Err(format!("token type {other}")),
        })
    }
}

/// A vocabulary with its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// How text is cut.
    pub kind: Kind,
    /// Tokens by id.
    pub tokens: Vec<String>,
    /// Types by id.
    pub types: Vec<TokenType>,
    /// BPE merges, best first: `left right`.
    pub merges: Vec<String>,
    /// SentencePiece ranks by id: higher merges first.
    pub scores: Vec<i32>,
    /// SentencePiece: a space in front of text.
    pub add_space: bool,
    /// The unknown token.
    pub unknown: Option<u32>,
}

/// GPT-2's cut, as published with it.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's cut.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's cut.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Vocabulary {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a vocabulary has string keys only and writes to memory")
    }

    /// The reverse of [`Vocabulary::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenizerError> {
        serde_json::from_slice(bytes).map_err(|e| TokenizerError::Section(e.to_string()))
    }

    /// Builds the tokenizer, or says what is wrong with the vocabulary.
    pub fn build(&self) -> Result<Engine, TokenizerError> {
        let bad = |why: String| TokenizerError::Build(why);
        if self.types.len() != self.tokens.len() {
            return Err(bad(format!(
                "{} tokens, {} types",
                self.tokens.len(),
                self.types.len()
            )));
        }
        let mut ids: HashMap<String, u32> = HashMap::with_capacity(self.tokens.len());
        for (id, token) in (0u32..).zip(&self.tokens) {
            // Some files pad with repeated names; the first id keeps the name.
            ids.entry(token.clone()).or_insert(id);
        }
        let model = match self.kind {
            Kind::WordPieceUncased | Kind::WordPieceCased => self.word_pieces(ids)?,
            _ => self.bpe(ids)?,
        };
        let mut engine = Engine::new(model);
        self.rules(&mut engine).map_err(|e| bad(e.to_string()))?;
        let mut added = |wanted: TokenType, special: bool| {
            let tokens: Vec<AddedToken> = self
                .tokens
                .iter()
                .zip(&self.types)
                .filter(|(name, t)| **t == wanted && !name.is_empty())
                .map(|(name, _)| AddedToken::from(name.clone(), special).normalized(false))
                .collect();
            if special {
                engine.add_special_tokens(tokens)
            } else {
                engine.add_tokens(tokens)
            }
        };
        added(TokenType::Control, true).map_err(|e| bad(e.to_string()))?;
        added(TokenType::UserDefined, false).map_err(|e| bad(e.to_string()))?;
        Ok(engine)
    }

    /// Byte-pair merges.
    fn bpe(&self, ids: HashMap<String, u32>) -> Result<ModelWrapper, TokenizerError> {
        let bad = |why: String| TokenizerError::Build(why);
        let merges = match self.kind {
            Kind::Bytes => Vec::new(),
            Kind::Spm => self.spm_merges(&ids)?,
            _ => self.bpe_merges(&ids)?,
        };
        let spm = self.kind == Kind::Spm;
        let mut builder = BPE::builder()
            .vocab_and_merges(
                ids.into_iter().collect::<tokenizers::models::bpe::Vocab>(),
                merges,
            )
            .byte_fallback(spm)
            .fuse_unk(spm)
            .ignore_merges(self.kind == Kind::LlamaBpe);
        if let (true, Some(unknown)) = (spm, self.unknown) {
            let name = self
                .tokens
                .get(unknown as usize)
                .ok_or_else(|| bad(format!("unknown token {unknown} is out of range")))?;
            builder = builder.unk_token(name.clone());
        }
        Ok(builder.build().map_err(|e| bad(e.to_string()))?.into())
    }

    /// Longest pieces first; what has none is the unknown token.
    fn word_pieces(&self, ids: HashMap<String, u32>) -> Result<ModelWrapper, TokenizerError> {
        let unknown = self.unknown.and_then(|id| self.tokens.get(id as usize));
        let unknown =
            unknown.ok_or_else(|| TokenizerError::Build("WordPiece needs an unknown token".into()))?;
        let model = WordPiece::builder()
            .vocab(ids.into_iter().collect::<tokenizers::models::bpe::Vocab>())
            .unk_token(unknown.clone())
            .continuing_subword_prefix("##".into())
            .max_input_chars_per_word(100)
            .build()
            .map_err(|e| TokenizerError::Build(e.to_string()))?;
        Ok(model.into())
    }

    fn rules(&self, engine: &mut Engine) -> tokenizers::Result<()> {
        let split = |pattern: &str| -> tokenizers::Result<PreTokenizerWrapper> {
            Ok(Split::new(
                SplitPattern::Regex(pattern.into()),
                SplitDelimiterBehavior::Isolated,
                false,
            )?
            .into())
        };
        let bytes = || -> PreTokenizerWrapper { ByteLevel::new(false, false, false).into() };
        let pre = match self.kind {
            Kind::Gpt2 => vec![split(GPT2)?, bytes()],
            Kind::DigitsGpt2 => vec![split(r"\p{N}")?, split(GPT2)?, bytes()],
            Kind::LlamaBpe => vec![split(LLAMA3)?, bytes()],
            Kind::Qwen2 => {
                engine.with_normalizer(Some(NFC))?;
                vec![split(QWEN2)?, bytes()]
            }
            Kind::DefaultBpe => vec![
                split(r"[\p{P}\$\+<=>\^~\|]+")?,
                split(GPT2)?,
                split(r"\p{N}+")?,
                split(r"[0-9][0-9][0-9]")?,
                bytes(),
            ],
            Kind::Bytes => vec![bytes()],
            Kind::WordPieceUncased | Kind::WordPieceCased => {
                // Accents go with the case, as in the published tokenizers.
                let lower = self.kind == Kind::WordPieceUncased;
                engine.with_normalizer(Some(BertNormalizer::new(true, true, None, lower)))?;
                engine.with_pre_tokenizer(Some(BertPreTokenizer));
                engine.with_decoder(Some(WordPieceDecoder::new("##".into(), true)));
                return Ok(());
            }
            Kind::Spm => {
                let mut steps = Vec::new();
                if self.add_space {
                    steps.push(Prepend::new("\u{2581}".into()).into());
                }
                steps.push(Replace::new(" ", "\u{2581}")?.into());
                engine.with_normalizer(Some(Normalizers::new(steps)))?;
                let mut steps: Vec<DecoderWrapper> = vec![
                    Replace::new("\u{2581}", " ")?.into(),
                    ByteFallback::new().into(),
                    Fuse::new().into(),
                ];
                if self.add_space {
                    steps.push(Strip::new(' ', 1, 0).into());
                }
                engine.with_decoder(Some(Decoders::new(steps)));
                return Ok(());
            }
        };
        engine.with_pre_tokenizer(Some(Sequence::new(pre)));
        engine.with_decoder(Some(ByteDecoder::new(false, false, false)));
        Ok(())
    }

    fn bpe_merges(&self, ids: &HashMap<String, u32>) -> Result<Vec<(String, String)>, TokenizerError> {
        let bad = |m: &str, why: &str| TokenizerError::Build(format!("merge {m:?} {why}"));
        self.merges
            .iter()
            .map(|m| {
                // The space that splits is never the first character: a token may start with one only as U+0120.
                let (a, b) = m.split_once(' ').ok_or_else(|| bad(m, "has no two parts"))?;
                match [a, b, &format!("{a}{b}")].iter().find(|t| !ids.contains_key(**t)) {
                    Some(_) => Err(bad(m, "names tokens outside the vocabulary")),
                    None => Ok((a.to_owned(), b.to_owned())),
                }
            })
            .collect()
    }

    /// SentencePiece keeps no merges: every way to make a token of two others is one, ranked by its score,
    /// then by the parts' ids.
    fn spm_merges(&self, ids: &HashMap<String, u32>) -> Result<Vec<(String, String)>, TokenizerError> {
        if self.scores.len() != self.tokens.len() {
            return Err(TokenizerError::Build(format!(
                "{} tokens, {} scores",
                self.tokens.len(),
                self.scores.len()
            )));
        }
        let mut ranked = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if !matches!(self.types[id], TokenType::Normal | TokenType::UserDefined) {
                continue;
            }
            for (at, _) in token.char_indices().skip(1) {
                let (a, b) = token.split_at(at);
                if let (Some(x), Some(y)) = (ids.get(a), ids.get(b)) {
                    ranked.push((
                        std::cmp::Reverse(self.scores[id]),
                        *x,
                        *y,
                        a.to_owned(),
                        b.to_owned(),
                    ));
                }
            }
        }
        ranked.sort_unstable();
        Ok(ranked.into_iter().map(|(_, _, _, a, b)| (a, b)).collect())
    }
}
