//! Packs: written and read back, and everything that is wrong with one is named.
#![allow(
    clippy::unwrap_used,
    reason = "in a test it says that the rest depends on this"
)]

use std::{path::Path, sync::Arc};

use bitai_kernels::rows::merkle_root;
use bitai_model::{
    pack::{HEADER_LEN, Pack, PackError, Profile, site_leaf, tensor_leaf},
    synthetic::{self, Shape},
    tokenizer::Tokenizer,
};
use proptest::prelude::*;

fn small() -> Shape {
    Shape {
        layers: 2,
        context: 32,
        ..Shape::tiny()
    }
}

/// The bytes of a small pack.
fn bytes() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.pack");
    synthetic::write(&path, &small(), 5).unwrap();
    std::fs::read(path).unwrap()
}

fn open(bytes: Vec<u8>) -> Result<Pack, PackError> {
    Pack::from_bytes(Arc::new(bytes), Path::new("m.pack"))
}

#[test]
fn a_file_and_memory_hold_the_same_pack() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.pack");
    let root = synthetic::write(&path, &small(), 5).unwrap();
    let (file, memory) = (Pack::open(&path).unwrap(), synthetic::pack(&small(), 5).unwrap());
    assert_eq!((file.root(), memory.root()), (root, root));
    let mut heard = Vec::new();
    file.verify(&mut |done, all| heard.push((done, all))).unwrap();
    assert_eq!(heard.last(), Some(&(file.byte_len(), file.byte_len())));
    for (a, b) in file.tensors().iter().zip(memory.tensors()) {
        assert_eq!(
            (a.dtype, a.rows, a.cols, a.data()),
            (b.dtype, b.rows, b.cols, b.data())
        );
        assert_eq!(
            a.data().as_ptr() as usize % 64,
            0,
            "tensors are aligned in the file"
        );
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    let text = "sea, größe";
    let tokenizer = Tokenizer::of(&file).unwrap();
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids.len(), 1 + text.len());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
}

#[test]
fn shape_seed_and_profile_decide_the_root() {
    let root = |shape: &Shape, seed| synthetic::pack(shape, seed).unwrap().root();
    let base = small();
    let all = [
        root(&base, 5),
        root(&base, 6),
        root(
            &Shape {
                tied: false,
                ..base.clone()
            },
            5,
        ),
        root(
            &Shape {
                context: 33,
                ..base.clone()
            },
            5,
        ),
        root(
            &Shape {
                profile: Profile::B,
                ..base.clone()
            },
            5,
        ),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|b| a != b));
    }
    assert_eq!(
        hex::encode(root(&Shape::tiny(), 1)),
        include_str!("synthetic.root").trim(),
        "the tiny pack of seed 1 is the same everywhere"
    );
}

#[test]
fn one_site_and_one_tensor_open_alone() {
    let pack = synthetic::pack(&small(), 5).unwrap();
    let leaves = pack.leaves();
    assert_eq!(merkle_root(&leaves.branches()), pack.root());
    let sites = &pack.program().sites;
    assert_eq!(leaves.program.len(), sites.len() + 1);
    assert_eq!(leaves.program[8], site_leaf(7, &sites[7]).unwrap());
    assert_eq!(leaves.tensors[3], tensor_leaf(3, &pack.manifest().tensors[3]));
    let tensor = &pack.tensors()[3];
    assert_eq!(
        pack.manifest().tensors[3].hash,
        *blake3::hash(tensor.data()).as_bytes()
    );
}

#[test]
fn rejects_a_truncated_pack() {
    let all = bytes();
    for len in [0, 5, 8, 127, 128, 5000, all.len() - 1] {
        let got = open(all[..len].to_vec()).unwrap_err();
        assert!(
            matches!(got, PackError::Truncated { have, .. } if have == len as u64),
            "{len}: {got}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.pack");
    std::fs::write(&path, []).unwrap();
    assert!(matches!(Pack::open(&path), Err(PackError::Truncated { .. })));
}

#[test]
fn rejects_wrong_magic_version_and_trailing_bytes() {
    let change = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut all = bytes();
        f(&mut all);
        open(all).unwrap_err()
    };
    assert!(matches!(change(&|b| b[0] ^= 1), PackError::WrongMagic { .. }));
    assert!(matches!(
        change(&|b| b[8] = 2),
        PackError::WrongVersion { got: 2, want: 1, .. }
    ));
    assert!(matches!(change(&|b| b[100] = 1), PackError::Malformed { .. }));
    assert!(matches!(change(&|b| b.push(0)), PackError::Malformed { .. }));
    assert!(matches!(
        Pack::open(Path::new("/nonexistent/m.pack")),
        Err(PackError::Io { .. })
    ));
}

