//! Traces of encoders: what they bind, how they are written, and where two of them part.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::{collections::BTreeSet, sync::Arc};

use alloy_primitives::B256;
use bitai_kernels::{
    Device, Op, ReferenceDevice, Sampler, Trace,
    cpu::CpuDevice,
    reference::ReferenceOps,
    rows::{leaf_hash, merkle_root},
    testing::{Fault, FaultyDevice},
};
use bitai_model::{
    arch::encoder::EncoderShape,
    engine::Engine,
    pack::Pack,
    synthetic::encoder::{pack, tiny},
};
use bitai_poc::{
    DecodeError, Divergence, Header, TraceRoot, Transcript, TranscriptError, Verdict,
    dispute::{Regenerate, RunnerRegen},
    header::{layer_node, words_node},
    recheck::{Row, compare, first_difference, first_site, locate, token_of},
};
use bitai_types::Job;
use proptest::prelude::*;

const IDS: [u32; 7] = [2, 4, 5, 6, 7, 8, 3];

fn job(pack: &Pack) -> Job {
    Job::embedding(B256::from(pack.root()), IDS.to_vec())
}

fn run(pack: &Pack, device: &dyn Device) -> Transcript {
    let mut transcript = Transcript::new(Header::new(&job(pack), &pack.program()));
    let mut engine = Engine::new(pack, device).unwrap();
    let row = engine.embed(&IDS, &mut transcript).unwrap();
    let words: Vec<u32> = row.iter().map(|v| v.cast_unsigned()).collect();
    assert_eq!(transcript.outputs(), words);
    transcript
}

fn rows(pack: &Pack, device: &dyn Device) -> RunnerRegen {
    let runner = device.load(Arc::clone(&pack.program()), &pack.tensors()).unwrap();
    RunnerRegen::new(runner, IDS.to_vec(), IDS.len() as u32, Sampler::Greedy)
}

/// The root as docs/spec/poc.md writes it, from the rows that a probe saw.
fn root_by_the_book(pack: &Pack, words: &[u32]) -> TraceRoot {
    let (program, mut rows) = (pack.program(), rows(pack, &ReferenceDevice));
    let mut nodes: Vec<[u8; 32]> = (0..program.layers)
        .map(|l| {
            let leaves: Vec<[u8; 32]> = (0u32..)
                .zip(rows.layer(l).unwrap())
                .map(|(pos, r)| leaf_hash(pos, l, &r.kv, r.out.as_ref()))
                .collect();
            layer_node(l, &merkle_root(&leaves))
        })
        .collect();
    nodes.push(words_node(words));
    let mut h = blake3::Hasher::new();
    h.update(b"bitai/header/v0\0");
    h.update(job(pack).hash().as_slice());
    // layers, stride, vocab, flags, P, N, T
    for word in [4u32, 4, 12, 3, 7, 64, 5] {
        h.update(&word.to_le_bytes());
    }
    TraceRoot::new(h.finalize().as_bytes(), 5, &merkle_root(&nodes))
}

#[test]
fn the_root_binds_job_layers_and_words_and_is_the_same_on_every_device() {
    let pack = pack(&tiny(), 1).unwrap();
    let honest = run(&pack, &ReferenceDevice);
    assert_eq!((honest.body_roots().len(), honest.outputs().len()), (4, 64));
    let root = honest.root().unwrap();
    assert_eq!(root, root_by_the_book(&pack, honest.outputs()));
    assert_eq!(run(&pack, &CpuDevice::new(2).unwrap()).root(), Ok(root));

    let header = *honest.header();
    let with = |header: Header, bodies: &[[u8; 32]], words: &[u32]| {
        let mut t = Transcript::new(header);
        t.bodies(0, bodies);
        t.words(words);
        t.root()
    };
    let (bodies, words) = (honest.body_roots(), honest.outputs());
    assert_eq!(with(header, bodies, words), Ok(root));
    for l in 0..bodies.len() {
        let mut other = bodies.to_vec();
        other[l][0] ^= 1;
        assert_ne!(with(header, &other, words), Ok(root), "layer {l}");
    }
    for i in [0, 63] {
        let mut other = words.to_vec();
        other[i] ^= 1 << 31;
        assert_ne!(with(header, bodies, &other), Ok(root), "word {i}");
    }
    assert_ne!(with(header, bodies, &words[..63]), Ok(root));
    let other = Header {
        job: B256::ZERO,
        ..header
    };
    assert_ne!(with(other, bodies, words), Ok(root));
    let decoder = Header {
        by_layer: false,
        ..header
    };
    assert_eq!(
        with(decoder, bodies, words),
        Err(TranscriptError::OtherKind { what: "words" })
    );
}

