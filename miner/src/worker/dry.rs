//! `run --dry-run`: what a start would do and with what. The node is asked, nothing is sent and no password is needed.

use alloy_primitives::U256;

use super::Settings;
use crate::{
    chain::Hub, cli::RunArgs, config::Layers, datadir::DataDir, exit::Failure, models, offers,
    registration::unlisted, stake, wallet,
};

/// Runs the command.
pub(super) async fn run(
    data: &DataDir,
    layers: &Layers,
    args: &RunArgs,
    settings: &Settings,
) -> Result<(), Failure> {
    let keystore = wallet::choose(data, &layers.key(&args.key, &args.chain, false))?;
    let who = wallet::address(&keystore)?;
    println!("key          {who} ({})", keystore.display());
    println!(
        "device       {:?}, {} threads",
        settings.device.kind, settings.device.threads
    );
    let ask = &settings.ask;
    println!(
        "price        {} wei a job, {} a prompt id, {} a token",
        ask.per_job, ask.per_input, ask.per_output
    );
    let chain = layers.chain(&args.chain);
    println!("nodes        {}", chain.nodes.join(", "));
    let hub = Hub::connect(&chain).await?;
    println!("chain        {}, hub {}", hub.node().chain_id(), hub.address());

    let mut served = Vec::new();
    let mut last = None;
    for model in chosen(data, &settings.models)? {
        match unlisted(&hub, &model.key()).await? {
            None => served.push(model),
            Some(why) => {
                let failure = Failure::Unlisted {
                    name: model.name,
                    root: model.model_root,
                    why,
                };
                println!("not served   {failure}");
                last = Some(failure);
            }
        }
    }
    // `run` starts with what it can serve, except where models were named.
    if let Some(failure) = last
        && (served.is_empty() || !settings.models.is_empty())
    {
        return Err(failure);
    }
    let staked = stake_steps(&hub, who, settings.stake).await?;
    let ids: Vec<_> = served.iter().map(|m| m.key().id()).collect();
    for offer in offers::standing(data, &hub, who).await? {
        if !settings.keep_offers && !ids.contains(&offer.id) {
            println!("would send   a withdrawal of the offer for {offer}");
        }
    }
    for model in &served {
        let standing = hub.offers(&model.key()).await;
        let standing = standing.map_err(|e| e.into_failure("reading offers"))?;
        let stands = standing.iter().any(|o| {
            o.neuron == who
                && o.askBase.to::<U256>() == ask.per_job
                && (o.askPerInput, o.askPerOutput) == (ask.per_input, ask.per_output)
        });
        if stands {
            println!("serves       {}, its offer stands", model.name);
        } else {
            println!("would send   an offer for {}", model.name);
        }
    }
    if !staked.is_zero() {
        stake::check_balance(&hub, who, staked).await?;
    }
    println!("nothing was sent (--dry-run)");
    Ok(())
}

/// The models that are named, or all; by their manifests.
fn chosen(data: &DataDir, named: &[String]) -> Result<Vec<models::Listed>, Failure> {
    let all: Vec<_> = if named.is_empty() {
        models::list(data)?.into_iter().collect::<Result<_, _>>()?
    } else {
        named
            .iter()
            .map(|n| models::named(data, n))
            .collect::<Result<_, _>>()?
    };
    if all.is_empty() {
        return Err(Failure::NoModel {
            name: "imported".into(),
            dir: data.models(),
            have: "none".into(),
        });
    }
    Ok(all)
}

/// What would be staked; refuses a stake that would be too small all the same.
async fn stake_steps(
    hub: &Hub,
    who: alloy_primitives::Address,
    up_to: Option<U256>,
) -> Result<U256, Failure> {
    let params = hub
        .params()
        .await
        .map_err(|e| e.into_failure("reading the hub's constants"))?;
    let want: U256 = params.minStake.to();
    let have = stake::staked(hub, who).await?;
    let add = up_to.unwrap_or_default().saturating_sub(have);
    println!("stake        {have} wei, {want} needed");
    if !add.is_zero() {
        println!("would send   {add} wei as stake");
    }
    if have + add < want {
        return Err(Failure::Stake { who, have, want });
    }
    Ok(add)
}
