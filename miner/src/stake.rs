//! `stake`: coins behind a neuron, which it loses where it is silent or wrong.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, U256};

use crate::{
    chain::{
        Hub, Refusal, Sender,
        send::{is_in_flight, is_too_cheap},
    },
    cli::StakeArgs,
    config::Layers,
    datadir::DataDir,
    exit::Failure,
    journal::Journal,
    wallet,
};

/// Longest wait for a Bitcoin block with our transaction.
pub const INCLUSION_TIMEOUT: Duration = Duration::from_secs(3 * 3600);

/// Refuses an account that cannot pay `want`.
pub async fn check_balance(hub: &Hub, who: Address, want: U256) -> Result<(), Failure> {
    let have = hub
        .node()
        .balance(who)
        .await
        .map_err(|e| e.into_failure("eth_getBalance"))?;
    if have < want {
        Err(Failure::Balance { who, have, want })
    } else {
        Ok(())
    }
}

/// Adds `wei` to the sender's stake and waits until it counts.
pub async fn add(hub: &Hub, sender: &Sender, wei: U256) -> Result<(), Failure> {
    check_balance(hub, sender.address(), wei).await?;
    sender
        .execute(&hub.stake(wei), "stake", INCLUSION_TIMEOUT)
        .await?;
    Ok(())
}

/// Adds `wei` to the sender's stake so that a process killed on the way does not add it twice: the transaction
/// is in the journal before it leaves.
pub async fn add_journalled(hub: &Hub, sender: &Sender, journal: &Journal, wei: U256) -> Result<(), Failure> {
    check_balance(hub, sender.address(), wei).await?;
    let signed = sender
        .send_noted(&hub.stake(wei), &mut |signed| journal.set_stake(Some(signed)))
        .await?;
    sender.wait(&signed, "stake", INCLUSION_TIMEOUT).await?;
    journal.set_stake(None)
}

/// Sees a stake of an earlier run to its end, if one was under way: it may be waiting in a mempool, be executed
/// without our having seen it, or never have left.
pub async fn settle(hub: &Hub, sender: &Sender, journal: &Journal) -> Result<(), Failure> {
    let Some(signed) = journal.stake()? else {
        return Ok(());
    };
    let fail = |e: Refusal| e.into_failure("looking for the stake of an earlier run");
    let node = hub.node();
    let executed = node.receipt(signed.hash).await.map_err(fail)?.is_some();
    // Executed under another price, or its nonce used by something else: either way it cannot execute any more.
    let used = node.nonce(sender.address(), "latest").await.map_err(fail)? > signed.nonce;
    if !executed && !used {
        tracing::info!(tx = %signed.hash, "waiting for the stake of an earlier run");
        match sender.broadcast(&signed).await {
            Err(e @ Refusal::Down(_)) => return Err(fail(e)),
            // Not there and not taken, for a reason that waiting does not mend: it cannot execute.
            Err(e) if !(is_too_cheap(&e) || is_in_flight(&e)) => {
                tracing::warn!("the stake of an earlier run is given up: {}", fail(e));
            }
            Ok(()) | Err(_) => {
                sender.wait(&signed, "stake", INCLUSION_TIMEOUT).await?;
            }
        }
    }
    journal.set_stake(None)
}

/// Wei at stake.
pub async fn staked(hub: &Hub, who: Address) -> Result<U256, Failure> {
    let neuron = hub
        .neuron(who)
        .await
        .map_err(|e| e.into_failure("reading the stake"))?;
    Ok(neuron.stake.to())
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, args: &StakeArgs) -> Result<(), Failure> {
    if args.amount.is_zero() {
        return Err(Failure::Usage("stake an amount above 0 wei".into()));
    }
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let signer = wallet::open_on(
        data,
        &layers.key(&args.key, &args.chain, false),
        hub.node().chain_id(),
    )?;
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let spinner = crate::progress::spinner("waiting for a Bitcoin block");
    let result = add(&hub, &sender, args.amount).await;
    spinner.finish_and_clear();
    result?;
    println!(
        "{} has {} wei at stake",
        sender.address(),
        staked(&hub, sender.address()).await?
    );
    Ok(())
}
