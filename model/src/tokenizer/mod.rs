//! Text to ids and back, and chat messages to a prompt. All of it runs on the client's side, outside the
//! proof (PROTOCOL rule 1): only ids go on chain.

mod chat;
mod error;
mod stream;
mod vocabulary;

pub use chat::{ChatTemplate, Message};
pub use error::TokenizerError;
pub use stream::TextStream;
pub use vocabulary::{Kind, TokenType, Vocabulary};

use crate::pack::{Pack, Special};

/// A pack's tokenizer.
pub struct Tokenizer {
    engine: tokenizers::Tokenizer,
    tokens: Vec<String>,
    special: Special,
    template: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Builds the tokenizer of a pack.
    pub fn of(pack: &Pack) -> Result<Self, TokenizerError> {
        let info = &pack.manifest().info;
        Self::new(
            Vocabulary::decode(pack.tokenizer_bytes())?,
            info.special.clone(),
            info.chat_template.as_deref(),
        )
    }

    /// Builds a tokenizer from its parts. A template that cannot be parsed is an error only when it is used.
    pub fn new(
        vocabulary: Vocabulary,
        special: Special,
        template: Option<&str>,
    ) -> Result<Self, TokenizerError> {
        let engine = vocabulary.build()?;
        let name = |id: Option<&u32>| -> String {
            id.and_then(|id| vocabulary.tokens.get(*id as usize))
                .cloned()
                .unwrap_or_default()
        };
        let template =
            template.map(|t| ChatTemplate::new(t, name(special.bos.as_ref()), name(special.eos.as_ref())));
        Ok(Self {
            engine,
            tokens: vocabulary.tokens,
            special,
            template,
        })
    }

    /// Ids that mean something.
    pub fn special(&self) -> &Special {
        &self.special
    }

    /// Number of ids.
    pub fn vocab(&self) -> usize {
        self.tokens.len()
    }

    /// Plain text to ids, with `bos` in front where the model wants it. Names of control tokens in the text
    /// become those tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode_bare(text)?;
        if let (true, Some(bos)) = (self.special.add_bos, self.special.bos) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The same for bytes from outside; what is no UTF-8 is refused, never replaced: an answer to another
    /// text would be billed.
    pub fn encode_bytes(&self, text: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        let text = std::str::from_utf8(text).map_err(|e| TokenizerError::NotUtf8 {
            at: e.valid_up_to(),
            byte: text[e.valid_up_to()],
        })?;
        self.encode(text)
    }

    fn encode_bare(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .engine
            .encode_fast(text, false)
            .map_err(|e| TokenizerError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Messages through the model's chat template to ids, ready for the answer. `bos` comes once, whether
    /// the template writes it or not.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerError> {
        let template = self.template.as_ref().ok_or(TokenizerError::NoTemplate)?;
        let ids = self.encode_bare(&template.render(messages, true)?)?;
        match self.special.bos {
            Some(bos) if self.special.add_bos && ids.first() != Some(&bos) => Ok([&[bos][..], &ids].concat()),
            _ => Ok(ids),
        }
    }

    /// A text for an encoder: its ids between the tokens that begin and end a sequence.
    pub fn sentence(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text)?;
        ids.extend(self.special.eos);
        Ok(ids)
    }

    /// Whether the pack has a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// One user prompt: through the template where there is one, else as plain text.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if self.has_template() {
            self.chat(&[Message::user(text)])
        } else {
            self.encode(text)
        }
    }

    /// Ids to text; control tokens are left out, bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.tokens.len()) {
            return Err(TokenizerError::UnknownId {
                id: *id,
                vocab: self.tokens.len(),
            });
        }
        self.engine
            .decode(ids, true)
            .map_err(|e| TokenizerError::Encode(e.to_string()))
    }

    /// A decoder for ids that arrive one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }
}
