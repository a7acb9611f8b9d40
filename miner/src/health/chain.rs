//! What the chain says: nodes, height, clock, contracts, the registry, stake, balance, offers.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, U256};

use super::Report;
use crate::{
    chain::{Hub, Node},
    cli::DoctorArgs,
    config::{Chain, Layers},
    datadir::DataDir,
    exit::Failure,
    models::Listed,
    published, registration, status,
};

/// Bitcoin blocks that a node may be behind its own tip: executing takes a moment.
const LAG: u64 = 2;
/// Seconds that a Bitcoin block's time may be ahead of true time by consensus.
const AHEAD: u64 = 2 * 3600;
/// Seconds without a block after which something is wrong with the node or the clock.
const SILENT: u64 = 4 * 3600;
/// Gas of one job's three transactions, alone (benches/results has 277,820).
const GAS_A_JOB: u64 = 300_000;
/// Jobs that a balance should last for.
const JOBS: u64 = 20;

/// All lines about the chain.
pub(super) async fn check(
    report: &mut Report,
    data: &DataDir,
    layers: &Layers,
    args: &DoctorArgs,
    who: Option<Address>,
    models: &[Listed],
) {
    let chain = layers.chain(&args.chain);
    if !nodes(report, &chain).await {
        return;
    }
    let hub = match Hub::connect(&chain).await {
        Ok(hub) => hub,
        Err(failure) => return report.fault("contracts", failure),
    };
    report.ok(
        "contracts",
        format!("hub {} on chain {}", hub.address(), hub.node().chain_id()),
    );
    clock(report, &hub).await;
    listed(report, &hub, models).await;
    let Some(who) = who else { return };
    if let Err(failure) = published::refuse(who, hub.node().chain_id()) {
        report.fault("key", failure);
    }
    neuron(report, data, &hub, who).await;
}

/// A line for each node; true where one can be used. The last failure counts where none can.
async fn nodes(report: &mut Report, chain: &Chain) -> bool {
    let mut failures = Vec::new();
    let mut usable = 0;
    for url in &chain.nodes {
        let one = Chain {
            nodes: vec![url.clone()],
            ..chain.clone()
        };
        let asked = async {
            let node = Node::connect(&one).await?;
            node.status().await.map_err(|e| e.into_failure("bitai_status"))
        };
        match asked.await {
            Err(failure) => failures.push(failure),
            Ok(status) => {
                usable += 1;
                let lag = status.bitcoin_tip.saturating_sub(status.bitcoin_height);
                let words = format!(
                    "{url} on chain {} ({}), height {}, Bitcoin {} of {}",
                    status.chain_id, status.network, status.height, status.bitcoin_height, status.bitcoin_tip
                );
                if lag > LAG {
                    report.warn("node", format!("{words}: {lag} blocks behind; wait until it has caught up, or name another with --node"));
                } else {
                    report.ok("node", words);
                }
            }
        }
    }
    for failure in failures {
        if usable > 0 {
            report.warn("node", failure.to_string());
        } else {
            report.fault("node", failure);
        }
    }
    usable > 0
}

async fn clock(report: &mut Report, hub: &Hub) {
    let time = match hub.node().time().await {
        Ok(Some(time)) => time,
        Ok(None) => return,
        Err(e) => return report.fault("clock", e.into_failure("the newest block")),
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    match judge_clock(now, time) {
        Ok(words) => report.ok("clock", words),
        Err(why) => report.warn("clock", why),
    }
}

/// Compares this machine's clock with the newest block's time, both in seconds since 1970.
fn judge_clock(now: u64, block: u64) -> Result<String, String> {
    if block > now.saturating_add(AHEAD) {
        return Err(format!(
            "the newest block is {} s ahead of this machine's clock, which is slow; set it (timedatectl set-ntp true)",
            block - now
        ));
    }
    let age = now.saturating_sub(block);
    if age > SILENT {
        return Err(format!(
            "the newest block is {} minutes old: the node is behind, blocks are slow, or this clock is fast; compare it with `bitcoin-cli getblockchaininfo`",
            age / 60
        ));
    }
    Ok(format!("the newest block is {} minutes old", age / 60))
}

async fn listed(report: &mut Report, hub: &Hub, models: &[Listed]) {
    let (mut lists, mut refused) = (false, Vec::new());
    for model in models {
        match registration::unlisted(hub, &model.key()).await {
            Err(failure) => return report.fault("registry", failure),
            Ok(None) => {
                lists = true;
                report.ok("registry", format!("lists {}", model.name));
            }
            Ok(Some(why)) => refused.push(Failure::Unlisted {
                name: model.name.clone(),
                root: model.model_root,
                why,
            }),
        }
    }
    for failure in refused {
        // One model that is served is enough to earn.
        if lists {
            report.warn("registry", failure.to_string());
        } else {
            report.fault("registry", failure);
        }
    }
}

async fn neuron(report: &mut Report, data: &DataDir, hub: &Hub, who: Address) {
    let standing = match status::standing(data, hub, who).await {
        Ok(standing) => standing,
        Err(failure) => return report.fault("stake", failure),
    };
    if !standing.strays.is_empty() {
        let ids = standing.strays.join(", ");
        report.fault("offers", Failure::Stray { ids });
    } else if standing.serves.is_empty() {
        report.warn(
            "offers",
            "none: no job can be drawn for it; bitai-miner run makes them",
        );
    } else {
        report.ok("offers", format!("serves {}", standing.serves.join(", ")));
    }
    if standing.stake < standing.stake_min {
        report.fault(
            "stake",
            Failure::Stake {
                who,
                have: standing.stake,
                want: standing.stake_min,
            },
        );
    } else {
        report.ok(
            "stake",
            format!("{} wei, {} locked by open jobs", standing.stake, standing.locked),
        );
    }
    let price = match price(hub).await {
        Ok(price) => price,
        Err(failure) => return report.fault("balance", failure),
    };
    let a_job = price.saturating_mul(U256::from(GAS_A_JOB));
    let words = format!("{} wei; gas of a job alone is about {a_job}", standing.balance);
    if standing.balance.is_zero() || standing.balance < a_job {
        let want = a_job.max(U256::ONE);
        report.fault(
            "balance",
            Failure::Balance {
                who,
                have: standing.balance,
                want,
            },
        );
    } else if standing.balance < a_job.saturating_mul(U256::from(JOBS)) {
        report.warn(
            "balance",
            format!("{words}: enough for fewer than {JOBS}; send coins to {who}"),
        );
    } else {
        report.ok("balance", words);
    }
}

/// Wei for a gas now: the base fee, and what pays the inscriber's satoshis.
async fn price(hub: &Hub) -> Result<U256, Failure> {
    let node = hub.node();
    let base = node
        .base_fee()
        .await
        .map_err(|e| e.into_failure("the base fee"))?;
    let tip: U256 = node
        .request("eth_maxPriorityFeePerGas", ())
        .await
        .map_err(|e| e.into_failure("eth_maxPriorityFeePerGas"))?;
    Ok(base.saturating_add(tip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told() {
        let now = 1_800_000_000;
        assert!(judge_clock(now, now - 600).is_ok());
        // Bitcoin allows a block two hours ahead.
        assert!(judge_clock(now, now + 7_000).is_ok());
        assert!(judge_clock(now, now + 10_000).unwrap_err().contains("slow"));
        assert!(judge_clock(now, now - 20_000).unwrap_err().contains("fast"));
    }
}