#[test]
fn rejects_a_pack_for_another_tensor_spec() {
    let mut all = bytes();
    let at = find(&all, b"\"spec_version\":0") + 15;
    all[at] = b'1';
    let got = open(all).unwrap_err();
    assert!(
        matches!(got, PackError::WrongSpec { got: 1, want: 0, .. }),
        "{got}"
    );
    assert!(
        got.to_string()
            .contains("made for tensor spec 1, this program runs 0")
    );
}

#[test]
fn rejects_text_that_is_no_utf8() {
    use bitai_model::tokenizer::TokenizerError;
    let tokenizer = Tokenizer::of(&open(bytes()).unwrap()).unwrap();
    for (text, at) in [
        (&b"sea \xff"[..], 4),
        (&b"gr\xc3"[..], 2),
        (&b"\xed\xa0\x80"[..], 0),
    ] {
        let got = tokenizer.encode_bytes(text).unwrap_err();
        assert!(
            matches!(got, TokenizerError::NotUtf8 { at: a, byte } if a == at && byte == text[at]),
            "{got}"
        );
    }
    let text = "größe";
    assert_eq!(
        tokenizer.encode_bytes(text.as_bytes()).unwrap(),
        tokenizer.encode(text).unwrap()
    );
}

#[test]
fn rejects_a_manifest_that_is_not_the_roots() {
    let mut all = bytes();
    // The header's root.
    all[40] ^= 1;
    assert!(matches!(open(all).unwrap_err(), PackError::Root { .. }));
    // A digit of a tensor's hash: still canonical, another root.
    let mut all = bytes();
    let at = find(&all, b"\"hash\":\"") + 8;
    all[at] = if all[at] == b'0' { b'1' } else { b'0' };
    assert!(matches!(open(all).unwrap_err(), PackError::Root { .. }));
    // White space: the same manifest in other words.
    let mut all = bytes();
    let at = find(&all, b"{\"info\"") + 1;
    all.insert(at, b' ');
    let len = u64::from_le_bytes(all[24..32].try_into().unwrap()) + 1;
    all[24..32].copy_from_slice(&len.to_le_bytes());
    let got = open(all).unwrap_err();
    assert!(
        matches!(&got, PackError::Malformed { why, .. } if why.contains("canonical")),
        "{got}"
    );
}

#[test]
fn verify_names_the_tensor_whose_byte_was_changed() {
    let pack = open(bytes()).unwrap();
    let names: Vec<String> = pack.manifest().tensors.iter().map(|t| t.name.clone()).collect();
    let mut at = HEADER_LEN as usize;
    for (name, tensor) in names.iter().zip(pack.tensors()) {
        let mut all = bytes();
        all[at + tensor.data().len() / 2] ^= 0x10;
        let got = open(all).unwrap().verify(&mut |_, _| {}).unwrap_err();
        assert!(
            matches!(&got, PackError::TensorHash { name: n, .. } if n == name),
            "{name}: {got}"
        );
        at = (at + tensor.data().len()).next_multiple_of(64);
    }
    let mut all = bytes();
    all[at + 3] ^= 1;
    let got = open(all).unwrap().verify(&mut |_, _| {}).unwrap_err();
    assert!(matches!(got, PackError::TokenizerHash { .. }), "{got}");
    assert!(matches!(pack.expect_root(&[0; 32]), Err(PackError::Root { .. })));
    assert!(pack.expect_root(&pack.root()).is_ok());
}

fn find(all: &[u8], what: &[u8]) -> usize {
    all.windows(what.len()).position(|w| w == what).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_damage_makes_the_reader_panic_or_believe(flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4), tail in any::<bool>(), cut in any::<Option<prop::sample::Index>>()) {
        let mut all = bytes();
        let before = all.clone();
        // Half of the damage goes where structure is.
        let from = if tail { find(&all, b"{\"info\"") } else { 0 };
        for (at, bits) in flips {
            let at = from + at.index(all.len() - from);
            all[at] ^= bits;
        }
        if let Some(cut) = cut {
            all.truncate(cut.index(all.len()));
        }
        prop_assume!(all != before);
        let believed = open(all).and_then(|pack| pack.verify(&mut |_, _| {}));
        prop_assert!(believed.is_err());
    }

    #[test]
    fn noise_is_no_pack(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(noise.clone()).is_err());
        let mut headed = bytes()[..128].to_vec();
        headed.extend(noise);
        prop_assert!(open(headed).is_err());
    }
}
