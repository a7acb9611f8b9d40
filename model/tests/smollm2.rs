//! The real model: SmolLM2-135M-Instruct, fetched by `scripts/fetch-model`.
#![allow(
    clippy::unwrap_used,
    reason = "in a test it says that the rest depends on this"
)]

mod common;

use std::{path::PathBuf, sync::OnceLock};

use bitai_kernels::{ReferenceDevice, Sampler, cpu::CpuDevice};
use bitai_model::{
    engine::Engine,
    import::{ImportOptions, import_gguf},
    pack::Pack,
    tokenizer::{Message, Tokenizer},
};
use common::Heard;

/// The GGUF file, or `None` where it is absent and nobody insists (`BITAI_REQUIRE_MODEL=1`).
fn gguf() -> Option<PathBuf> {
    let default = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/SmolLM2-135M-Instruct.Q4_1.gguf"
    );
    let path = PathBuf::from(std::env::var_os("BITAI_TEST_GGUF").unwrap_or_else(|| default.into()));
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("BITAI_REQUIRE_MODEL").is_none_or(|v| v != "1"),
        "{} is absent: run scripts/fetch-model",
        path.display()
    );
    eprintln!(
        "skipped: {} is absent; scripts/fetch-model fetches it",
        path.display()
    );
    None
}

fn import(gguf: &std::path::Path, threads: usize) -> (tempfile::TempDir, Pack) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("smollm2.pack");
    let options = ImportOptions {
        threads,
        ..ImportOptions::default()
    };
    let made = import_gguf(gguf, &path, &options, &mut |_, _| {}).unwrap();
    let pack = Pack::open(&path).unwrap();
    assert_eq!(pack.root(), made.model_root);
    assert_eq!(pack.byte_len(), made.pack_bytes);
    (dir, pack)
}

#[test]
fn importing_twice_with_1_and_8_threads_gives_the_committed_root() {
    let Some(gguf) = gguf() else { return };
    let committed = include_str!("smollm2.root").trim();
    for threads in [1, 8] {
        let (_dir, pack) = import(&gguf, threads);
        assert_eq!(hex::encode(pack.root()), committed, "{threads} threads");
        pack.verify(&mut |_, _| {}).unwrap();
    }
}

/// One import that the other tests share.
fn shared() -> Option<&'static Pack> {
    static PACK: OnceLock<Option<(tempfile::TempDir, Pack)>> = OnceLock::new();
    PACK.get_or_init(|| gguf().map(|gguf| import(&gguf, 2)))
        .as_ref()
        .map(|(_, pack)| pack)
}

#[test]
fn text_and_chat_become_the_ids_of_the_models_own_tokenizer() {
    let Some(pack) = shared() else { return };
    let tokenizer = Tokenizer::of(pack).unwrap();
    assert_eq!(tokenizer.special().stop, [0, 2], "end of text and of turn");
    let ids = tokenizer
        .encode("In 2024, the sea's colour wasn't  blue:\n\tüñ 🌊")
        .unwrap();
    assert_eq!(
        tokenizer.decode(&ids).unwrap(),
        "In 2024, the sea's colour wasn't  blue:\n\tüñ 🌊"
    );
    let mut stream = tokenizer.stream();
    let mut text = String::new();
    for id in &ids {
        text += &stream.push(*id).unwrap();
    }
    text += &stream.finish().unwrap();
    assert_eq!(text, tokenizer.decode(&ids).unwrap());

    let chat = tokenizer.chat(&[Message::user("Hi")]).unwrap();
    let all: String = chat.iter().map(|id| name(pack, *id)).collect();
    assert_eq!(
        all,
        "<|im_start|>systemĊYouĠareĠaĠhelpfulĠAIĠassistantĠnamedĠSmolLM,ĠtrainedĠbyĠHuggingĠFace<|im_end|>Ċ\
         <|im_start|>userĊHi<|im_end|>Ċ<|im_start|>assistantĊ"
    );
}

fn name(pack: &Pack, id: u32) -> String {
    bitai_model::tokenizer::Vocabulary::decode(pack.tokenizer_bytes())
        .unwrap()
        .tokens[id as usize]
        .clone()
}

#[test]
fn it_answers_sensibly_and_the_recheck_agrees_on_other_threads() {
    let Some(pack) = shared() else { return };
    let tokenizer = Tokenizer::of(pack).unwrap();
    let prompt = tokenizer.prompt("What is the capital of France?").unwrap();
    let stop = &tokenizer.special().stop;
    let mut engine = Engine::new(pack, &CpuDevice::new(2).unwrap()).unwrap();
    let mut heard = Heard::default();
    let output = engine
        .generate(&prompt, 16, stop, &Sampler::Greedy, &mut heard, &mut |_| {})
        .unwrap();
    let text = tokenizer.decode(&output).unwrap();
    assert!(text.contains("Paris"), "{text:?}");
    for threads in [1, 8] {
        let mut engine = Engine::new(pack, &CpuDevice::new(threads).unwrap()).unwrap();
        let mut again = Heard::default();
        let ids = engine
            .recheck(&prompt, &output, &Sampler::Greedy, &mut again)
            .unwrap();
        assert_eq!((ids, &again), (output.clone(), &heard), "{threads} threads");
    }
    // The reference is slow: two positions of a bare prompt.
    let mut few = Heard::default();
    engine
        .generate(&prompt[..2], 1, &[], &Sampler::Greedy, &mut few, &mut |_| {})
        .unwrap();
    let mut reference = Heard::default();
    let mut engine = Engine::new(pack, &ReferenceDevice).unwrap();
    engine
        .generate(
            &prompt[..2],
            1,
            &[],
            &Sampler::Greedy,
            &mut reference,
            &mut |_| {},
        )
        .unwrap();
    assert_eq!(few, reference);
}
