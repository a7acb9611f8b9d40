//! Vectors of BLAKE3 as the precompiles give it: hashes, keyed hashes, chaining values of subtrees, nodes above them.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde_json::{Value, json};

use crate::File;

/// The key of all keyed hashes here.
const KEY: [u8; 32] = *b"bitai vectors: a key of 32 bytes";

/// Byte i is i mod 251, as in BLAKE3's own vectors.
fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

pub(crate) fn files() -> Vec<File> {
    // Around a word, a block, a chunk, and subtrees that are whole and that are not.
    let lengths = [
        0, 1, 4, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 3073, 4096,
        4097, 5120, 6144, 7169, 8192,
    ];
    let hashes: Vec<Value> = lengths
        .iter()
        .map(|len| {
            let d = data(*len);
            json!({"len": len, "hash": hex0x(blake3::hash(&d).as_bytes()),
                "keyed": hex0x(blake3::keyed_hash(&KEY, &d).as_bytes())})
        })
        .collect();
    let subtrees: [(u64, usize); 12] = [
        (0, 1),
        (0, 1024),
        (0, 1025),
        (0, 4096),
        (1, 1024),
        (2, 1500),
        (2, 2048),
        (3, 7),
        (4, 3073),
        (1 << 32, 2048),
        ((1 << 54) - 4, 4095),
        ((1 << 54) - 1, 1023),
    ];
    let cvs: Vec<Value> = subtrees
        .iter()
        .map(|(chunk, len)| {
            let cv = blake3::Hasher::new()
                .set_input_offset(chunk * 1024)
                .update(&data(*len))
                .finalize_non_root();
            json!({"chunk": chunk, "len": len, "cv": hex0x(&cv)})
        })
        .collect();
    let none: Vec<Value> = [
        (0u64, 0),
        (1, 1025),
        (2, 2049),
        (1 << 54, 1),
        ((1 << 54) - 1, 1024),
        (u64::MAX, 1),
    ]
    .iter()
    .map(|(chunk, len)| json!({"chunk": chunk, "len": len}))
    .collect();
    // The two parts of inputs of these lengths, and numbers that are no chaining value of anything known.
    let halves = [1025usize, 2048, 2049, 3072, 5120, 8192].map(|len| {
        let (bytes, left) = (data(len), len.next_power_of_two() / 2);
        let cv = |from: usize, to: usize| {
            blake3::Hasher::new()
                .set_input_offset(from as u64)
                .update(&bytes[from..to])
                .finalize_non_root()
        };
        (cv(0, left), cv(left, len))
    });
    let odd = [
        ([0; 32], [0; 32]),
        ([255; 32], [255; 32]),
        (KEY, [1; 32]),
        ([1; 32], KEY),
    ];
    let parents: Vec<Value> = halves
        .iter()
        .chain(&odd)
        .map(|(left, right)| {
            json!({"left": hex0x(left), "right": hex0x(right),
                "root": hex0x(merge_subtrees_root(left, right, Mode::Hash).as_bytes()),
                "cv": hex0x(&merge_subtrees_non_root(left, right, Mode::Hash))})
        })
        .collect();
    // Of the precompile: a flag and two values, nothing else.
    let no_parents: Vec<Value> = [0usize, 1, 64, 66, 97]
        .iter()
        .map(|len| json!({"input": hex0x(&vec![0; *len])}))
        .chain([2u8, 255].map(|flag| json!({"input": hex0x(&[&[flag][..], &[7; 64]].concat())})))
        .collect();
    vec![File {
        name: "blake3.json",
        about: "HASH: BLAKE3, and keyed with \"bitai vectors: a key of 32 bytes\", of len bytes i mod 251; CV: chaining value of the \
                subtree of such bytes that starts at a chunk; NONE: subtrees that no input has; PARENT: the node above two chaining \
                values, as the root and as it is not; NO_PARENT: what the precompile of that node refuses",
        rules: vec![
            ("HASH", hashes),
            ("CV", cvs),
            ("NONE", none),
            ("PARENT", parents),
            ("NO_PARENT", no_parents),
        ],
    }]
}
