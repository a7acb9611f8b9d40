//! Vectors of bytes: site records, canonical KV rows, leaves and trees.

use anyhow::Result;
use bitai_kernels::{
    conformance::{Shape, build::Rng},
    ops::QuantRows,
    rows::{body_root, kv_record_offset, kv_row_len, leaf_hash, merkle_root, node_hash},
    sequence::write_kv_row,
};
use serde_json::json;

use crate::{
    File,
    arithmetic::{SCALES, pair, scale},
};

pub(crate) fn files() -> Result<Vec<File>> {
    let case = Shape::SMALL.build("vectors sites");
    let mut records = vec![];
    for site in &case.program.sites {
        records.push(json!({"site": site, "record": hex::encode(site.encode()?)}));
    }
    let mut rng = Rng::new("vectors rows");
    let mut kv = vec![];
    for (heads, d) in [(1usize, 2usize), (3, 4), (9, 64), (2, 508)] {
        let mut block = || QuantRows {
            rows: 1,
            cols: heads * d,
            group: d,
            planes: 1,
            q: (0..heads * d).map(|_| rng.range(-127, 127) as i16).collect(),
            scales: (0..heads).map(|h| scale(SCALES[h % SCALES.len()])).collect(),
        };
        let (k, v) = (block(), block());
        let mut row = vec![0; kv_row_len(heads, d)];
        write_kv_row(&mut row, &k, &v, 0);
        let offsets: Vec<usize> = (0..heads).map(|h| kv_record_offset(h, d)).collect();
        let scales: Vec<_> = k.scales.iter().map(|s| pair(*s)).collect();
        kv.push(
            json!({"heads": heads, "head_dim": d, "k": k.q, "v": v.q, "scales": scales, "offsets": offsets,
            "row": hex::encode(row)}),
        );
    }
    let hash = |i: u8| [i; 32];
    let mut leaves = vec![];
    for (pos, layer, out) in [
        (0, 0, None),
        (7, 3, Some(hash(2))),
        (u32::MAX, u32::MAX, Some(hash(0))),
    ] {
        let leaf = leaf_hash(pos, layer, &hash(1), out.as_ref());
        leaves.push(
            json!({"pos": pos, "layer": layer, "kv": hex::encode(hash(1)), "out": out.map(hex::encode),
            "leaf": hex::encode(leaf)}),
        );
    }
    let nodes = [(1, 2), (2, 3), (32, u32::MAX)]
        .map(|(height, n)| {
            json!({"height": height, "leaves": n, "left": hex::encode(hash(1)), "right": hex::encode(hash(2)),
                "node": hex::encode(node_hash(height, n, &hash(1), &hash(2)))})
        })
        .to_vec();
    let trees = (0..9u8)
        .map(|n| {
            let list: Vec<_> = (0..n).map(hash).collect();
            json!({"leaves": n, "root": hex::encode(merkle_root(&list))})
        })
        .collect();
    let body = body_root(5, &[hash(1), hash(2), hash(3)], &[None, Some(hash(9)), None]);
    let kv_hashes = [1, 2, 3].map(|i| hex::encode(hash(i)));
    let bodies = vec![
        json!({"pos": 5, "kv": kv_hashes, "out": [null, hex::encode(hash(9)), null],
        "body": hex::encode(body)}),
    ];
    Ok(vec![File {
        name: "rows.json",
        about: "C: site records, KV: canonical rows (k, v head by head; scales are those of K, V has the same), LEAF, NODE, \
                TREE (leaf i is 32 bytes of i), BODY",
        rules: vec![
            ("C", records),
            ("KV", kv),
            ("LEAF", leaves),
            ("NODE", nodes),
            ("TREE", trees),
            ("BODY", bodies),
        ],
    }])
}
