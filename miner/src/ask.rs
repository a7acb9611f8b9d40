//! `ask`: posts a paid job and waits for the answer. Tokenizer and template run here, outside the proof.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use bitai_contracts::{JobStatus, ModelKey};
use bitai_poc::TraceRoot;
use bitai_types::Job;
use serde::Serialize;

use crate::{
    chain::{Hub, Sender, hub::status_of},
    cli::AskArgs,
    config::Layers,
    datadir::DataDir,
    embed::Embedding,
    exit::Failure,
    infer, models, stake, wallet,
};

/// Fee where nobody quotes one: 10^-3 coin. The job then waits for somebody who takes it.
pub const DEFAULT_FEE_WEI: u64 = 1_000_000_000_000_000;
/// How often the job is looked at.
const POLL: Duration = Duration::from_millis(500);

/// A transaction of a job, with how it got onto Bitcoin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leg {
    /// What it did.
    pub step: String,
    /// BitAI transaction.
    pub tx: B256,
    /// BitAI height.
    pub height: u64,
    /// Gas it used.
    pub gas: u64,
    /// Bitcoin transaction that funded the inscription.
    pub commit_txid: Option<String>,
    /// Bitcoin transaction that holds it.
    pub reveal_txid: Option<String>,
    /// Bitcoin height.
    pub bitcoin_height: Option<u64>,
    /// Virtual bytes of both, for the whole batch.
    pub vbytes: Option<u64>,
    /// Transactions that shared the batch.
    pub batch: Option<u32>,
}

/// A job's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// Its number.
    pub job_id: U256,
    /// Who answered.
    pub neuron: Address,
    /// The answer: ids, or the words of an embedding.
    pub output_ids: Vec<u32>,
    /// Root over everything computed.
    pub trace_root: TraceRoot,
    /// Every transaction, in order.
    pub legs: Vec<Leg>,
}

/// The fee for a job where none was named: what enough neurons take now and a tenth more, since they may change
/// their price until the draw.
pub async fn fee(hub: &Hub, model: &ModelKey, job: &Job, neurons: u8) -> Result<U256, Failure> {
    let least = hub
        .quote(model, job, neurons)
        .await
        .map_err(|e| e.into_failure("asking for a price"))?;
    if least.is_zero() {
        tracing::warn!("nobody who could be drawn quotes a price for this job now");
        return Ok(U256::from(DEFAULT_FEE_WEI));
    }
    Ok(least.saturating_add(least / U256::from(10)))
}

/// Posts a job on `model` for `fee` wei; gives its number and the transaction.
pub async fn post(
    hub: &Hub,
    sender: &Sender,
    model: &ModelKey,
    job: &Job,
    neurons: u8,
    fee: U256,
) -> Result<(U256, B256), Failure> {
    stake::check_balance(hub, sender.address(), fee).await?;
    let call = hub.infer(model, job, neurons, fee);
    let receipt = sender
        .execute(&call, "posting the job", stake::INCLUSION_TIMEOUT)
        .await?;
    let posted = receipt.inner.logs().iter().find_map(|log| {
        let event = log.log_decode::<bitai_contracts::WorkerHub::JobPosted>().ok()?;
        Some(event.inner.data.jobId)
    });
    let job_id = posted.ok_or_else(|| Failure::Transaction {
        what: "posting the job".into(),
        why: "executed, but the hub emitted no JobPosted".into(),
    })?;
    Ok((job_id, receipt.transaction_hash))
}

/// How often the client calls out a window that closed on silence.
const CALL_OUT_EVERY: Duration = Duration::from_secs(10);

