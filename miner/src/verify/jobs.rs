//! `verify --jobs FROM..TO`: what a validator runs. Every job that was paid in a range of heights is computed
//! again and compared; one line a job.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U256};
use bitai_contracts::SlotState;
use serde::Serialize;

use super::{
    check::{Verdict, check},
    claim::Claim,
};
use crate::{
    chain::{Hub, hub::state_of},
    cli::Heights,
    config::{self, Chain},
    datadir::DataDir,
    engine::Loaded,
    exit::Failure,
    models,
};

/// What became of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every paid answer was computed as claimed.
    Ok,
    /// A paid answer was not.
    Mismatch,
    /// It was posted on a registration whose numbers are not the pack's.
    Misregistered,
    /// It could not be checked here: the model is missing, or no paid answer was found.
    Unchecked,
}

/// One job's line.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The job.
    pub job_id: U256,
    /// Height at which it was paid.
    pub height: u64,
    /// The outcome.
    pub outcome: Outcome,
    /// The finding in words.
    pub finding: String,
    /// Positions computed.
    pub positions: usize,
    /// What that took.
    pub seconds: f64,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outcome = match self.outcome {
            Outcome::Ok => "OK",
            Outcome::Mismatch => "MISMATCH",
            Outcome::Misregistered => "MISREGISTERED",
            Outcome::Unchecked => "UNCHECKED",
        };
        write!(f, "job {} height {} {outcome}", self.job_id, self.height)?;
        if self.positions != 0 {
            write!(f, " ({} positions in {:.2} s)", self.positions, self.seconds)?;
        }
        write!(f, ": {}", self.finding)
    }
}

/// A paid job and its paid answers.
struct Paid {
    job_id: U256,
    height: u64,
    claims: Vec<Claim>,
}

/// Re-checks every job paid in `heights`; `on_line` hears each as it is done, grouped by model. Ends with the
/// worst that was found: a mismatch, else a false registration, else what kept a job from being checked.
pub async fn check_range(
    data: &DataDir,
    hub: &Hub,
    device: config::Device,
    heights: Heights,
    on_line: &mut dyn FnMut(&Line),
) -> Result<(), Failure> {
    let fail = |e: crate::chain::Refusal| e.into_failure("reading paid jobs");
    let to = match heights.to {
        Some(to) => to,
        None => hub.node().height().await.map_err(fail)?,
    };
    let (mut wrong, mut misregistered) = (Vec::new(), Vec::new());
    let mut unchecked: Option<Failure> = None;
    // By model, so that each is loaded once.
    let mut by_model: BTreeMap<B256, Vec<Paid>> = BTreeMap::new();
    for (job_id, height) in hub.settled(heights.from, to).await.map_err(fail)? {
        let posted = hub.find(job_id).await?;
        let mut claims = Vec::new();
        for revealed in hub.revealed(job_id).await.map_err(fail)? {
            let slot = hub.slot(job_id, revealed.neuron).await.map_err(fail)?;
            if state_of(&slot) == SlotState::Paid {
                claims.push(Claim::of_reveal(data, hub, &posted, revealed));
            }
        }
        by_model.entry(posted.job.model_root).or_default().push(Paid {
            job_id,
            height,
            claims,
        });
    }
    for (root, jobs) in by_model {
        let mut loaded = models::open_root(data, &root).and_then(|(_, pack)| Loaded::new(&pack, device));
        for paid in &jobs {
            let line = match &mut loaded {
                Ok(loaded) => one(loaded, paid),
                Err(failure) => unable(paid, failure),
            };
            on_line(&line);
            match line.outcome {
                Outcome::Mismatch => wrong.push(paid.job_id.to_string()),
                Outcome::Misregistered => misregistered.push(paid.job_id.to_string()),
                Outcome::Unchecked | Outcome::Ok => {}
            }
            if line.outcome == Outcome::Unchecked && loaded.is_ok() {
                unchecked.get_or_insert(Failure::Unanswered {
                    job: paid.job_id,
                    why: line.finding,
                });
            }
        }
        if let Err(failure) = loaded {
            unchecked.get_or_insert(failure);
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::TraceRoot(format!(
            "paid answers that were not computed as claimed: job {}",
            wrong.join(", ")
        )));
    }
    if !misregistered.is_empty() {
        return Err(Failure::Misregistered(format!(
            "paid jobs that were posted on registrations with false numbers: job {}",
            misregistered.join(", ")
        )));
    }
    unchecked.map_or(Ok(()), Err)
}

fn unable(paid: &Paid, why: &Failure) -> Line {
    Line {
        job_id: paid.job_id,
        height: paid.height,
        outcome: Outcome::Unchecked,
        finding: why.to_string(),
        positions: 0,
        seconds: 0.0,
    }
}

/// All paid answers of one job. Neurons that are paid together gave one answer, so the first check serves them.
fn one(loaded: &mut Loaded, paid: &Paid) -> Line {
    let none = Failure::Unanswered {
        job: paid.job_id,
        why: "no paid answer found in its events".into(),
    };
    let mut line = unable(paid, &none);
    let mut seen: Vec<&Claim> = Vec::new();
    for claim in &paid.claims {
        if seen
            .iter()
            .any(|c| c.trace_root == claim.trace_root && c.output_ids == claim.output_ids)
        {
            continue;
        }
        seen.push(claim);
        match check(loaded, claim) {
            Err(failure) => return unable(paid, &failure),
            Ok(found) => {
                line.positions += found.positions;
                line.seconds += found.seconds;
                line.finding = found.words();
                line.outcome = match found.verdict() {
                    Verdict::Ok => Outcome::Ok,
                    Verdict::Mismatch => Outcome::Mismatch,
                    Verdict::Misregistered => Outcome::Misregistered,
                };
                if let (false, Some(who)) = (line.outcome == Outcome::Ok, claim.who) {
                    line.finding.push_str(&format!(" (neuron {who})"));
                    return line;
                }
            }
        }
    }
    line
}

/// Runs the command.
pub(super) async fn run(
    data: &DataDir,
    chain: &Chain,
    device: config::Device,
    heights: Heights,
    json: bool,
) -> Result<(), Failure> {
    let hub = Hub::connect(chain).await?;
    let mut count = 0u64;
    let result = check_range(data, &hub, device, heights, &mut |line| {
        count += 1;
        if json {
            println!("{}", serde_json::json!(line));
        } else {
            println!("{line}");
        }
    })
    .await;
    if count == 0 && !json {
        println!("no job was paid between these heights");
    }
    result
}
