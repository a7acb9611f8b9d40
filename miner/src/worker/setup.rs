//! What a neuron needs before its first job: models, stake, offers, journal, device.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::U256;
use bitai_contracts::ModelKey;

use super::Neuron;
use crate::{
    chain::{Hub, Sender},
    config::{self, Ask},
    datadir::DataDir,
    devices::{Devices, Fleet, FromNvml, Health, Place, Start, places},
    exit::Failure,
    journal::Journal,
    models::{self, Listed},
    offers,
    registration::unlisted,
    stake,
};

/// How a neuron is to work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Models by name or root; none = all that the chain lists.
    pub models: Vec<String>,
    /// What to ask for a job.
    pub ask: Ask,
    /// Stake up to this much first, in wei.
    pub stake: Option<U256>,
    /// Whether offers for models that are not among these stay, since another machine serves them with this key.
    pub keep_offers: bool,
    /// Heights that a commit waits for other answers that are being computed, and a reveal for the rest of its batch.
    pub batch_wait: u64,
    /// Where to compute.
    pub device: config::Device,
    /// Where the devices are seen, and how GPUs are used.
    pub devices: Devices,
    /// How long it may go on after it was told to stop, to commit what is computed.
    pub finish: Duration,
}

/// A neuron's place: its key on a hub and its journal, which no other process has.
pub(super) struct Post {
    data: DataDir,
    hub: Hub,
    sender: Sender,
    journal: Journal,
}

impl Post {
    /// Takes the place, or says who has it.
    pub(super) fn take(data: &DataDir, hub: Hub, signer: PrivateKeySigner) -> Result<Self, Failure> {
        let sender = Sender::new(Arc::clone(hub.node()), signer);
        let (chain, me) = (hub.node().chain_id(), sender.address());
        Ok(Self {
            journal: Journal::open(&data.journal(), chain, hub.address(), me)?,
            data: data.clone(),
            sender,
            hub,
        })
    }

    /// Who sends from here; its clones take turns.
    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// See [`prepare`].
    pub(super) async fn prepare(self, settings: &Settings) -> Result<Neuron, Failure> {
        ready(self, settings).await
    }
}

/// Makes everything ready for jobs: takes back offers for models that are not served, refuses a stake that is too small,
/// loads the models, offers to serve them. Disputes are answered by [`work`](super::work) alone.
pub async fn prepare(
    data: &DataDir,
    hub: Hub,
    signer: PrivateKeySigner,
    settings: &Settings,
) -> Result<Neuron, Failure> {
    Post::take(data, hub, signer)?.prepare(settings).await
}

async fn ready(post: Post, settings: &Settings) -> Result<Neuron, Failure> {
    let Post {
        data,
        hub,
        sender,
        journal,
    } = post;
    let me = sender.address();
    let data = &data;
    let served = choose(data, &hub, &settings.models).await?;
    if !settings.keep_offers {
        let ids: Vec<_> = served.iter().map(|m| m.key().id()).collect();
        offers::withdraw_all_but(data, &hub, &sender, &ids).await?;
    }
    let collateral_max = ensure_stake(&hub, &sender, &journal, settings.stake).await?;
    let places = places(settings.device, settings.devices.settings())?;
    let (done, results) = tokio::sync::mpsc::unbounded_channel();
    let mut packs = Vec::new();
    for model in &served {
        packs.push(models::open_root(data, &model.model_root)?.1);
    }
    let fleet = Fleet::start(Start {
        health: health(&places),
        places,
        packs,
        devices: &settings.devices,
        threads: settings.device.threads / 2,
        done,
    })?;
    let mut names = BTreeMap::new();
    for model in placed(&fleet, served, settings.models.is_empty())? {
        ensure_offer(&hub, &sender, &model.key(), &settings.ask, collateral_max).await?;
        tracing::info!(
            model = model.name, root = %model.model_root, id = %model.key().id(),
            devices = fleet.holders(&model.model_root).join(", "), neuron = %me, "serving"
        );
        names.insert(model.model_root, (model.key().id(), model.name));
    }
    Ok(Neuron {
        hub,
        sender,
        journal,
        fleet,
        results,
        names,
        receipts: data.receipts(),
        computing: Default::default(),
        faults: Default::default(),
        gathering: super::batch::Gathering::new(settings.batch_wait),
        height: 0,
        grace: settings.finish,
        is_ending: false,
        monitor: Default::default(),
    })
}

