//! A neuron's money goes to an address that its own key cannot change: set, signed without a node, brought by anybody, called back.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, process::Command};

use bitai_devnet::{Devnet, accounts::Account, deploy::stake_wei};
use bitai_miner::{chain::payouts::Payouts, wallet};
use common::{options, run, sender};

/// The miner as somebody types it: exit code, what it printed and logged.
fn typed(dir: &Path, key: &str, args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_bitai-devnet"))
        .args(["miner", "wallet", "payout", "--keystore", key])
        .args(args)
        .env("BITAI_DATA_DIR", dir)
        .env("BITAI_PASSWORD_FILE", dir.join("password"))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_cold_key_moves_the_money() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    std::fs::write(dir.path().join("password"), "sesame").unwrap();
    for name in ["alice", "bob"] {
        wallet::store(&options.data, name, &Account::named(name).signer, "sesame").unwrap();
    }
    let (hot, cold) = (Account::named("bob").address(), Account::named("alice").address());
    let bob = sender(&devnet, "bob");
    run(&bob, devnet.hub.stake(stake_wei())).await;
    let typed = async |key: &'static str, args: &[&str]| {
        let (dir, args): (_, Vec<String>) = (
            dir.path().to_owned(),
            args.iter().map(|a| (*a).to_owned()).collect(),
        );
        tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            typed(&dir, key, &args)
        })
        .await
        .unwrap()
    };
    let (to, account, hub) = (
        cold.to_string(),
        hot.to_string(),
        devnet.hub.address().to_string(),
    );

    // What cannot be undone is confirmed first, and here nobody can.
    let (code, said) = typed("bob", &[&to]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--yes"), "{said}");
    let (code, said) = typed("bob", &[&to, "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    let payouts = Payouts::of_hub(&devnet.hub);
    assert_eq!(payouts.payee(hot).await.unwrap().payout, cold);

    // The key on the machine is refused here, and by the contract.
    let (code, said) = typed("bob", &[&hub]).await;
    assert_eq!(code, Some(2), "{said}");
    // The error is NotPayout.
    let refused = bob.sign(&payouts.change(hot, devnet.hub.address()), 1, 0).await;
    assert!(format!("{refused:?}").contains("0x7fb966d8"), "{refused:?}");

    // Signed without a node, brought by the key that may not change it.
    let other = "0x00000000000000000000000000000000000000dd";
    let file = dir.path().join("change.json");
    let file = file.to_str().unwrap();
    let chain = devnet.hub.node().chain_id().to_string();
    let numbers = [
        "--contract",
        &hub,
        "--nonce",
        "1",
        "--until",
        "100000",
        "--chain-id",
        &chain,
    ];
    let mut args = vec![
        other,
        "--sign",
        file,
        "--account",
        &account,
        "--node",
        "http://127.0.0.1:1",
    ];
    args.extend(numbers);
    let (code, said) = typed("alice", &args).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = typed("bob", &["--relay", file]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        payouts
            .payee(hot)
            .await
            .unwrap()
            .payout
            .to_string()
            .to_lowercase(),
        other
    );
    let (code, said) = typed("bob", &["--relay", file]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("sign again"), "{said}");
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cold_key_calls_the_stake_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    let alice = sender(&devnet, "alice");
    let bob = sender(&devnet, "bob");
    let payouts = Payouts::of_hub(&devnet.hub);
    run(&bob, devnet.hub.stake(stake_wei())).await;
    run(&bob, payouts.set(alice.address())).await;
    run(&alice, payouts.recall(bob.address())).await;
    let account = devnet.hub.neuron(bob.address()).await.unwrap();
    assert_eq!(account.stake.to::<u128>(), 0);
    assert_eq!(alloy_primitives::U256::from(account.unstaking), stake_wei());
    // The error is CalledBack.
    let refused = bob.sign(&devnet.hub.stake(stake_wei()), 2, 0).await;
    assert!(format!("{refused:?}").contains("0x6f892248"), "{refused:?}");
    devnet.stop().await.unwrap();
}
