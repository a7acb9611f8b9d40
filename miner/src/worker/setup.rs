//! What a neuron needs before its first job: models, stake, offers, journal, device.

use std::{collections::BTreeMap, sync::Arc};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{B256, U256};

use super::{Computer, Neuron};
use crate::{
    chain::{Hub, Sender},
    config,
    datadir::DataDir,
    engine,
    exit::Failure,
    journal::Journal,
    models, stake,
};

/// How a neuron is to work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Models by name or root; none = all that the chain lists.
    pub models: Vec<String>,
    /// Least fee for a job, in wei.
    pub ask: U256,
    /// Stake up to this much first, in wei.
    pub stake: Option<U256>,
    /// Where to compute.
    pub device: config::Device,
}

/// Makes everything ready: refuses a stake that is too small, loads the models, offers to serve them.
pub async fn prepare(
    data: &DataDir,
    hub: Hub,
    signer: PrivateKeySigner,
    settings: &Settings,
) -> Result<Neuron, Failure> {
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let me = sender.address();
    // First, so that a second neuron on this journal ends before it spends anything.
    let journal = Journal::open(&data.journal(), hub.node().chain_id(), hub.address(), me)?;
    let served = choose(data, &hub, &settings.models).await?;
    let collateral_max = ensure_stake(&hub, &sender, settings.stake).await?;
    let device = engine::device(settings.device)?;
    let (done, results) = tokio::sync::mpsc::unbounded_channel();
    let mut computers = BTreeMap::new();
    for root in served {
        let (model, pack) = models::open_root(data, &root)?;
        let computer = Computer::start(&pack, device.as_ref(), done.clone())?;
        ensure_offer(&hub, &sender, root, settings.ask, collateral_max).await?;
        tracing::info!(model = model.name, %root, device = computer.device(), neuron = %me, "serving");
        computers.insert(root, computer);
    }
    Ok(Neuron {
        hub,
        sender,
        journal,
        computers,
        results,
        computing: Default::default(),
    })
}

/// The roots to serve: the named ones, which the chain must list, or all that it lists.
async fn choose(data: &DataDir, hub: &Hub, named: &[String]) -> Result<Vec<B256>, Failure> {
    let all = named.is_empty();
    let names = if all {
        models::list(data)?
            .into_iter()
            .map(|m| m.map(|m| m.name))
            .collect::<Result<Vec<_>, _>>()?
    } else {
        named.to_vec()
    };
    let mut roots = Vec::new();
    let mut unlisted = Vec::new();
    for name in names {
        let (model, _) = models::open(data, Some(&name))?;
        let line = hub
            .model(model.model_root)
            .await
            .map_err(|e| e.into_failure("reading the model registry"))?;
        match line {
            Some(line) if line.retiredAt == 0 => roots.push(model.model_root),
            _ if all => unlisted.push(name),
            _ => {
                return Err(Failure::NoModel {
                    name: format!("{name} ({:#x}) that the chain lists", model.model_root),
                    dir: data.models(),
                    have: "not registered, or retired".into(),
                });
            }
        }
    }
    if roots.is_empty() {
        return Err(Failure::NoModel {
            name: "that the chain lists".into(),
            dir: data.models(),
            have: if unlisted.is_empty() {
                "none".into()
            } else {
                unlisted.join(", ")
            },
        });
    }
    Ok(roots)
}

/// Part of the stake that one job may lock at most.
const COLLATERAL_PARTS: u64 = 8;

/// Refuses a stake below the hub's minimum, after adding what `up_to` allows. Gives what one job may lock.
async fn ensure_stake(hub: &Hub, sender: &Sender, up_to: Option<U256>) -> Result<U256, Failure> {
    let who = sender.address();
    let params = hub
        .params()
        .await
        .map_err(|e| e.into_failure("reading the hub's constants"))?;
    let want: U256 = params.minStake.to();
    let mut have = stake::staked(hub, who).await?;
    if let Some(target) = up_to
        && have < target
    {
        tracing::info!(wei = %(target - have), "staking");
        stake::add(hub, sender, target - have).await?;
        have = stake::staked(hub, who).await?;
    }
    if have < want {
        return Err(Failure::Stake { who, have, want });
    }
    let least: U256 = params.minCollateral.to();
    Ok(least.max(have / U256::from(COLLATERAL_PARTS)))
}

/// Offers to serve a model at a price, unless the offer stands already.
async fn ensure_offer(
    hub: &Hub,
    sender: &Sender,
    root: B256,
    ask: U256,
    collateral_max: U256,
) -> Result<(), Failure> {
    let offers = hub
        .offers(root)
        .await
        .map_err(|e| e.into_failure("reading offers"))?;
    let stands = offers
        .iter()
        .any(|o| o.neuron == sender.address() && o.askBase.to::<U256>() == ask && o.askPerToken.is_zero());
    if !stands {
        sender
            .execute(
                &hub.serve(root, ask, collateral_max),
                "offering the model",
                stake::INCLUSION_TIMEOUT,
            )
            .await?;
    }
    Ok(())
}
