//! What a validator runs: every job paid in a range of heights is computed again, and the wrong one is found.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, process::Command};

use alloy_primitives::{B256, U256};
use bitai_contracts::ModelKey;
use bitai_devnet::{Devnet, Options, accounts::coin, deploy::stake_wei};
use bitai_miner::{
    chain::registry::register,
    cli::Heights,
    config::Ask,
    engine::Loaded,
    models,
    verify::jobs::{Line, Outcome, check_range},
};
use bitai_types::{Job, ModelShape};
use common::{answer, answer_on, job, options, run, sender};

/// Checks a range of heights: exit code, lines.
async fn check(devnet: &Devnet, options: &Options, from: u64, to: Option<u64>) -> (u8, Vec<Line>) {
    let mut lines: Vec<Line> = Vec::new();
    let heights = Heights { from, to };
    let hear = &mut |l: &Line| lines.push(l.clone());
    let end = check_range(&options.data, &devnet.hub, options.device, heights, hear).await;
    (end.map_or_else(|e| e.code(), |()| 0), lines)
}

/// `verify` as a user types it: exit code, what it printed.
fn typed(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_bitai-devnet"))
        .args(["miner", "verify"])
        .args(args)
        .env("BITAI_DATA_DIR", dir)
        .output()
        .unwrap();
    (
        out.status.code(),
        String::from_utf8_lossy(&out.stdout).into_owned(),
    )
}

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

    let check = |from, to| check(&devnet, &options, from, to);
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
    let (code, text) = typed(dir.path(), &["--jobs", "0.."]);
    assert_eq!(code, Some(14), "{text}");
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

/// Anyone may register a pack with numbers that it does not have, and answer the jobs on them.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_with_false_numbers_is_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    let (hub, own) = (&devnet.hub, devnet.model().key());
    let with = |shape| ModelKey { shape, ..own };
    let wordy = with(ModelShape {
        words: 4,
        ..own.shape
    });
    // The hub takes no more context than the program in the book has; it takes less.
    let tight = with(ModelShape {
        context: own.shape.context / 2,
        ..own.shape
    });
    let bob = sender(&devnet, "bob");
    run(&bob, hub.stake(stake_wei())).await;
    for key in [&wordy, &tight] {
        let call = register(devnet.contracts.registry, key, "u", B256::ZERO, coin());
        run(&bob, call).await;
        run(&bob, hub.serve(key, &Ask::default(), coin() * U256::from(10))).await;
    }

    // No neuron with the pack can answer the first: it embeds nothing.
    let nothing = B256::repeat_byte(9);
    let text = Job::embedding(own.model_root, vec![1, 2, 3]);
    let embedded = answer_on(&devnet, &bob, &wordy, &text, (nothing, &[1, 2, 3, 4])).await;
    let short = job(&devnet, 9, 8);
    let (_, pack) = models::open_root(&options.data, &own.model_root).unwrap();
    let mut loaded = Loaded::new(&pack, options.device).unwrap();
    let honest = loaded.answer(&short, &mut |_| ()).unwrap();
    let outputs = honest.transcript.outputs();
    let right = answer_on(&devnet, &bob, &tight, &short, (honest.trace_root.0, outputs)).await;
    let wrong = answer_on(&devnet, &bob, &tight, &short, (nothing, outputs)).await;

    let (code, lines) = check(&devnet, &options, 0, None).await;
    let found: Vec<_> = lines.iter().map(|l| (l.job_id, l.outcome)).collect();
    let false_model = Outcome::Misregistered;
    let expected = [
        (embedded, false_model),
        (right, false_model),
        (wrong, Outcome::Mismatch),
    ];
    assert_eq!(found, expected, "{lines:?}");
    assert_eq!(code, 14, "the worst that was found");
    let (theirs, mine) = (tight.shape.context, own.shape.context);
    let context = format!("context {theirs}, the pack has {mine}");
    for (line, key, what) in [
        (&lines[0], &wordy, "words 4, the pack has 0"),
        (&lines[0], &wordy, "no job for this pack"),
        (&lines[1], &tight, context.as_str()),
        (&lines[1], &tight, "same trace root"),
        (&lines[2], &tight, "trace root mismatch"),
    ] {
        let id = format!("registration {}", key.id());
        assert!(
            line.finding.contains(what) && line.finding.contains(&id),
            "{line}"
        );
    }
    let (code, _) = check(&devnet, &options, 0, Some(lines[1].height)).await;
    assert_eq!(code, 19);
    let (code, text) = typed(dir.path(), &[&embedded.to_string(), "--no-timing"]);
    assert_eq!(code, Some(19), "{text}");
    assert!(
        text.contains("MISREGISTERED: ") && text.contains(&wordy.id().to_string()),
        "{text}"
    );
    devnet.stop().await.unwrap();
}
