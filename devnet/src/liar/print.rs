//! `--liar`: one lie from the prompt to the verdict, printed.

use bitai_miner::{Failure, cli::SamplingArgs, config, infer, models};

use super::{Kind, Played, play};
use crate::{Devnet, accounts::in_coins};

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
    let job = infer::job_for(&model, &tokenizer, prompt, false, options)?;
    println!("lie              {kind:?}");
    println!("prompt           {prompt}");
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
