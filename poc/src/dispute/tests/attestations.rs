//! `vectors/attestations.json`: entries, openings and draws as Rust makes them, checked by the contract
//! (`contracts/test/Attestations.t.sol`). The addresses are those of that test.

use bitai_kernels::rows::kv_row_len;
use bitai_types::job::ids_hash;
use serde_json::{Value, json};

use super::{
    games::{committed, hex, ids_hex, job_json, program},
    *,
};
use crate::attest::{Attestor, Draw, EntryTree, Opening, PICKS};

/// Numbers of the jobs in the test.
const JOBS: [u32; 3] = [1, 2, 3];
/// Stakes of the validators in the test, and how many are drawn on average.
const STAKES: [u128; 12] = [100, 50, 25, 200, 10, 10, 30, 75, 60, 100, 15, 325];
const SEATS: u8 = 3;
/// The one whose entries are opened: it is drawn for all three jobs.
const ATTESTOR: u64 = 11;

/// The contract in the test.
fn contract() -> Address {
    "0xA77E570000000000000000000000000000000001".parse().unwrap()
}

fn validator(i: u64) -> Address {
    Address::from_word(B256::from(U256::from(0xE100 + i)))
}

fn draw(job: u32, i: u64) -> Draw {
    Draw {
        chain_id: 22216,
        contract: contract(),
        validator: validator(i),
        job_id: U256::from(job),
        header: B256::repeat_byte(7),
    }
}

/// A validator's entries for all three jobs, which have one answer, and the openings of the second one's.
fn attestation(model: &Model, job: &Job, i: u64) -> (EntryTree, [Opening; PICKS]) {
    let mut player = model.decode(job, &job.input_ids, None);
    let output_hash = ids_hash(player.transcript.outputs());
    let mut tree = EntryTree::default();
    let mut entries = vec![];
    for number in JOBS {
        let mut attestor = Attestor {
            draw: draw(number, i),
            program: &model.program,
            transcript: &player.transcript,
            rows: &mut player.regen,
        };
        let entry = attestor.entry(output_hash).unwrap();
        assert_eq!(tree.insert(number, entry.leaf()), None);
        entries.push(entry);
    }
    let mut attestor = Attestor {
        draw: draw(JOBS[1], i),
        program: &model.program,
        transcript: &player.transcript,
        rows: &mut player.regen,
    };
    let path = tree.path(JOBS[1]).unwrap();
    let neuron = Address::from_word(B256::from(U256::from(0xE000)));
    let openings = [0, 1, 2, 3].map(|pick| attestor.open(entries[1], path, neuron, pick).unwrap());
    (tree, openings)
}

fn vectors() -> Value {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    let player = model.decode(&job, &job.input_ids, None);
    let (tree, openings) = attestation(&model, &job, ATTESTOR);
    let header = Header::new(&job, &model.program);
    let row = kv_row_len(KV as usize, HEAD as usize) as u64;
    for (pick, opening) in (0..).zip(&openings) {
        opening
            .verify(
                &tree.root(),
                &draw(JOBS[1], ATTESTOR),
                JOBS[1],
                &header,
                row,
                pick,
            )
            .unwrap();
    }
    let total: u128 = STAKES.iter().sum();
    let drawn: Vec<Vec<bool>> = JOBS
        .iter()
        .map(|&number| {
            (0..)
                .zip(STAKES)
                .map(|(i, stake)| {
                    draw(number, i).is_drawn(stake * 10u128.pow(18), total * 10u128.pow(18), SEATS)
                })
                .collect()
        })
        .collect();
    json!({
        "about": "written by poc/src/dispute/tests/attestations.rs, read by contracts/test/Attestations.t.sol",
        "models": [program(&model)],
        "games": [{
            "name": "an honest answer",
            "model": 0,
            "job": job_json(&job),
            "outputs": ids_hex(player.transcript.outputs()),
            "root": hex(B256::from(player.transcript.root().unwrap())),
        }],
        "contract": hex(contract()),
        "header": hex([7; 32]),
        "seats": SEATS,
        "attested": hex(tree.root()),
        "openings": openings.iter().map(|o| hex(o.encode())).collect::<Vec<_>>(),
        "stakes": STAKES.map(|s| s as u64),
        "drawn": drawn,
    })
}

#[test]
fn committed_attestations_are_what_is_proved() {
    committed("attestations", &vectors());
}

#[test]
fn rejects_an_opening_of_another_validator_job_chunk_or_root() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    let (tree, openings) = attestation(&model, &job, 0);
    let header = Header::new(&job, &model.program);
    let row = kv_row_len(KV as usize, HEAD as usize) as u64;
    let root = tree.root();
    let check = |o: &Opening, root: &Hash, draw: Draw, job, pick| {
        o.verify(root, &draw, job, &header, row, pick).is_ok()
    };
    let mine = draw(JOBS[1], 0);
    let good = &openings[1];
    assert!(check(good, &root, mine, JOBS[1], 1));
    assert!(!check(good, &root, draw(JOBS[1], 1), JOBS[1], 1), "another's key");
    assert!(
        !check(good, &root, draw(JOBS[0], 0), JOBS[1], 1),
        "another job's key"
    );
    assert!(!check(good, &root, mine, JOBS[0], 1), "another place");
    assert!(!check(good, &root, mine, JOBS[1], 0), "another chunk");
    assert!(!check(good, &root, mine, JOBS[1], 4), "no chunk");
    assert!(!check(good, &[1; 32], mine, JOBS[1], 1), "another root");
    let spoil = |f: &dyn Fn(&mut Opening)| {
        let mut bad = good.clone();
        f(&mut bad);
        check(&bad, &root, mine, JOBS[1], 1)
    };
    assert!(!spoil(&|o| o.entry.outputs += 1));
    assert!(!spoil(&|o| o.entry.hashes[1][0] ^= 1));
    assert!(!spoil(&|o| o.entry.output_hash.0[0] ^= 1));
    assert!(!spoil(&|o| o.token.node.body[0] ^= 1));
    assert!(!spoil(&|o| o.layer.rows.kv[0] ^= 1));
    assert!(!spoil(&|o| o.chunk.bytes[0] ^= 1));
    // The rows may be right and the keyed hashes of somebody else: the root holds them.
    let (other, theirs) = attestation(&model, &job, 1);
    assert_ne!(other.root(), root);
    assert!(!check(&theirs[1], &other.root(), mine, JOBS[1], 1));
    assert!(check(&theirs[1], &other.root(), draw(JOBS[1], 1), JOBS[1], 1));
}
