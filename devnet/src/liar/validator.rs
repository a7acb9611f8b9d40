//! A lying validator: attests a root behind which it computed nothing. Whoever asks for its entry gets none, and a part of its
//! stake goes.

use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use bitai_miner::{
    Failure, ask,
    chain::{
        Attestations, Refusal, Sender,
        attestations::{ATTESTATION_STANDING, Windows},
        send::Call,
    },
};
use bitai_types::Job;

use crate::{Devnet, accounts::coin};

/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for one step.
const PATIENCE: Duration = Duration::from_secs(300);
/// Coins that it stakes.
const STAKE: u64 = 100;

/// What an attestation over nothing came to.
#[derive(Debug, Clone)]
pub struct Lazy {
    /// The job that it attested.
    pub job_id: U256,
    /// The validator.
    pub validator: Address,
    /// Wei of stake that it lost.
    pub lost: U256,
    /// Wei that whoever asked is due: its bond and its part of what was lost.
    pub due: U256,
    /// The bond of the ask, in wei.
    pub bond: U256,
    /// Heights from the attestation to the slashing.
    pub blocks: u64,
}

fn fail(e: Refusal) -> Failure {
    e.into_failure("reading the attestations")
}

async fn run(who: &Sender, call: Call, what: &str) -> Result<(), Failure> {
    who.execute(&call, what, PATIENCE).await.map(|_| ())
}

/// Asks until the answer is yes.
async fn until<F: Future<Output = Result<bool, Failure>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<(), Failure> {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !ask().await? {
        if tokio::time::Instant::now() > end {
            return Err(Failure::Internal(anyhow::anyhow!("waited in vain until {what}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits for a height.
async fn height(devnet: &Devnet, wanted: u64) -> Result<u64, Failure> {
    let now = || async { devnet.hub.node().height().await.map_err(fail) };
    until("the height is there", || async { Ok(now().await? >= wanted) }).await?;
    now().await
}

/// Stakes and enlists for a model, and waits until that weighs.
pub async fn enlist(devnet: &Devnet, at: &Attestations, who: &Sender, model: B256) -> Result<(), Failure> {
    run(who, at.stake(coin() * U256::from(STAKE)), "a validator's stake").await?;
    run(who, at.enlist(model), "a validator's list").await?;
    until("the stake weighs", || async {
        let epoch = at.epoch_of(devnet.hub.node().height().await.map_err(fail)?);
        let (weight, _) = at.weights(model, who.address(), epoch).await.map_err(fail)?;
        Ok(!weight.is_zero())
    })
    .await
}

/// The epoch in which a job is answered, once it is, and its windows.
pub async fn answered(devnet: &Devnet, at: &Attestations, job_id: U256) -> Result<(u64, Windows), Failure> {
    let answered = || async {
        let job = devnet.hub.job(job_id).await.map_err(fail)?;
        Ok::<u64, Failure>(job.map_or(0, |job| job.answeredAt))
    };
    until("the job is answered", || async { Ok(answered().await? != 0) }).await?;
    let epoch = at.epoch_of(answered().await?);
    Ok((epoch, at.windows(epoch)))
}

/// Asks a validator for its entry of a job, as soon as asks are taken; gives the bond.
pub async fn ask_for(
    devnet: &Devnet,
    at: &Attestations,
    who: &Sender,
    (validator, job_id, windows): (Address, U256, Windows),
) -> Result<U256, Failure> {
    height(devnet, windows.attest_by + 1).await?;
    let bond = at.ask_bond().await.map_err(fail)?;
    run(who, at.ask(validator, job_id, bond), "an ask").await?;
    Ok(bond)
}

/// Posts a job, has `liar` attest a root over nothing about it, and `doubter` ask for what is under it.
pub async fn lazy(
    devnet: &Devnet,
    job: &Job,
    (liar, doubter, client): (&Sender, &Sender, &Sender),
) -> Result<Lazy, Failure> {
    let hub = &devnet.hub;
    let at = Attestations::of(hub).await.map_err(fail)?.ok_or_else(|| {
        Failure::Usage("nothing is attested on this devnet: start it with --validators".into())
    })?;
    let model = devnet.model_that(false)?.key();
    enlist(devnet, &at, liar, model.id()).await?;
    let fee = ask::fee(hub, &model, job, 1).await?;
    let (job_id, _) = ask::post(hub, client, &model, job, 1, fee).await?;
    let (epoch, windows) = answered(devnet, &at, job_id).await?;
    let began = height(devnet, windows.header).await?;
    let header =
        at.header(windows.header).await.map_err(fail)?.ok_or_else(|| {
            Failure::Internal(anyhow::anyhow!("the header at {} is not there", windows.header))
        })?;
    let nothing = B256::repeat_byte(0x5a);
    run(
        liar,
        at.attest(epoch, header, job_id, nothing, &[]),
        "attesting nothing",
    )
    .await?;
    let said = at.attestation(epoch, liar.address()).await.map_err(fail)?;
    if said.state != ATTESTATION_STANDING {
        return Err(Failure::Internal(anyhow::anyhow!(
            "the attestation does not stand"
        )));
    }
    let bond = ask_for(devnet, &at, doubter, (liar.address(), job_id, windows)).await?;
    let tip = hub.node().height().await.map_err(fail)?;
    let asked = at.asked(liar.address(), 0, tip).await.map_err(fail)?;
    let open_by = asked
        .iter()
        .find(|a| a.job_id == job_id)
        .map(|a| a.open_by)
        .ok_or_else(|| Failure::Internal(anyhow::anyhow!("the ask is not on the chain")))?;
    let stake = || async {
        let validator = at.validator(liar.address()).await.map_err(fail)?;
        Ok::<U256, Failure>(validator.stake.to())
    };
    let before = stake().await?;
    height(devnet, open_by).await?;
    run(doubter, at.expire(liar.address(), job_id), "ending the ask").await?;
    Ok(Lazy {
        job_id,
        validator: liar.address(),
        lost: before - stake().await?,
        due: at.due(doubter.address()).await.map_err(fail)?,
        bond,
        blocks: hub.node().height().await.map_err(fail)? - began,
    })
}
