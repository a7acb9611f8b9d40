//! Test text: windows of token ids, spread evenly over a text that no one here wrote.

use anyhow::{Context, ensure};
use bitai_model::tokenizer::Tokenizer;

/// A line without its verse reference (`Ge1:1 ...`).
pub fn verse(line: &str) -> &str {
    match line.split_once(' ') {
        Some((word, rest)) if word.contains(':') && word.ends_with(|c: char| c.is_ascii_digit()) => rest,
        _ => line,
    }
}

/// Cuts verse references and joins the lines.
pub fn clean(text: &str) -> String {
    text.lines().map(verse).collect::<Vec<_>>().join(" ")
}

/// `count` windows of `len` ids, each from the first sentence after its place in the text.
pub fn windows(text: &str, tokenizer: &Tokenizer, count: usize, len: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let step = text.len() / count;
    (0..count)
        .map(|i| {
            let at = text.ceil_char_boundary(i * step);
            let end = text.ceil_char_boundary((at + len * 8).min(text.len()));
            let (_, part) = text[at..end]
                .split_once(". ")
                .context("the text has no sentences")?;
            let mut ids = tokenizer.encode(part)?;
            ensure!(
                ids.len() >= len,
                "the text is too short for {count} windows of {len} tokens"
            );
            ids.truncate(len);
            Ok(ids)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verse_references_go_and_text_stays() {
        assert_eq!(
            clean("Ge1:1 In the beginning\n1Co2:3 And I\nplain: text"),
            "In the beginning And I plain: text"
        );
    }
}
