//! `status`: where the neuron stands.

use alloy_primitives::{Address, U256};
use serde::Serialize;

use crate::{chain::Hub, cli::StatusArgs, config::Layers, datadir::DataDir, exit::Failure, offers, wallet};

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
        None => {
            // The key that `run` would take; a devnet's account only where there is no other.
            let own = wallet::choose(data, &layers.key(&args.key, &args.chain, false));
            let path = own.or_else(|_| wallet::choose(data, &layers.key(&args.key, &args.chain, true)))?;
            wallet::address(&path)
        }
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
