//! `status` and `doctor`: where the neuron stands, and why it is not earning.

use alloy_primitives::{Address, U256};
use serde::Serialize;

use crate::{
    chain::Hub, cli::StatusArgs, config::Layers, datadir::DataDir, exit::Failure, models, offers,
    registration, wallet,
};

/// A neuron on a chain.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// The neuron.
    pub address: Address,
    /// Wei it holds.
    pub balance: U256,
    /// Wei at stake.
    pub stake: U256,
    /// Wei of the stake that open jobs hold.
    pub locked: U256,
    /// Least stake of a neuron that is drawn.
    pub stake_min: U256,
    /// Models it offers to serve: the name where the pack is in the data directory, else the id.
    pub serves: Vec<String>,
    /// Those that are not in the data directory: their jobs are lost, unless another machine answers them.
    pub strays: Vec<String>,
}

/// Reads a neuron's standing.
pub async fn standing(data: &DataDir, hub: &Hub, address: Address) -> Result<Standing, Failure> {
    let neuron = hub
        .neuron(address)
        .await
        .map_err(|e| e.into_failure("reading the stake"))?;
    let params = hub
        .params()
        .await
        .map_err(|e| e.into_failure("reading the hub's constants"))?;
    let (mut serves, mut strays) = (Vec::new(), Vec::new());
    for offer in offers::standing(data, hub, address).await? {
        if offer.name.is_none() {
            strays.push(offer.id.to_string());
        }
        serves.push(offer.name.unwrap_or_else(|| offer.id.to_string()));
    }
    Ok(Standing {
        address,
        balance: hub
            .node()
            .balance(address)
            .await
            .map_err(|e| e.into_failure("eth_getBalance"))?,
        stake: neuron.stake.to(),
        locked: neuron.locked.to(),
        stake_min: params.minStake.to(),
        serves,
        strays,
    })
}

fn address(data: &DataDir, layers: &Layers, args: &StatusArgs) -> Result<Address, Failure> {
    match args.address {
        Some(address) => Ok(address),
        None => wallet::address(&wallet::choose(data, &layers.key(&args.key, &args.chain, true))?),
    }
}

/// Runs `status`.
pub async fn run(data: &DataDir, layers: &Layers, args: &StatusArgs) -> Result<(), Failure> {
    let who = address(data, layers, args)?;
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let node = hub
        .node()
        .status()
        .await
        .map_err(|e| e.into_failure("bitai_status"))?;
    let neuron = standing(data, &hub, who).await?;
    if args.json {
        println!("{}", serde_json::json!({ "node": node, "neuron": neuron }));
        return Ok(());
    }
    println!(
        "node        {} (chain {}, Bitcoin {})",
        hub.node().url(),
        node.chain_id,
        node.network
    );
    println!(
        "height      {} (Bitcoin {}, tip {})",
        node.height, node.bitcoin_height, node.bitcoin_tip
    );
    println!("neuron      {}", neuron.address);
    println!("balance     {} wei", neuron.balance);
    println!(
        "stake       {} wei, {} locked, {} needed",
        neuron.stake, neuron.locked, neuron.stake_min
    );
    println!(
        "serves      {}",
        if neuron.serves.is_empty() {
            "nothing".into()
        } else {
            neuron.serves.join(", ")
        }
    );
    Ok(())
}

/// Runs `doctor`: checks in the order in which a neuron needs them; ends with the first failure's code.
pub async fn doctor(data: &DataDir, layers: &Layers, args: &StatusArgs) -> Result<(), Failure> {
    let mut first = None;
    let mut say = |what: &str, result: Result<String, Failure>| match result {
        Ok(words) => println!("ok    {what}: {words}"),
        Err(failure) => {
            println!("FAIL  {what}: {failure}");
            first.get_or_insert(failure);
        }
    };
    let mut healthy = Vec::new();
    for model in models::list(data)? {
        let checked = model.and_then(|m| models::open(data, Some(&m.name)));
        healthy.extend(checked.as_ref().ok().map(|(m, _)| m.clone()));
        say(
            "model",
            checked.map(|(m, _)| format!("{} matches its root {:#x}", m.name, m.model_root)),
        );
    }
    if healthy.is_empty() {
        let dir = data.models();
        say(
            "model",
            Err(Failure::NoModel {
                name: "imported".into(),
                dir,
                have: "none".into(),
            }),
        );
    }
    let who = address(data, layers, args);
    say(
        "key",
        who.as_ref()
            .map(ToString::to_string)
            .map_err(|e| Failure::Keystore {
                path: data.keys(),
                why: e.to_string(),
            }),
    );
    match Hub::connect(&layers.chain(&args.chain)).await {
        Err(failure) => say("node", Err(failure)),
        Ok(hub) => {
            let words = format!(
                "{} on chain {}, hub {}",
                hub.node().url(),
                hub.node().chain_id(),
                hub.address()
            );
            say("node", Ok(words));
            let (mut lists, mut refused) = (false, Vec::new());
            for model in &healthy {
                match registration::unlisted(&hub, &model.key()).await? {
                    None => {
                        lists = true;
                        say("registry", Ok(format!("lists {}", model.name)));
                    }
                    Some(why) => refused.push(Failure::Unlisted {
                        name: model.name.clone(),
                        root: model.model_root,
                        why,
                    }),
                }
            }
            for failure in refused {
                // One model that is served is enough to earn.
                let found = if lists {
                    Ok(failure.to_string())
                } else {
                    Err(failure)
                };
                say("registry", found);
            }
            if let Ok(who) = who {
                let standing = standing(data, &hub, who).await;
                let strays = standing.as_ref().map_or(Vec::new(), |s| s.strays.clone());
                if !strays.is_empty() {
                    say(
                        "offers",
                        Err(Failure::Stray {
                            ids: strays.join(", "),
                        }),
                    );
                }
                say(
                    "stake",
                    standing.and_then(|s| {
                        if s.stake < s.stake_min {
                            return Err(Failure::Stake {
                                who,
                                have: s.stake,
                                want: s.stake_min,
                            });
                        }
                        Ok(format!("{} wei, serves {}", s.stake, s.serves.join(", ")))
                    }),
                );
            }
        }
    }
    first.map_or(Ok(()), Err)
}
