//! `verify`: computes a claimed answer again as one prefill and compares trace roots; names the first token
//! that differs where the claimant's transcript is at hand.

use std::path::Path;

use alloy_primitives::{Address, U256};
use bitai_poc::{TraceRoot, Transcript, Verdict, recheck::compare};
use bitai_types::Job;
use serde::Serialize;

use crate::{
    chain::Hub, cli::VerifyArgs, config::Layers, datadir::DataDir, engine::Loaded, exit::Failure,
    infer::rate, models, receipt::Receipt,
};

/// An answer that someone claims.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What was asked.
    pub job: Job,
    /// The answer.
    pub output_ids: Vec<u32>,
    /// Root over everything computed.
    pub trace_root: TraceRoot,
    /// The claimant's transcript, where it is at hand.
    pub transcript: Option<Transcript>,
    /// Who claims it.
    pub who: Option<Address>,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Whether the answer was computed as claimed.
    pub ok: bool,
    /// The finding in words.
    pub finding: String,
    /// Who claims the answer.
    pub neuron: Option<Address>,
    /// The claimed root.
    pub claimed: TraceRoot,
    /// The root computed here, where a run was possible.
    pub computed: Option<TraceRoot>,
    /// Positions computed.
    pub positions: usize,
    /// Wall time.
    pub seconds: f64,
}

/// Checks one claim on a loaded model.
pub fn check(loaded: &mut Loaded, claim: &Claim) -> Result<Checked, Failure> {
    loaded.check(&claim.job)?;
    let finding = |ok, finding: String, computed, positions, seconds| Checked {
        ok,
        finding,
        neuron: claim.who,
        claimed: claim.trace_root,
        computed,
        positions,
        seconds,
    };
    let vocab = loaded.engine().program().vocab;
    if let Err(e) = claim.job.check_output(&claim.output_ids, vocab) {
        return Ok(finding(
            false,
            format!("no answer to this job: {e}"),
            None,
            0,
            0.0,
        ));
    }
    let run = loaded.recheck(&claim.job, &claim.output_ids)?;
    let verdict = compare(claim.trace_root, &run.transcript, claim.transcript.as_ref())
        .map_err(|e| Failure::Internal(anyhow::Error::new(e)))?;
    let mut words = verdict.to_string();
    // Other tokens than the claimed ones say where, even without the claimant's transcript.
    let other = run
        .transcript
        .outputs()
        .iter()
        .zip(&claim.output_ids)
        .position(|(mine, theirs)| mine != theirs);
    if verdict != Verdict::Same
        && let Some(at) = other
    {
        words.push_str(&format!(
            "; output token {at} should be {}, not {}",
            run.transcript.outputs()[at],
            claim.output_ids[at]
        ));
    }
    Ok(finding(
        verdict == Verdict::Same,
        words,
        Some(run.trace_root),
        run.transcript.body_roots().len(),
        run.took.as_secs_f64(),
    ))
}

/// The claims that are meant: those of a receipt file, or every answer revealed for a job.
async fn claims(layers: &Layers, args: &VerifyArgs) -> Result<Vec<Claim>, Failure> {
    let path = Path::new(&args.what);
    let job_id = args.what.parse::<U256>().ok().filter(|_| !path.exists());
    let Some(job_id) = job_id else {
        let receipt = Receipt::read(path)?;
        return Ok(vec![Claim {
            transcript: receipt.transcript(),
            job: receipt.job,
            output_ids: receipt.output_ids,
            trace_root: receipt.trace_root,
            who: None,
        }]);
    };
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let posted = hub.find(job_id).await?;
    let revealed = hub
        .revealed(job_id)
        .await
        .map_err(|e| e.into_failure("reading the answers"))?;
    if revealed.is_empty() {
        return Err(Failure::Unanswered {
            job: job_id,
            why: "nobody has revealed an answer yet".into(),
        });
    }
    let claim = |r: crate::chain::hub::Revealed| Claim {
        job: posted.job.clone(),
        output_ids: r.output_ids,
        trace_root: r.trace_root.into(),
        transcript: None,
        who: Some(r.neuron),
    };
    Ok(revealed.into_iter().map(claim).collect())
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, args: &VerifyArgs) -> Result<(), Failure> {
    let claims = claims(layers, args).await?;
    let Some(first) = claims.first() else {
        return Err(Failure::Internal(anyhow::anyhow!("no claim to check")));
    };
    let (model, pack) = models::open_root(data, &first.job.model_root)?;
    let mut loaded = Loaded::new(&pack, layers.device(&args.device))?;
    let mut wrong = None;
    for claim in &claims {
        let spinner = crate::progress::spinner("computing the answer again");
        let checked = check(&mut loaded, claim);
        spinner.finish_and_clear();
        let checked = checked?;
        if args.json {
            println!(
                "{}",
                serde_json::json!({ "model": model.name, "result": checked })
            );
        } else {
            print(&model.name, &loaded.info.name, claim, &checked);
        }
        if !checked.ok && wrong.is_none() {
            wrong = Some(checked.finding);
        }
    }
    wrong.map_or(Ok(()), |finding| Err(Failure::TraceRoot(finding)))
}

fn print(model: &str, device: &str, claim: &Claim, checked: &Checked) {
    if let Some(neuron) = claim.who {
        println!("neuron      {neuron}");
    }
    println!("model       {model} ({:#x})", claim.job.model_root);
    println!(
        "tokens      {} in, {} out",
        claim.job.input_ids.len(),
        claim.output_ids.len()
    );
    println!("claimed     {}", checked.claimed);
    if let Some(computed) = checked.computed {
        println!("computed    {computed}");
        println!(
            "speed       {:.1} positions/s in {:.1} s on {device}",
            rate(
                checked.positions,
                std::time::Duration::from_secs_f64(checked.seconds)
            ),
            checked.seconds
        );
    }
    println!(
        "verdict     {}",
        if checked.ok {
            "OK: same trace root"
        } else {
            checked.finding.as_str()
        }
    );
}