/// Where the GPUs' figures come from; without NVML they go without.
fn health(places: &[Place]) -> Option<Box<dyn Health>> {
    if !places.iter().any(|p| p.is_gpu) {
        return None;
    }
    match FromNvml::open() {
        Ok(nvml) => Some(Box::new(nvml)),
        Err(why) => {
            tracing::warn!(
                "NVML is missing ({why}): no temperatures, watts or clocks, and no stop for heat; mining goes on. It comes \
                 with the driver (libnvidia-ml.so.1)"
            );
            None
        }
    }
}

/// The models that a device holds. One that none does is an error; where all were meant it is left out instead.
fn placed(fleet: &Fleet, served: Vec<Listed>, all: bool) -> Result<Vec<Listed>, Failure> {
    let mut placed = Vec::new();
    let mut last = None;
    for model in served {
        let Some(why) = fleet.refusal(&model.model_root) else {
            placed.push(model);
            continue;
        };
        let failure = Failure::NoRoom(format!("no device holds model {}: {why}", model.name));
        if !all {
            return Err(failure);
        }
        tracing::warn!("{failure}; not served");
        last = Some(failure);
    }
    match last {
        Some(failure) if placed.is_empty() => Err(failure),
        _ => Ok(placed),
    }
}

/// The models to serve: the named ones, which the chain must list as they are, or all that it lists so.
async fn choose(data: &DataDir, hub: &Hub, named: &[String]) -> Result<Vec<Listed>, Failure> {
    let all = named.is_empty();
    let names = if all {
        models::list(data)?
            .into_iter()
            .map(|m| m.map(|m| m.name))
            .collect::<Result<Vec<_>, _>>()?
    } else {
        named.to_vec()
    };
    let mut served = Vec::new();
    let mut last = None;
    for name in names {
        let (model, _) = models::open(data, Some(&name))?;
        match unlisted(hub, &model.key()).await? {
            None => served.push(model),
            Some(why) => {
                let failure = Failure::Unlisted {
                    root: model.model_root,
                    name,
                    why,
                };
                if !all {
                    return Err(failure);
                }
                tracing::warn!("{failure}");
                last = Some(failure);
            }
        }
    }
    match (served.is_empty(), last) {
        (false, _) => Ok(served),
        (true, Some(failure)) => Err(failure),
        (true, None) => Err(Failure::NoModel {
            name: "imported".into(),
            dir: data.models(),
            have: "none".into(),
        }),
    }
}

/// Part of the stake that one job may lock at most.
const COLLATERAL_PARTS: u64 = 8;

/// Refuses a stake below the hub's minimum, after adding what `up_to` allows. Gives what one job may lock.
async fn ensure_stake(
    hub: &Hub,
    sender: &Sender,
    journal: &Journal,
    up_to: Option<U256>,
) -> Result<U256, Failure> {
    let who = sender.address();
    let params = hub
        .params()
        .await
        .map_err(|e| e.into_failure("reading the hub's constants"))?;
    let want: U256 = params.minStake.to();
    // A run that was killed may have staked already, without having seen it.
    stake::settle(hub, sender, journal).await?;
    let mut have = stake::staked(hub, who).await?;
    if let Some(target) = up_to
        && have < target
    {
        tracing::info!(wei = %(target - have), "staking");
        stake::add_journalled(hub, sender, journal, target - have).await?;
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
    model: &ModelKey,
    ask: &Ask,
    collateral_max: U256,
) -> Result<(), Failure> {
    let offers = hub
        .offers(model)
        .await
        .map_err(|e| e.into_failure("reading offers"))?;
    let stands = offers.iter().any(|o| {
        o.neuron == sender.address()
            && o.askBase.to::<U256>() == ask.per_job
            && (o.askPerInput, o.askPerOutput) == (ask.per_input, ask.per_output)
    });
    if !stands {
        sender
            .execute(
                &hub.serve(model, ask, collateral_max),
                "offering the model",
                stake::INCLUSION_TIMEOUT,
            )
            .await?;
    }
    Ok(())
}
