//! `validator ...`: the stake of a validator, the models it computes, and asks about others.

use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};

use crate::{
    chain::{Attestations, Hub, Refusal, Sender, send::Call},
    cli::ValidatorCommand,
    config::Layers,
    datadir::DataDir,
    exit::Failure,
    models,
    stake::{INCLUSION_TIMEOUT, check_balance},
    wallet,
};

fn fail(e: Refusal) -> Failure {
    e.into_failure("reading attestations")
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, command: &ValidatorCommand) -> Result<(), Failure> {
    let hub = Hub::connect(&layers.chain(&command.to().chain)).await?;
    let at = Attestations::of(&hub).await.map_err(fail)?.ok_or_else(|| {
        Failure::Usage("this hub has no attestations: its treasury is no contract of validators".into())
    })?;
    let signer = wallet::open_on(
        data,
        &layers.key(&command.to().key, &command.to().chain, false),
        hub.node().chain_id(),
    )?;
    let me = signer.address();
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let model = |name: &str| -> Result<B256, Failure> { Ok(models::named(data, name)?.key().id()) };
    let (what, call): (&str, Call) = match command {
        ValidatorCommand::Status { .. } => return status(&at, me).await,
        ValidatorCommand::Stake { amount, .. } => {
            check_balance(&hub, me, *amount).await?;
            ("staking", at.stake(*amount))
        }
        ValidatorCommand::Unstake { amount, .. } => ("asking for stake", at.unstake(*amount)),
        ValidatorCommand::Enlist { model: name, .. } => ("enlisting", at.enlist(model(name)?)),
        ValidatorCommand::Delist { model: name, .. } => ("delisting", at.delist(model(name)?)),
        ValidatorCommand::Withdraw { .. } => ("withdrawing", at.withdraw()),
        ValidatorCommand::Ask { entry } => {
            let bond = at.ask_bond().await.map_err(fail)?;
            check_balance(&hub, me, bond).await?;
            ("asking", at.ask(entry.validator, entry.job, bond))
        }
        ValidatorCommand::Expire { entry } => ("ending an ask", at.expire(entry.validator, entry.job)),
        ValidatorCommand::Absent { entry } => ("reporting absence", at.absent(entry.validator, entry.job)),
    };
    let spinner = crate::progress::spinner("waiting for a Bitcoin block");
    let sent = sender.execute(&call, what, INCLUSION_TIMEOUT).await;
    spinner.finish_and_clear();
    sent?;
    status(&at, me).await
}

/// Prints a validator's account.
async fn status(at: &Attestations, me: Address) -> Result<(), Failure> {
    let account = at.validator(me).await.map_err(fail)?;
    let height = at.hub().node().height().await.map_err(fail)?;
    let epoch = at.epoch_of(height);
    println!("validator {me} at {}", at.address());
    println!(
        "  stake {} wei, leaving {} wei from height {}",
        account.stake, account.leaving, account.leaveAt
    );
    println!(
        "  due {} wei, asks that wait {}",
        at.due(me).await.map_err(fail)?,
        account.asks
    );
    println!(
        "  height {height}, epoch {epoch} of {} heights",
        at.settings().epoch
    );
    for model in at.models(me).await.map_err(fail)? {
        let (own, total) = at.weights(model, me, epoch).await.map_err(fail)?;
        let (next, of) = at.weights(model, me, epoch + 2).await.map_err(fail)?;
        println!(
            "  model {model}: weight {own} of {total} wei, from epoch {} on {next} of {of}",
            epoch + 2
        );
        if next == U256::ZERO {
            println!(
                "    nothing weighs below a stake of {} wei",
                at.settings().minStake
            );
        }
    }
    Ok(())
}
