//! Text from ids that arrive one by one: a piece is given out once its bytes are whole characters.

use super::{Tokenizer, TokenizerError};

/// Decodes a growing sequence of ids.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    ids: Vec<u32>,
    /// Ids before this are context only: their text was given out.
    from: usize,
    /// Bytes of the context's text.
    given: usize,
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            from: 0,
            given: 0,
        }
    }

    /// Takes the next id and gives the text that became certain; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let text = match self.tokenizer.decode(&self.ids[self.from..]) {
            Ok(text) => text,
            Err(e) => {
                self.ids.pop();
                return Err(e);
            }
        };
        // An incomplete character decodes to U+FFFD at the end; wait for the rest of it.
        if text.ends_with('\u{fffd}') || !text.is_char_boundary(self.given.min(text.len())) {
            return Ok(String::new());
        }
        let piece = text.get(self.given..).unwrap_or_default().to_owned();
        // One id of context keeps decoders that look at their neighbour (a leading space) honest.
        self.from = self.ids.len() - 1;
        self.given = self.tokenizer.decode(&self.ids[self.from..])?.len();
        Ok(piece)
    }

    /// What is left when no more ids come: incomplete characters become U+FFFD.
    pub fn finish(self) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode(&self.ids[self.from..])?;
        Ok(text.get(self.given..).unwrap_or_default().to_owned())
    }
}
