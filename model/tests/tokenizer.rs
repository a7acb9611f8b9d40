//! How each family's files cut text, against ids worked out by hand on small vocabularies.
#![allow(
    clippy::unwrap_used,
    reason = "in a test it says that the rest depends on this"
)]

use bitai_model::{
    pack::Special,
    tokenizer::{Kind, TokenType, Tokenizer, Vocabulary},
};

/// GPT-2's printable name of a byte.
fn name(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|b| !printable(*b)).count();
    char::from_u32(0x100 + rank as u32).unwrap()
}

/// Byte-level BPE: ids 0 to 255 are the bytes, then a token a merge, in order.
fn byte_level(kind: Kind, merges: &[&str]) -> Tokenizer {
    let mut tokens: Vec<String> = (0..=255u8).map(|b| name(b).to_string()).collect();
    tokens.extend(merges.iter().map(|m| m.replace(' ', "")));
    let vocabulary = Vocabulary {
        kind,
        types: vec![TokenType::Normal; tokens.len()],
        tokens,
        merges: merges.iter().map(|m| (*m).to_owned()).collect(),
        scores: vec![],
        add_space: false,
        unknown: None,
    };
    Tokenizer::new(vocabulary, Special::default(), None).unwrap()
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// Merges that join what only some families let meet.
const MERGES: [&str; 6] = ["1 2", "' L", "'L L", ". Ċ", "Ġ a", "Ã ©"];

#[test]
fn qwen_cuts_digits_one_by_one_and_gpt2_does_not() {
    let (qwen, gpt2) = (byte_level(Kind::Qwen2, &MERGES), byte_level(Kind::Gpt2, &MERGES));
    assert_eq!(gpt2.encode("12").unwrap(), [256]);
    assert_eq!(qwen.encode("12").unwrap(), ids("12"));
    // Llama 3 takes up to three at once.
    assert_eq!(byte_level(Kind::LlamaBpe, &MERGES).encode("12").unwrap(), [256]);
}

#[test]
fn qwen_keeps_contractions_of_any_case_and_line_ends_behind_marks() {
    let (qwen, gpt2) = (byte_level(Kind::Qwen2, &MERGES), byte_level(Kind::Gpt2, &MERGES));
    assert_eq!(qwen.encode("'LL").unwrap(), [258]);
    assert_eq!(gpt2.encode("'LL").unwrap(), ids("'LL"));
    assert_eq!(qwen.encode(".\n").unwrap(), [259]);
    assert_eq!(gpt2.encode(".\n").unwrap(), ids(".\n"));
    for t in [&qwen, &gpt2] {
        assert_eq!(t.encode("x a").unwrap(), [u32::from(b'x'), 260]);
    }
}

#[test]
fn qwen_composes_characters_first() {
    let decomposed = "e\u{301}";
    let (qwen, gpt2) = (byte_level(Kind::Qwen2, &MERGES), byte_level(Kind::Gpt2, &MERGES));
    assert_eq!(qwen.encode(decomposed).unwrap(), [261]);
    assert_eq!(qwen.decode(&[261]).unwrap(), "\u{e9}");
    assert_eq!(gpt2.encode(decomposed).unwrap(), ids(decomposed));
}

/// Pieces after `<unk>`, `<s>`, `</s>`, `<start_of_turn>` and 256 bytes; the earlier, the likelier.
const PIECES: [&str; 9] = [
    "\u{2581}",
    "s",
    "e",
    "a",
    "se",
    "sea",
    "\u{2581}sea",
    "ea",
    "\u{2581}\u{2581}",
];
const FIRST: u32 = 260;

fn piece(text: &str) -> u32 {
    FIRST + PIECES.iter().position(|p| *p == text).unwrap() as u32
}

fn sentence_piece(add_space: bool) -> Tokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<start_of_turn>"]
        .map(str::to_owned)
        .into();
    let mut types = vec![
        TokenType::Unknown,
        TokenType::Control,
        TokenType::Control,
        TokenType::Control,
    ];
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    types.extend([TokenType::Byte; 256]);
    tokens.extend(PIECES.map(str::to_owned));
    types.extend([TokenType::Normal; PIECES.len()]);
    let vocabulary = Vocabulary {
        kind: Kind::Spm,
        scores: (0..tokens.len() as i32).map(|i| -i).collect(),
        tokens,
        types,
        merges: vec![],
        add_space,
        unknown: Some(0),
    };
    let special = Special {
        bos: Some(1),
        eos: Some(2),
        stop: vec![2],
        add_bos: true,
    };
    Tokenizer::new(vocabulary, special, None).unwrap()
}

#[test]
fn mistral_puts_a_space_in_front_and_takes_it_away_again() {
    let t = sentence_piece(true);
    let encoded = t.encode("sea sea").unwrap();
    assert_eq!(encoded, [1, piece("\u{2581}sea"), piece("\u{2581}sea")]);
    assert_eq!(t.decode(&encoded).unwrap(), "sea sea");
}

#[test]
fn gemma_takes_text_as_it_is() {
    let t = sentence_piece(false);
    let encoded = t.encode("sea sea").unwrap();
    assert_eq!(encoded, [1, piece("sea"), piece("\u{2581}sea")]);
    // Spaces in front stay, and runs of them are pieces.
    let spaced = t.encode("  sea").unwrap();
    assert_eq!(t.decode(&spaced).unwrap(), "  sea");
    assert_eq!(
        t.encode("  s").unwrap(),
        [1, piece("\u{2581}\u{2581}"), piece("s")]
    );
    // What is no piece falls back to its bytes.
    assert_eq!(t.encode("\u{e9}").unwrap(), [1, 4 + 0xc3, 4 + 0xa9]);
    assert_eq!(t.decode(&[4 + 0xc3, 4 + 0xa9]).unwrap(), "\u{e9}");
    // A control token's name is that token, and what follows it has no space of its own.
    assert_eq!(t.encode("<start_of_turn>sea").unwrap(), [1, 3, piece("sea")]);
}
