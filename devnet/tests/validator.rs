//! What a validator runs: every job paid in a range of heights is computed again, and the wrong one is found.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use alloy_primitives::{B256, U256};
use bitai_devnet::{Devnet, accounts::coin, deploy::stake_wei};
use bitai_miner::{
    cli::Heights,
    config::Ask,
    engine::Loaded,
    models,
    verify::jobs::{Line, Outcome, check_range},
};
use common::{answer, job, options, run, sender};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_is_found_in_a_range_of_heights() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    let hub = &devnet.hub;
    let bob = sender(&devnet, "bob");
    run(&bob, hub.stake(stake_wei())).await;
    run(
        &bob,
        hub.serve(&devnet.model().key(), &Ask::default(), coin() * U256::from(10)),
    )
    .await;

    let job = job(&devnet, 9, 8);
    let (_, pack) = models::open_root(&options.data, &devnet.model().model_root).unwrap();
    let honest = Loaded::new(&pack, options.device)
        .unwrap()
        .answer(&job, &mut |_| ())
        .unwrap();
    let (root, outputs) = (honest.trace_root.0, honest.transcript.outputs());
    let right = answer(&devnet, &bob, &job, root, outputs).await;
    let wrong = answer(&devnet, &bob, &job, B256::repeat_byte(9), outputs).await;

    let check = |from, to| {
        let (data, device) = (&options.data, options.device);
        async move {
            let mut lines: Vec<Line> = Vec::new();
            let heights = Heights { from, to };
            let end = check_range(data, hub, device, heights, &mut |l| lines.push(l.clone())).await;
            (end.map_or_else(|e| e.code(), |()| 0), lines)
        }
    };
    let (code, lines) = check(0, None).await;
    assert_eq!(code, 14, "the worst that was found");
    let found: Vec<_> = lines.iter().map(|l| (l.job_id, l.outcome)).collect();
    assert_eq!(found, [(right, Outcome::Ok), (wrong, Outcome::Mismatch)]);
    assert!(
        lines[1].finding.contains(&bob.address().to_string()),
        "{}",
        lines[1]
    );
    let (code, lines) = check(lines[0].height, Some(lines[0].height)).await;
    assert_eq!(
        (code, lines.len()),
        (0, 1),
        "a range that holds only the right one"
    );

    // The same as a user types it.
    let out = Command::new(env!("CARGO_BIN_EXE_bitai-devnet"))
        .args(["miner", "verify", "--jobs", "0.."])
        .env("BITAI_DATA_DIR", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(14), "{text}");
    assert_eq!(text.lines().count(), 2, "one line a job: {text}");
    assert!(text.contains(" OK ") && text.contains(" MISMATCH "), "{text}");

    // Without the model nothing can be said, and that is said.
    std::fs::rename(
        options.data.models().join("tiny.pack"),
        options.data.models().join("tiny.gone"),
    )
    .unwrap();
    let (code, lines) = check(0, None).await;
    assert_eq!(code, 12);
    assert!(lines.iter().all(|l| l.outcome == Outcome::Unchecked), "{lines:?}");
    devnet.stop().await.unwrap();
}