/// Waits until a job is paid; `on_status` hears each state once. Where a window has closed on silence, `payer`
/// says so to the hub, which redraws or refunds: nobody else may care to.
pub async fn wait(
    hub: &Hub,
    job_id: U256,
    payer: Option<&Sender>,
    timeout: Duration,
    on_status: &mut dyn FnMut(JobStatus),
) -> Result<(), Failure> {
    let started = Instant::now();
    let mut last = None;
    let mut called_out = Instant::now();
    loop {
        let job = hub
            .job(job_id)
            .await
            .map_err(|e| e.into_failure("reading the job"))?;
        if let Some(job) = job {
            let status = status_of(&job);
            if last != Some(status) {
                on_status(status);
                last = Some(status);
            }
            match status {
                JobStatus::Settled => return Ok(()),
                JobStatus::Refunded => {
                    return Err(Failure::Unanswered {
                        job: job_id,
                        why: "refunded: nobody answered it".into(),
                    });
                }
                _ => {}
            }
            if let Some(payer) = payer
                && called_out.elapsed() > CALL_OUT_EVERY
            {
                called_out = Instant::now();
                call_out(hub, payer, job_id, job.deadline, status).await?;
            }
        }
        if started.elapsed() > timeout {
            return Err(Failure::Unanswered {
                job: job_id,
                why: format!("not settled within {} s (state: {last:?})", timeout.as_secs()),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Calls out a window that has closed on silence; whatever the hub then says is no failure.
pub(crate) async fn call_out(
    hub: &Hub,
    payer: &Sender,
    job_id: U256,
    deadline: u64,
    status: JobStatus,
) -> Result<(), Failure> {
    let height = hub
        .node()
        .height()
        .await
        .map_err(|e| e.into_failure("eth_blockNumber"))?;
    let waits = matches!(
        status,
        JobStatus::Open | JobStatus::Committing | JobStatus::Revealing
    );
    if waits && height > deadline {
        match payer.send(&hub.timeout(job_id)).await {
            Ok(signed) => tracing::info!(job = %job_id, tx = %signed.hash, "called out the silent"),
            // The hub knows best whether the window has closed.
            Err(e) => tracing::debug!(job = %job_id, "not called out: {}", e.into_failure("timeout")),
        }
    }
    Ok(())
}

/// Every transaction of a job with its inscription.
pub async fn legs(hub: &Hub, job_id: U256) -> Result<Vec<Leg>, Failure> {
    let mut legs = Vec::new();
    for flow in hub
        .flow(job_id)
        .await
        .map_err(|e| e.into_failure("reading the job's events"))?
    {
        let receipt = hub
            .node()
            .receipt(flow.tx)
            .await
            .map_err(|e| e.into_failure("reading a receipt"))?;
        let way = hub
            .node()
            .inscription(flow.tx)
            .await
            .map_err(|e| e.into_failure("bitai_getInscription"))?;
        legs.push(Leg {
            step: flow.event.to_owned(),
            tx: flow.tx,
            height: flow.height,
            gas: receipt.map_or(0, |r| r.gas_used),
            commit_txid: way.as_ref().and_then(|w| w.commit_txid.clone()),
            reveal_txid: way.as_ref().and_then(|w| w.reveal_txid.clone()),
            bitcoin_height: way.as_ref().and_then(|w| w.bitcoin_height),
            vbytes: way.as_ref().and_then(|w| w.vbytes),
            batch: way.as_ref().and_then(|w| w.batch),
        });
    }
    Ok(legs)
}

/// A settled job's answer and transactions.
pub async fn answer(hub: &Hub, job_id: U256) -> Result<Answered, Failure> {
    let revealed = hub
        .revealed(job_id)
        .await
        .map_err(|e| e.into_failure("reading the answers"))?;
    let Some(first) = revealed.into_iter().next() else {
        return Err(Failure::Unanswered {
            job: job_id,
            why: "nobody has revealed an answer".into(),
        });
    };
    Ok(Answered {
        job_id,
        neuron: first.neuron,
        output_ids: first.output_ids,
        trace_root: first.trace_root.into(),
        legs: legs(hub, job_id).await?,
    })
}

/// Prints the transactions of a job, a block each.
pub fn print_legs(legs: &[Leg]) {
    let or_dash = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".into());
    for leg in legs {
        println!("{:<16} {:#x}", leg.step, leg.tx);
        println!("                 BitAI height {}, gas {}", leg.height, leg.gas);
        println!("                 Bitcoin commit {}", or_dash(&leg.commit_txid));
        println!("                 Bitcoin reveal {}", or_dash(&leg.reveal_txid));
        let number = |n: Option<u64>| n.map_or_else(|| "-".into(), |n| n.to_string());
        println!(
            "                 Bitcoin height {}, {} vbytes inscribed{}",
            number(leg.bitcoin_height),
            number(leg.vbytes),
            match leg.batch {
                Some(n) if n > 1 => format!(" (shared by {n} transactions)"),
                _ => String::new(),
            }
        );
    }
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, args: &AskArgs) -> Result<(), Failure> {
    let (model, pack) = models::open(data, args.model.as_deref())?;
    let tokenizer = models::tokenizer(&pack)?;
    let job = infer::job_for(&model, &tokenizer, &args.prompt, args.embed, &args.sampling)?;
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let signer = wallet::open_on(
        data,
        &layers.key(&args.key, &args.chain, true),
        hub.node().chain_id(),
    )?;
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let fee = match args.fee {
        Some(fee) => fee,
        None => fee(&hub, &model.key(), &job, args.neurons).await?,
    };
    let spinner = crate::progress::spinner("posting the job");
    let result = async {
        let (job_id, tx) = post(&hub, &sender, &model.key(), &job, args.neurons, fee).await?;
        if args.no_wait {
            return Ok((job_id, tx, None));
        }
        spinner.set_message(format!("job {job_id} posted"));
        let timeout = Duration::from_secs(args.timeout_s);
        wait(&hub, job_id, Some(&sender), timeout, &mut |s| {
            spinner.set_message(format!("job {job_id}: {s:?}"))
        })
        .await?;
        Ok::<_, Failure>((job_id, tx, Some(answer(&hub, job_id).await?)))
    }
    .await;
    spinner.finish_and_clear();
    let (job_id, tx, answered) = result?;
    let embedding = answered
        .as_ref()
        .filter(|_| args.embed)
        .map(|a| Embedding::of(&a.output_ids));
    let text = answered
        .as_ref()
        .filter(|_| !args.embed)
        .map(|a| infer::text(&tokenizer, &a.output_ids))
        .transpose()?;
    if args.json {
        let mut object =
            serde_json::json!({ "job_id": job_id.to_string(), "tx": tx, "text": text, "answer": answered });
        if args.embed {
            object["embedding"] = serde_json::json!(embedding);
        }
        println!("{object}");
        return Ok(());
    }
    if let Some(answered) = answered {
        match &embedding {
            Some(embedding) => println!("embedding        {embedding}\n"),
            None => println!("{}\n", text.unwrap_or_default()),
        }
        println!("trace root       {}", answered.trace_root);
        println!("neuron           {}", answered.neuron);
        print_legs(&answered.legs);
        println!("check it         bitai-miner verify {job_id}");
    } else {
        println!("job {job_id}, transaction {tx:#x}");
    }
    Ok(())
}
