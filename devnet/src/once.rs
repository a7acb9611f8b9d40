//! `--once`: one job from prompt (or, with `--embed`, text) to payment, with everything that happened on the way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bitai_miner::{Failure, ask, chain::Sender, cli::SamplingArgs, embed::Embedding, infer, models, stake};

use crate::{
    Devnet,
    accounts::{Account, in_coins},
};

/// Longest wait for the payment.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Posts the prompt, waits until the neuron is paid, prints the answer and every transaction.
pub async fn run(devnet: &Devnet, prompt: &str, embed: bool, options: &SamplingArgs) -> Result<(), Failure> {
    let (model, pack) = models::open(&devnet.data, Some(&devnet.model_that(embed)?.name))?;
    let tokenizer = models::tokenizer(&pack)?;
    let job = infer::job_for(&model, &tokenizer, prompt, embed, options)?;
    let hub = &devnet.hub;
    let neuron = Account::named("neuron").address();
    let client = Sender::new(Arc::clone(hub.node()), Account::named("client").signer);
    let balance = || async {
        hub.node()
            .balance(neuron)
            .await
            .map_err(|e| e.into_failure("eth_getBalance"))
    };
    let before = balance().await?;
    let started = Instant::now();
    let fee = ask::fee(hub, &model.key(), &job, 1).await?;
    let (job_id, _) = ask::post(hub, &client, &model.key(), &job, 1, fee).await?;
    if embed {
        println!("job {job_id} posted: {} ids to embed", job.input_ids.len());
    } else {
        println!(
            "job {job_id} posted: {} prompt ids, at most {} new",
            job.input_ids.len(),
            job.max_new
        );
    }
    ask::wait(hub, job_id, Some(&client), TIMEOUT, &mut |s| {
        println!("{:>6.1} s  {s:?}", started.elapsed().as_secs_f32())
    })
    .await?;
    let answered = ask::answer(hub, job_id).await?;
    let after = balance().await?;
    println!();
    println!("prompt           {prompt}");
    if embed {
        println!("embedding        {}", Embedding::of(&answered.output_ids));
        println!(
            "tokens           {} in, {} words out",
            job.input_ids.len(),
            answered.output_ids.len()
        );
    } else {
        println!(
            "answer           {}",
            infer::text(&tokenizer, &answered.output_ids)?
        );
        println!(
            "tokens           {} in, {} out",
            job.input_ids.len(),
            answered.output_ids.len()
        );
    }
    println!("trace root       {}", answered.trace_root);
    println!();
    ask::print_legs(&answered.legs);
    println!();
    println!("miner            {neuron}");
    println!(
        "  stake          {} coins",
        in_coins(stake::staked(hub, neuron).await?)
    );
    println!("  before         {} coins ({before} wei)", in_coins(before));
    println!("  after          {} coins ({after} wei)", in_coins(after));
    let (sign, change) = if after >= before {
        ("+", after - before)
    } else {
        ("-", before - after)
    };
    println!("  change         {sign}{change} wei: fee share less the gas of its own transactions");
    println!("settled in       {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}
