//! `stake`: coins behind a neuron, which it loses where it is silent or wrong.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, U256};

use crate::{
    chain::{Hub, Sender},
    cli::StakeArgs,
    config::Layers,
    datadir::DataDir,
    exit::Failure,
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
    let signer = wallet::open(data, &layers.key(&args.key, &args.chain, false))?;
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
