//! `vectors/envelope.json`: written with `BITAI_WRITE_VECTORS=1`, compared otherwise. Other readers of the
//! envelope can be checked against it.

use alloy_primitives::{Address, Bytes, hex};
use bitai_node::envelope::script::{build, build_drop, find};
use bitai_node::envelope::{Header, payload};
use bitcoin::secp256k1::XOnlyPublicKey;
use serde_json::{Value, json};
use std::path::Path;

const GENESIS_ID: [u8; 4] = [1, 2, 3, 4];

fn key() -> XOnlyPublicKey {
    "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        .parse()
        .unwrap()
}

/// What a reader finds in a script: transactions, or the reason for which an envelope is void.
fn read(script: &[u8]) -> Value {
    let found = find(script).into_iter().map(|envelope| {
        let read = envelope.and_then(|(header, body)| {
            let header = Header::decode(&header, GENESIS_ID)?;
            Ok(json!({"feeRecipient": header.fee_recipient, "txs": payload::decode(&body)?}))
        });
        read.unwrap_or_else(|void| json!({"void": format!("{void:?}")}))
    });
    Value::Array(found.collect())
}

fn case(name: &str, script: &[u8]) -> Value {
    json!({"name": name, "script": hex::encode(script), "found": read(script)})
}

fn vectors() -> Value {
    let header = Header {
        genesis_id: GENESIS_ID,
        fee_recipient: Address::repeat_byte(0x11),
    };
    let txs = [Bytes::from(vec![0xaa, 0xbb, 0xcc]), Bytes::from(vec![0xdd; 60])];
    let packed = payload::encode(&txs).unwrap();
    let script = build(&key(), &header, &packed);
    let bytes = script.as_bytes();
    let long: Vec<Bytes> = (0u8..40)
        .map(|i| Bytes::from(blake3::hash(&[i]).as_bytes().to_vec()))
        .collect();
    let long = payload::encode(&long).unwrap();
    let foreign = Header {
        genesis_id: [9; 4],
        ..header
    };
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = byte;
        bytes
    };
    let (version, codec, frame) = (34 + 2 + 6 + 1, 34 + 2 + 6 + 26, 34 + 2 + 6 + 27 + 1);
    let two = [bytes, build_drop(&key(), &header, &packed).as_bytes()].concat();
    json!({
        "about": "Envelopes of docs/spec/envelope.md; regenerate with BITAI_WRITE_VECTORS=1 cargo test -p bitai-node --test bitcoin vectors",
        "genesisId": hex::encode(GENESIS_ID),
        "example": {
            "key": key().to_string(),
            "feeRecipient": header.fee_recipient,
            "txs": txs,
            "rlp": hex::encode(payload::rlp_list(&txs)),
            "header": hex::encode(header.encode()),
            "payload": hex::encode(&packed),
            "script": hex::encode(bytes),
        },
        "cases": [
            case("the example", bytes),
            case("payload over three pushes", build(&key(), &header, &long).as_bytes()),
            case("DROP form, pushes of 256 bytes", build_drop(&key(), &header, &long).as_bytes()),
            case("IF form, then DROP form", &two),
            case("another chain's genesis id", build(&key(), &foreign, &packed).as_bytes()),
            case("version 2", &with(version, 2)),
            case("codec 0", &with(codec, 0)),
            case("zstd magic broken", &with(frame, 0)),
            case("no OP_ENDIF", &bytes[..bytes.len() - 1]),
            case("OP_NOP instead of OP_ENDIF", &with(bytes.len() - 1, 0x61)),
            case("no payload", build(&key(), &header, &[]).as_bytes()),
            case("not ours", &hex!("20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac0063036f7264010168")),
        ],
    })
}

#[test]
fn the_committed_vectors_are_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/envelope.json");
    let text = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if std::env::var_os("BITAI_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}
