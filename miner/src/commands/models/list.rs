//! `models list`: the packs, what can hold them, and what the chain pays for them now.

use std::{collections::BTreeMap, time::Duration};

use alloy_primitives::{B256, U256};
use serde_json::{Value, json};

use crate::{
    chain::Hub,
    cli::ChainArgs,
    config::Layers,
    datadir::DataDir,
    exit::{Failure, short},
    health::{Machine, holds, look_within},
    models::{self, Listed},
};

/// Longest that driver and chain are waited for: the list is of use without them.
const PATIENCE: Duration = Duration::from_secs(3);
/// Heights that a price is the mean of.
const SPAN: u64 = 1_000;

/// What the chain paid for a model's jobs lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pay {
    jobs: u64,
    mean: U256,
}

/// Runs the command.
pub(super) async fn run(
    data: &DataDir,
    layers: &Layers,
    chain: &ChainArgs,
    json: bool,
) -> Result<(), Failure> {
    let (mut found, mut damaged) = (Vec::new(), None);
    for model in models::list(data)? {
        match model {
            Ok(model) => found.push(model),
            Err(e) => {
                eprintln!("bitai-miner: {e}");
                damaged = Some(e);
            }
        }
    }
    let ids: Vec<B256> = found.iter().map(|m| m.key().id()).collect();
    let asked = async {
        tokio::time::timeout(PATIENCE, pay(layers, chain, &ids))
            .await
            .ok()?
            .ok()
    };
    let (machine, pay) = tokio::join!(look_within(PATIENCE), asked);
    if json {
        let line = |m: &Listed| {
            let mut value = json!(m);
            value["fits"] = json!(places(machine.as_ref(), m));
            value["paid"] = paid(pay.as_ref(), m).map_or(
                Value::Null,
                |p| json!({ "jobs": p.jobs, "mean_wei": p.mean.to_string() }),
            );
            value
        };
        println!("{}", Value::from_iter(found.iter().map(line)));
    } else if found.is_empty() {
        println!(
            "no models in {}; fetch one: bitai-miner models pull smollm2",
            data.models().display()
        );
    }
    for m in found.iter().filter(|_| !json) {
        let fits = places(machine.as_ref(), m);
        println!(
            "{:<28} {}  {} layers  {} MiB  {:?}  fits {}{}",
            m.name,
            short(&m.model_root),
            m.layers,
            m.bytes >> 20,
            m.profile,
            if fits.is_empty() {
                "nothing here".into()
            } else {
                fits.join(", ")
            },
            words(pay.as_ref(), m),
        );
    }
    damaged.map_or(Ok(()), Err)
}

/// What of this machine holds a model.
fn places(machine: Option<&Machine>, model: &Listed) -> Vec<String> {
    let gpus = machine.into_iter().flat_map(|m| m.gpus.iter().flatten());
    let mut fits: Vec<String> = gpus
        .filter(|g| holds(g.memory, model))
        .map(|g| format!("GPU {}", g.index))
        .collect();
    if machine
        .and_then(|m| m.memory)
        .is_some_and(|memory| holds(memory, model))
    {
        fits.push("CPU".into());
    }
    fits
}

type Paid = BTreeMap<B256, Pay>;

fn paid(pay: Option<&Paid>, model: &Listed) -> Option<Pay> {
    pay?.get(&model.key().id()).copied()
}

fn words(pay: Option<&Paid>, model: &Listed) -> String {
    match (pay, paid(pay, model)) {
        (None, _) => String::new(),
        (Some(_), None) => format!("  no job paid in {SPAN} heights"),
        (Some(_), Some(p)) => format!("  {} wei a job (mean of {} in {SPAN} heights)", p.mean, p.jobs),
    }
}

/// What the last heights' jobs were paid, by model.
async fn pay(layers: &Layers, chain: &ChainArgs, ids: &[B256]) -> Result<Paid, Failure> {
    let hub = Hub::connect(&layers.chain(chain)).await?;
    let fail = |e: crate::chain::Refusal| e.into_failure("reading what was paid");
    let tip = hub.node().height().await.map_err(fail)?;
    let from = tip.saturating_sub(SPAN);
    let posted = hub.posted(ids, from, tip).await.map_err(fail)?;
    let models: BTreeMap<U256, B256> = posted.iter().map(|p| (p.job_id, p.model.id())).collect();
    Ok(means(&models, &hub.paid(from, tip).await.map_err(fail)?))
}

/// Means by model of what jobs were paid; jobs of other models do not count.
fn means(models: &BTreeMap<U256, B256>, paid: &[(U256, U256)]) -> Paid {
    let mut sums: BTreeMap<B256, (u64, U256)> = BTreeMap::new();
    for (job, wei) in paid {
        if let Some(model) = models.get(job) {
            let (jobs, sum) = sums.entry(*model).or_default();
            *jobs += 1;
            *sum = sum.saturating_add(*wei);
        }
    }
    let mean = |(jobs, sum): (u64, U256)| Pay {
        jobs,
        mean: sum / U256::from(jobs.max(1)),
    };
    sums.into_iter().map(|(id, sum)| (id, mean(sum))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pay_is_the_mean_of_a_models_own_jobs() {
        let (a, b) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let n = |n: u64| U256::from(n);
        let models = BTreeMap::from([(n(1), a), (n(2), a), (n(3), b)]);
        let found = means(&models, &[(n(1), n(10)), (n(2), n(30)), (n(9), n(500))]);
        assert_eq!(found, BTreeMap::from([(a, Pay { jobs: 2, mean: n(20) })]));
    }
}