#[test]
fn rejects_what_no_encoder_reports() {
    let pack = pack(&tiny(), 1).unwrap();
    let honest = run(&pack, &ReferenceDevice);
    let fresh = || Transcript::new(*honest.header());
    let mut t = honest.clone();
    t.sampled(6, 1);
    assert_eq!(
        t.root(),
        Err(TranscriptError::OtherKind {
            what: "a sampled token"
        })
    );
    let mut t = honest.clone();
    t.words(&[1]);
    assert_eq!(t.root(), Err(TranscriptError::WordsAgain));
    let mut t = honest.clone();
    t.bodies(4, &[[0; 32]]);
    assert_eq!(t.root(), Err(TranscriptError::TooManyLayers { layers: 4 }));
    let mut t = fresh();
    t.bodies(0, honest.body_roots());
    assert_eq!(t.root(), Err(TranscriptError::NoOutput));
    let mut t = fresh();
    t.bodies(0, &honest.body_roots()[..3]);
    t.words(honest.outputs());
    assert!(matches!(
        t.root(),
        Err(TranscriptError::Unfinished {
            bodies: 3,
            expected: 4,
            ..
        })
    ));
    let mut t = fresh();
    t.bodies(1, honest.body_roots());
    assert_eq!(t.root(), Err(TranscriptError::BodyOrder { expected: 0, got: 1 }));
}

#[test]
fn rejects_every_damaged_or_cut_encoding() {
    let pack = pack(&tiny(), 1).unwrap();
    let honest = run(&pack, &ReferenceDevice);
    let bytes = honest.encode().unwrap();
    assert_eq!(Transcript::decode(&bytes), Ok(honest));
    for i in 0..bytes.len() {
        assert!(Transcript::decode(&bytes[..i]).is_err(), "cut at {i}");
        let mut bad = bytes.clone();
        bad[i] ^= 1;
        assert!(Transcript::decode(&bad).is_err(), "flipped byte {i}");
    }
    // With a right sum: more layers than the header's, and flags that name the other kind.
    let resum = |at: usize, word: u32| {
        let mut b = bytes.clone();
        b[at..at + 4].copy_from_slice(&word.to_le_bytes());
        let end = b.len() - 32;
        let check = *blake3::hash(&b[..end]).as_bytes();
        b[end..].copy_from_slice(&check);
        Transcript::decode(&b)
    };
    assert_eq!(
        resum(48, 3),
        Err(DecodeError::Content(TranscriptError::TooManyLayers { layers: 3 }))
    );
    assert_eq!(resum(64, 7), Err(DecodeError::Flags(7)));
    // Words are not below the vocabulary.
    assert!(matches!(
        resum(64, 1),
        Err(DecodeError::Content(TranscriptError::TokenOutOfRange { .. }))
    ));
}

proptest! {
    #[test]
    fn encodings_of_encoders_read_back(
        layers in 0u32..6,
        given in 0u32..8,
        words in prop::collection::vec(any::<u32>(), 0..40),
    ) {
        let header = Header {
            job: B256::repeat_byte(5), layers, stride: 1, vocab: 9, prompt: 3, out_rows: true, by_layer: true,
        };
        let mut t = Transcript::new(header);
        for l in 0..given { t.bodies(l, &[[l as u8; 32]]); }
        t.words(&words);
        match t.encode() {
            Ok(bytes) => prop_assert_eq!(Transcript::decode(&bytes).unwrap(), t),
            Err(e) => prop_assert_eq!((given > layers, e), (true, TranscriptError::TooManyLayers { layers })),
        }
    }
}

