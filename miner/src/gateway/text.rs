//! The text of ids that arrive one by one, whole characters only, held back where a stop string may have begun.

use bitai_model::tokenizer::{TextStream, Tokenizer, TokenizerError};

/// Gives out text as it becomes certain, up to the first stop string.
pub struct Writer<'t> {
    stream: TextStream<'t>,
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

impl<'t> Writer<'t> {
    /// A writer that ends at any of `stops` (none of them empty).
    pub fn new(tokenizer: &'t Tokenizer, stops: Vec<String>) -> Self {
        Self {
            stream: tokenizer.stream(),
            stops,
            held: String::new(),
        }
    }

    /// Takes the next id; gives the text that became certain, and whether a stop string was met: the text ends before it
    /// and nothing may be pushed any more.
    pub fn push(&mut self, id: u32) -> Result<(String, bool), TokenizerError> {
        let piece = self.stream.push(id)?;
        Ok(self.take(&piece))
    }

    /// The rest, when no more ids come, and whether a stop string was met in it.
    pub fn finish(self) -> Result<(String, bool), TokenizerError> {
        let Self {
            stream,
            stops,
            mut held,
        } = self;
        held.push_str(&stream.finish()?);
        let met = first_stop(&held, &stops);
        held.truncate(met.unwrap_or(held.len()));
        Ok((held, met.is_some()))
    }

    fn take(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = first_stop(&self.held, &self.stops) {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let rest = self.held.split_off(certain(&self.held, &self.stops));
        (std::mem::replace(&mut self.held, rest), false)
    }
}

/// Where the first stop string begins.
fn first_stop(text: &str, stops: &[String]) -> Option<usize> {
    stops.iter().filter_map(|s| text.find(s.as_str())).min()
}

/// Bytes in front of the first place where a stop string may have begun.
fn certain(text: &str, stops: &[String]) -> usize {
    let longest = stops.iter().map(String::len).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest.saturating_sub(1));
    text.char_indices()
        .map(|(at, _)| at)
        .find(|at| *at >= from && stops.iter().any(|s| s.starts_with(&text[*at..])))
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use bitai_model::{
        synthetic::{Shape, pack},
        tokenizer::Tokenizer,
    };
    use proptest::prelude::*;

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::of(&pack(&Shape::tiny(), 1).unwrap()).unwrap()
    }

    /// All pieces of a text whose ids are its bytes, and whether a stop was met.
    fn written(tokenizer: &Tokenizer, ids: &[u32], stops: &[&str]) -> (Vec<String>, bool) {
        let stops = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut writer = Writer::new(tokenizer, stops);
        let mut pieces = Vec::new();
        for id in ids {
            let (piece, stopped) = writer.push(*id).unwrap();
            pieces.push(piece);
            if stopped {
                return (pieces, true);
            }
        }
        let (piece, stopped) = writer.finish().unwrap();
        pieces.push(piece);
        (pieces, stopped)
    }

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let mut ids = tokenizer.encode(text).unwrap();
        if tokenizer.special().add_bos {
            ids.remove(0);
        }
        ids
    }

    #[test]
    fn a_character_in_several_tokens_comes_whole() {
        let t = tokenizer();
        let ids = ids(&t, "aé🦀z");
        assert!(ids.len() > 4, "bytes are tokens: {ids:?}");
        let (pieces, stopped) = written(&t, &ids, &[]);
        assert!(!stopped);
        assert_eq!(pieces.concat(), "aé🦀z");
        assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')), "{pieces:?}");
        let (cut, _) = written(&t, &ids[..ids.len() - 2], &[]);
        assert_eq!(
            cut.concat(),
            "aé\u{fffd}",
            "what never became a character is said at the end"
        );
    }

    #[test]
    fn text_ends_before_the_first_stop_and_nothing_of_it_is_shown() {
        let t = tokenizer();
        let ids = ids(&t, "one STOP two");
        let (pieces, stopped) = written(&t, &ids, &["two", "STOP"]);
        assert!(stopped);
        assert_eq!(pieces.concat(), "one ");
        // The beginning of a stop that does not come is shown after all.
        let (pieces, stopped) = written(&t, &ids, &["STOPPED", "twos"]);
        assert!(!stopped);
        assert_eq!(pieces.concat(), "one STOP two");
    }

    proptest! {
        #[test]
        fn pieces_are_the_text_up_to_the_first_stop(text in "[abé]{0,24}", stops in prop::collection::vec("[abé]{1,3}", 0..3)) {
            let t = tokenizer();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (pieces, stopped) = written(&t, &ids(&t, &text), &stops);
            // Stops are met as the text grows: the one whose end comes first wins.
            let end = stops.iter().filter_map(|s| text.find(s).map(|at| at + s.len())).min();
            prop_assert_eq!(stopped, end.is_some());
            let shown = pieces.concat();
            prop_assert!(text.starts_with(&shown));
            prop_assert!(stops.iter().all(|s| !shown.contains(s)));
            if end.is_none() {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
