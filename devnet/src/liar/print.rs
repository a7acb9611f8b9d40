//! `--liar`: one lie from the prompt to the verdict, printed.

use std::sync::Arc;

use bitai_miner::{Failure, chain::Sender, cli::SamplingArgs, config, infer, models};
use bitai_types::{Job, Sampler};

use super::{Kind, Played, play, validator};
use crate::{
    Devnet,
    accounts::{Account, in_coins},
};

/// How a job draws whose draws are lied about, where its flags say greedy: temperature 0.8, top-k 40, top-p 0.95.
const DRAWN: Sampler = Sampler {
    temperature_q16: 52_429,
    top_k: 40,
    top_p_q16: 62_259,
};

/// Plays a lie about a prompt and prints the game. Fails where another side lost than the one that lied.
pub async fn run(
    devnet: &Devnet,
    device: config::Device,
    prompt: &str,
    options: &SamplingArgs,
    kind: Kind,
) -> Result<(), Failure> {
    let (model, pack) = models::open(&devnet.data, Some(&devnet.model_that(false)?.name))?;
    let tokenizer = models::tokenizer(&pack)?;
    let mut job = infer::job_for(&model, &tokenizer, prompt, false, options)?;
    if kind == Kind::Draw && job.sampler.temperature_q16 == 0 {
        job.sampler = DRAWN;
    }
    println!("lie              {kind:?}");
    println!("prompt           {prompt}");
    if kind == Kind::Validator {
        return attested(devnet, &job).await;
    }
    let played = play(devnet, device, &job, kind).await?;
    print(&played);
    if played.is_as_expected() {
        return Ok(());
    }
    Err(Failure::Internal(anyhow::anyhow!(
        "the wrong side lost, or nobody: convicted {:?}, challengers that lost {:?}",
        played.report.convicted,
        played.report.lost
    )))
}

/// A validator that attests nothing, from the attestation to the slashing.
async fn attested(devnet: &Devnet, job: &Job) -> Result<(), Failure> {
    let as_account = |name| Sender::new(Arc::clone(devnet.hub.node()), Account::named(name).signer);
    let (liar, doubter, client) = (as_account("alice"), as_account("bob"), as_account("client"));
    let lazy = validator::lazy(devnet, job, (&liar, &doubter, &client)).await?;
    println!("job              {}", lazy.job_id);
    println!("attested         a root over nothing; asked for its entry it opened none");
    println!("                 {} blocks", lazy.blocks);
    println!(
        "verdict          CONVICTED: validator {} lost {} coins; {} asked and is due {}, its bond of {} among them",
        lazy.validator,
        in_coins(lazy.lost),
        doubter.address(),
        in_coins(lazy.due),
        in_coins(lazy.bond)
    );
    if lazy.lost.is_zero() || lazy.due <= lazy.bond {
        return Err(Failure::Internal(anyhow::anyhow!("the validator lost nothing")));
    }
    Ok(())
}

fn print(played: &Played) {
    let Played {
        job_id,
        claim,
        report,
        neuron,
        slashed,
        bond,
        took,
        ..
    } = played;
    println!("job              {job_id}");
    println!("claim            {claim}");
    println!();
    println!("{report}");
    println!("                 {:.1} s", took.as_secs_f32());
    match report.convicted {
        Some((who, _)) => println!(
            "verdict          CONVICTED: neuron {neuron} lost {} coins; challenger {who} is paid",
            in_coins(*slashed)
        ),
        None => println!("verdict          the claim of neuron {neuron} stands"),
    }
    for (who, _) in &report.lost {
        println!(
            "                 challenger {who} lost its bond of {} coins",
            in_coins(*bond)
        );
    }
}