/// A fault at every site: where the trace shows it, layer, token and site are named.
#[test]
fn one_wrong_integer_anywhere_is_named_by_layer_token_and_site() {
    let pack = pack(&tiny(), 1).unwrap();
    let (program, mine) = (pack.program(), run(&pack, &ReferenceDevice));
    let mut my_rows = rows(&pack, &ReferenceDevice);
    let (mut named, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (site, s) in (0u32..).zip(&program.sites) {
        let names_itself = matches!(s.op, Op::KvAppend { .. } | Op::Out);
        if names_itself || !matches!(s.layer, None | Some(1 | 3)) {
            continue;
        }
        let after = s.layer.is_none() && site > program.sites.len() as u32 / 2;
        let pos = if after { 6 } else { 4 };
        for element in 0..24 {
            let fault = Fault {
                site,
                position: pos,
                element,
            };
            let wrong = FaultyDevice::new(ReferenceOps, fault);
            let theirs = run(&pack, &wrong);
            let claimed = theirs.root().unwrap();
            if claimed == mine.root().unwrap() {
                continue;
            }
            assert_eq!(
                compare(claimed, &mine, None),
                Ok(Verdict::RootMismatch {
                    claimed,
                    mine: mine.root().unwrap(),
                })
            );
            let Ok(Verdict::Differs(first)) = compare(claimed, &mine, Some(&theirs)) else {
                panic!("{fault:?}")
            };
            let mut their_rows = rows(&pack, &wrong);
            let place = locate((&mine, &mut my_rows), (&theirs, &mut their_rows), &program)
                .unwrap()
                .unwrap();
            let token = match (first, place) {
                (
                    Divergence::Layer { layer, row: None },
                    Divergence::Layer {
                        layer: same,
                        row: Some((t, row)),
                    },
                ) => {
                    assert!(
                        layer == same && s.layer.is_none_or(|own| layer >= own),
                        "{fault:?}: {place}"
                    );
                    seen.insert(matches!(row, Row::Out));
                    t
                }
                (
                    Divergence::Word {
                        index,
                        theirs: w,
                        mine: m,
                    },
                    _,
                ) => {
                    assert_eq!(first, place);
                    assert_eq!(mine.outputs()[index as usize].cast_signed(), m);
                    assert_eq!(theirs.outputs()[index as usize].cast_signed(), w);
                    6
                }
                other => panic!("{fault:?}: {other:?}"),
            };
            assert_eq!(token, pos, "{fault:?}: {place}");
            let (a, b) = (my_rows.token(token).unwrap(), their_rows.token(token).unwrap());
            assert_eq!(first_site(&a, &b), Some(site), "{fault:?}: {place}");
            named.insert(s.op.name());
            break;
        }
    }
    assert_eq!(seen.len(), 2, "keys and values as well as residuals");
    for op in [
        "embed",
        "pos_embed",
        "layer_norm",
        "quant",
        "linear",
        "attention",
        "act",
        "add",
        "emit",
    ] {
        assert!(named.contains(op), "{op} is not among {named:?}");
    }
}

/// Behind the last committed row stands half a layer of every token, and only the words depend on it.
#[test]
fn a_wrong_integer_behind_the_last_checkpoint_is_named_by_its_token_and_site() {
    let deep = EncoderShape { layers: 18, ..tiny() };
    let pack = pack(&deep, 1).unwrap();
    let (program, mine) = (pack.program(), run(&pack, &ReferenceDevice));
    assert_eq!(program.checkpoints(), [15], "the last layer is none");
    let mut my_rows = rows(&pack, &ReferenceDevice);
    let mut named = BTreeSet::new();
    for (site, s) in (0u32..).zip(&program.sites) {
        let names_itself = matches!(s.op, Op::KvAppend { .. } | Op::Out);
        let behind = s.layer.is_none() && site > program.sites.len() as u32 / 2;
        if names_itself || !(behind || s.layer == Some(17)) {
            continue;
        }
        let pos = if behind { 6 } else { 2 };
        for element in 0..24 {
            let fault = Fault {
                site,
                position: pos,
                element,
            };
            let wrong = FaultyDevice::new(ReferenceOps, fault);
            let theirs = run(&pack, &wrong);
            let Some(parted) = first_difference(&mine, &theirs) else {
                continue;
            };
            let mut their_rows = rows(&pack, &wrong);
            let token = token_of(parted, &mut my_rows, &mut their_rows).unwrap();
            assert_eq!(token, Some(pos), "{fault:?}: {parted}");
            let (a, b) = (my_rows.token(pos).unwrap(), their_rows.token(pos).unwrap());
            assert_eq!(first_site(&a, &b), Some(site), "{fault:?}");
            if matches!(parted, Divergence::Word { .. }) && !behind {
                named.insert(s.op.name());
            }
            break;
        }
    }
    for op in ["quant", "attention", "linear", "add", "layer_norm", "act"] {
        assert!(named.contains(op), "{op} is not among {named:?}");
    }
}
