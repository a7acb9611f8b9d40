//! What a neuron needs before its first job: models, stake, offers, journal, device.

use std::{collections::BTreeMap, sync::Arc};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::U256;
use bitai_contracts::{Model, ModelKey};
use bitai_types::ModelShape;

use super::{Computer, Neuron};
use crate::{
    chain::{Hub, Sender},
    config::{self, Ask},
    datadir::DataDir,
    engine,
    exit::Failure,
    journal::Journal,
    models::{self, Listed},
    offers, stake,
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
    /// Where to compute.
    pub device: config::Device,
}

/// Makes everything ready: takes back offers for models that are not served, refuses a stake that is too small, loads
/// the models, offers to serve them.
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
    if !settings.keep_offers {
        let ids: Vec<_> = served.iter().map(|m| m.key().id()).collect();
        offers::withdraw_all_but(data, &hub, &sender, &ids).await?;
    }
    let collateral_max = ensure_stake(&hub, &sender, &journal, settings.stake).await?;
    let device = engine::device(settings.device)?;
    let (done, results) = tokio::sync::mpsc::unbounded_channel();
    let mut computers = BTreeMap::new();
    let mut names = BTreeMap::new();
    for model in served {
        let (_, pack) = models::open_root(data, &model.model_root)?;
        let computer = Computer::start(&pack, device.as_ref(), done.clone())?;
        ensure_offer(&hub, &sender, &model.key(), &settings.ask, collateral_max).await?;
        tracing::info!(
            model = model.name, root = %model.model_root, id = %model.key().id(),
            device = computer.device(), neuron = %me, "serving"
        );
        computers.insert(model.model_root, computer);
        names.insert(model.model_root, (model.key().id(), model.name));
    }
    Ok(Neuron {
        hub,
        sender,
        journal,
        computers,
        results,
        names,
        receipts: data.receipts(),
        computing: Default::default(),
        faults: Default::default(),
        height: 0,
    })
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

/// Why a pack with these numbers cannot be served on this chain; `None` where it can.
pub(crate) async fn unlisted(hub: &Hub, model: &ModelKey) -> Result<Option<String>, Failure> {
    let fail = |e: crate::chain::Refusal| e.into_failure("reading the model registry");
    if let Some(line) = hub.model(model).await.map_err(fail)? {
        return Ok(refusal(model, &line));
    }
    let others = hub.registrations(model.model_root).await.map_err(fail)?;
    Ok(Some(match others.last() {
        None => "the chain does not list it; register it".to_owned(),
        Some(other) => format!(
            "the chain lists this pack only with false numbers: {}. Register it with the pack's own",
            differences(model, other).join(", ")
        ),
    }))
}

/// What in a registry line keeps a pack from being served. The id already binds the numbers; that they are
/// compared once more costs nothing and would show a registry that makes its ids another way.
fn refusal(model: &ModelKey, line: &Model) -> Option<String> {
    let listed = ModelKey {
        model_root: line.modelRoot,
        spec_version: line.specVersion,
        shape: ModelShape {
            vocab: line.vocab,
            context: line.context,
            words: line.words,
        },
    };
    let differs = differences(model, &listed);
    if !differs.is_empty() {
        return Some(format!("the registry's line differs: {}", differs.join(", ")));
    }
    (line.retiredAt != 0).then(|| {
        format!(
            "retired by {} at height {}; whoever wants it served may register it again",
            line.owner, line.retiredAt
        )
    })
}

/// The fields in which a registration differs from a pack, in words.
fn differences(pack: &ModelKey, listed: &ModelKey) -> Vec<String> {
    let mut words = Vec::new();
    if pack.model_root != listed.model_root {
        words.push(format!(
            "root {:#x}, the pack has {:#x}",
            listed.model_root, pack.model_root
        ));
    }
    let (theirs, mine) = (listed.shape, pack.shape);
    for (field, theirs, mine) in [
        ("spec version", listed.spec_version, pack.spec_version),
        ("vocabulary", theirs.vocab, mine.vocab),
        ("context", theirs.context, mine.context),
        ("words", theirs.words, mine.words),
    ] {
        if theirs != mine {
            words.push(format!("{field} {theirs}, the pack has {mine}"));
        }
    }
    words
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

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256};

    use super::*;

    fn pack() -> ModelKey {
        ModelKey {
            model_root: B256::repeat_byte(1),
            spec_version: 0,
            shape: ModelShape {
                vocab: 512,
                context: 256,
                words: 0,
            },
        }
    }

    fn line(model: &ModelKey) -> Model {
        Model {
            modelRoot: model.model_root,
            owner: Address::repeat_byte(7),
            registeredAt: 1,
            retiredAt: 0,
            specVersion: model.spec_version,
            vocab: model.shape.vocab,
            context: model.shape.context,
            words: model.shape.words,
            bond: U256::ONE,
            sourceHash: B256::ZERO,
            uri: "u".into(),
        }
    }

    #[test]
    fn names_every_field_in_which_the_registry_differs_from_the_pack() {
        assert_eq!(refusal(&pack(), &line(&pack())), None);
        let false_numbers = ModelKey {
            spec_version: 3,
            shape: ModelShape {
                vocab: 7,
                context: 9,
                words: 4,
            },
            ..pack()
        };
        let why = refusal(&pack(), &line(&false_numbers)).unwrap();
        for words in [
            "spec version 3, the pack has 0",
            "vocabulary 7, the pack has 512",
            "context 9, the pack has 256",
            "words 4, the pack has 0",
        ] {
            assert!(why.contains(words), "{why}");
        }
        let mut other = line(&pack());
        other.modelRoot = B256::repeat_byte(2);
        assert!(refusal(&pack(), &other).unwrap().contains("root 0x0202"));
        let mut retired = line(&pack());
        retired.retiredAt = 44;
        assert!(refusal(&pack(), &retired).unwrap().contains("height 44"));
    }
}
