//! Hub and registry as the miner uses them: typed reads and events, calldata for every step.

use std::sync::Arc;

use alloy::rpc::types::{Filter, Log, TransactionRequest};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use bitai_contracts::{
    Job as HubJob, JobStatus, ModelKey, Neuron, Offer, Params, Slot, SlotState, WorkerHub, explain_revert,
    job_from_spec, spec_from_job,
};
use bitai_types::{Job, ModelShape};

use super::{
    node::{Node, Refusal},
    send::Call,
};
use crate::{
    config::{Ask, Chain},
    exit::Failure,
};

/// Heights that one `eth_getLogs` spans at most; fewer where a node refuses that.
const LOG_SPAN: u64 = 5_000;

/// What a revert says, where the data is a known error.
pub fn revert_reason(data: Option<&Bytes>) -> Option<String> {
    explain_revert(data?)
}

/// A job as its event told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Its number.
    pub job_id: U256,
    /// Who pays.
    pub payer: Address,
    /// What is asked.
    pub job: Job,
    /// The registration that it names: what its payer and the hub took for the model's numbers.
    pub model: ModelKey,
    /// Neurons asked for.
    pub neurons: u8,
    /// Height of the event.
    pub height: u64,
    /// The transaction that posted it.
    pub tx: B256,
}

/// A revealed answer as its event told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revealed {
    /// Who answered.
    pub neuron: Address,
    /// Root over everything computed.
    pub trace_root: B256,
    /// The answer.
    pub output_ids: Vec<u32>,
    /// The transaction that revealed it.
    pub tx: B256,
}

/// A transaction that emitted an event of a job, with the event's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Event.
    pub event: &'static str,
    /// Transaction.
    pub tx: B256,
    /// Height.
    pub height: u64,
}

/// Hub and registry on one chain.
#[derive(Debug, Clone)]
pub struct Hub {
    node: Arc<Node>,
    hub: Address,
    pub(super) registry: Option<Address>,
}

impl Hub {
    /// Connects, checks the chain id, and that there is code where the contracts should be.
    pub async fn connect(chain: &Chain) -> Result<Self, Failure> {
        let node = Arc::new(Node::connect(chain).await?);
        let hub = chain.hub.ok_or_else(|| {
            Failure::Usage(
                "no hub address: name it with --hub (a devnet prints it), BITAI_HUB or config.toml".into(),
            )
        })?;
        for (what, flag, address) in [
            ("WorkerHub", "hub", Some(hub)),
            ("ModelRegistry", "registry", chain.registry),
        ] {
            let Some(address) = address else { continue };
            if node
                .code(address)
                .await
                .map_err(|e| e.into_failure("eth_getCode"))?
                .is_empty()
            {
                return Err(Failure::NoContract { what, address, flag });
            }
        }
        Ok(Self {
            node,
            hub,
            registry: chain.registry,
        })
    }

    /// The nodes.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The hub's address.
    pub fn address(&self) -> Address {
        self.hub
    }

    pub(super) async fn read<C: alloy::sol_types::SolCall>(
        &self,
        to: Address,
        call: C,
    ) -> Result<C::Return, Refusal> {
        let request = TransactionRequest {
            to: Some(TxKind::Call(to)),
            input: Bytes::from(call.abi_encode()).into(),
            ..Default::default()
        };
        let bytes = self.node.call(request).await?;
        C::abi_decode_returns(&bytes).map_err(|e| {
            Refusal::Down(Failure::Internal(anyhow::anyhow!(
                "{} returned what is not its type: {e}",
                C::SIGNATURE
            )))
        })
    }

    /// The hub's constants.
    pub async fn params(&self) -> Result<Params, Refusal> {
        self.read(self.hub, WorkerHub::paramsCall {}).await
    }

    /// A job, or `None` where there is none of that number.
    pub async fn job(&self, job_id: U256) -> Result<Option<HubJob>, Refusal> {
        match self.read(self.hub, WorkerHub::jobCall { jobId: job_id }).await {
            Ok(job) => Ok(Some(job)),
            Err(Refusal::Said { data: Some(data), .. }) if is_error::<WorkerHub::UnknownJob>(&data) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// A neuron's part in a job.
    pub async fn slot(&self, job_id: U256, neuron: Address) -> Result<Slot, Refusal> {
        self.read(
            self.hub,
            WorkerHub::slotCall {
                jobId: job_id,
                neuron_: neuron,
            },
        )
        .await
    }

    /// All parts of a job.
    pub async fn slots(&self, job_id: U256) -> Result<Vec<Slot>, Refusal> {
        self.read(self.hub, WorkerHub::assignedCall { jobId: job_id })
            .await
    }

    /// Who would be drawn now.
    pub async fn drawn(&self, job_id: U256) -> Result<Vec<Address>, Refusal> {
        self.read(self.hub, WorkerHub::drawnCall { jobId: job_id }).await
    }

    /// A neuron's account.
    pub async fn neuron(&self, who: Address) -> Result<Neuron, Refusal> {
        self.read(self.hub, WorkerHub::neuronCall { neuron_: who }).await
    }

    /// Everyone who serves a model.
    pub async fn offers(&self, model: &ModelKey) -> Result<Vec<Offer>, Refusal> {
        self.offers_by_id(model.id()).await
    }

    /// Everyone who serves the model of this id.
    pub async fn offers_by_id(&self, model_id: B256) -> Result<Vec<Offer>, Refusal> {
        self.read(self.hub, WorkerHub::offersCall { modelId: model_id })
            .await
    }

    /// Ids of the models that a neuron offers to serve now, whatever packs it has; the oldest offer first.
    pub async fn offered(&self, who: Address) -> Result<Vec<B256>, Refusal> {
        use alloy::sol_types::SolEvent;
        let filter = Filter::new()
            .address(self.hub)
            .event_signature(WorkerHub::Served::SIGNATURE_HASH)
            .topic2(who.into_word());
        let tip = self.node.height().await?;
        let mut ids = Vec::new();
        for log in self.events(filter, 0, tip).await? {
            if let Some(id) = log.topics().get(1)
                && !ids.contains(id)
            {
                ids.push(*id);
            }
        }
        let mut standing = Vec::new();
        for id in ids {
            // The lists decide: an offer may have been withdrawn since, or taken off by anyone.
            if self.offers_by_id(id).await?.iter().any(|o| o.neuron == who) {
                standing.push(id);
            }
        }
        Ok(standing)
    }

    /// Least fee for a job now, 0 where too few neurons can be drawn.
    pub async fn quote(&self, model: &ModelKey, job: &Job, neurons: u8) -> Result<U256, Refusal> {
        let call = WorkerHub::quoteCall {
            modelId: model.id(),
            inputs: u32::try_from(job.input_ids.len()).unwrap_or(u32::MAX),
            // What the neuron is paid for: tokens that it may generate, or words that it puts out.
            outputs: job.max_new.max(model.shape.words),
            k: neurons,
            collateral: alloy_primitives::Uint::ZERO,
        };
        self.read(self.hub, call).await
    }

    pub(super) async fn events(&self, filter: Filter, from: u64, to: u64) -> Result<Vec<Log>, Refusal> {
        let mut logs = Vec::new();
        let mut start = from;
        let mut span = LOG_SPAN;
        while start <= to {
            let end = to.min(start.saturating_add(span - 1));
            match self
                .node
                .logs(&filter.clone().from_block(start).to_block(end))
                .await
            {
                Ok(found) => {
                    logs.extend(found);
                    start = end + 1;
                }
                // Nodes differ in how many heights or results they give at once, and in the words for it.
                Err(Refusal::Said { .. }) if end > start => span = (end - start + 1).div_ceil(2),
                Err(e) => return Err(e),
            }
        }
        Ok(logs)
    }

    /// Jobs posted between two heights (inclusive) on the models of these ids; an event whose ids are malformed (the hub
    /// refuses them, so none should be) is skipped with a warning.
    pub async fn posted(&self, model_ids: &[B256], from: u64, to: u64) -> Result<Vec<Posted>, Refusal> {
        use alloy::sol_types::SolEvent;
        let filter = Filter::new()
            .address(self.hub)
            .event_signature(WorkerHub::JobPosted::SIGNATURE_HASH)
            .topic3(model_ids.to_vec());
        Ok(self
            .events(filter, from, to)
            .await?
            .iter()
            .filter_map(read_posted)
            .collect())
    }

    /// Jobs paid between two heights (inclusive) with the height of their payment, oldest first.
    pub async fn settled(&self, from: u64, to: u64) -> Result<Vec<(U256, u64)>, Refusal> {
        use alloy::sol_types::SolEvent;
        let filter = Filter::new()
            .address(self.hub)
            .event_signature(WorkerHub::JobSettled::SIGNATURE_HASH);
        let read = |log: &Log| {
            let event = log.log_decode::<WorkerHub::JobSettled>().ok()?.inner.data;
            Some((event.jobId, log.block_number?))
        };
        Ok(self
            .events(filter, from, to)
            .await?
            .iter()
            .filter_map(read)
            .collect())
    }

    /// What the jobs were paid that ended between two heights (inclusive), in wei, oldest first.
    pub async fn paid(&self, from: u64, to: u64) -> Result<Vec<(U256, U256)>, Refusal> {
        use alloy::sol_types::SolEvent;
        let filter = Filter::new()
            .address(self.hub)
            .event_signature(WorkerHub::JobSettled::SIGNATURE_HASH);
        let read = |log: &Log| {
            let event = log.log_decode::<WorkerHub::JobSettled>().ok()?.inner.data;
            Some((event.jobId, event.paid))
        };
        Ok(self
            .events(filter, from, to)
            .await?
            .iter()
            .filter_map(read)
            .collect())
    }

    /// Everything that was ever emitted about one job, oldest first.
    async fn job_logs(&self, job_id: U256) -> Result<Vec<Log>, Refusal> {
        let Some(job) = self.job(job_id).await? else {
            return Ok(Vec::new());
        };
        let filter = Filter::new().address(self.hub).topic1(B256::from(job_id));
        let tip = self.node.height().await?;
        self.events(filter, job.postedAt, tip).await
    }

    /// A job with its ids, from the event that posted it.
    pub async fn find(&self, job_id: U256) -> Result<Posted, Failure> {
        let logs = self
            .job_logs(job_id)
            .await
            .map_err(|e| e.into_failure("reading the job's events"))?;
        logs.iter()
            .find_map(read_posted)
            .ok_or(Failure::NoJob { job: job_id })
    }

    /// The answers revealed for a job.
    pub async fn revealed(&self, job_id: U256) -> Result<Vec<Revealed>, Refusal> {
        let logs = self.job_logs(job_id).await?;
        Ok(logs
            .iter()
            .filter_map(|log| Some(read_revealed(log)?.1))
            .collect())
    }

    /// Answers revealed between two heights (inclusive), with their jobs' numbers and heights, oldest first; one whose
    /// ids are malformed (the hub refuses them, so none should be) is left out.
    pub async fn reveals(&self, from: u64, to: u64) -> Result<Vec<(U256, Revealed, u64)>, Refusal> {
        use alloy::sol_types::SolEvent;
        let filter = Filter::new()
            .address(self.hub)
            .event_signature(WorkerHub::Revealed::SIGNATURE_HASH);
        let logs = self.events(filter, from, to).await?;
        let read = |log: &Log| {
            let (job, revealed) = read_revealed(log)?;
            Some((job, revealed, log.block_number?))
        };
        Ok(logs.iter().filter_map(read).collect())
    }

    /// Every transaction of a job in order, by the event that it emitted last.
    pub async fn flow(&self, job_id: U256) -> Result<Vec<Flow>, Refusal> {
        use alloy::sol_types::SolEvent;
        let names: [(B256, &'static str); 7] = [
            (WorkerHub::JobPosted::SIGNATURE_HASH, "infer"),
            (WorkerHub::JobAssigned::SIGNATURE_HASH, "assign"),
            (WorkerHub::Committed::SIGNATURE_HASH, "commit"),
            (WorkerHub::Revealed::SIGNATURE_HASH, "reveal"),
            (WorkerHub::NeuronTimedOut::SIGNATURE_HASH, "timeout"),
            (WorkerHub::JobSettled::SIGNATURE_HASH, "finalise"),
            (WorkerHub::JobRefunded::SIGNATURE_HASH, "refund"),
        ];
        let mut flow: Vec<Flow> = Vec::new();
        for log in self.job_logs(job_id).await? {
            let (Some(tx), Some(height), Some(topic)) =
                (log.transaction_hash, log.block_number, log.topic0())
            else {
                continue;
            };
            let Some((_, event)) = names.iter().find(|(hash, _)| hash == topic) else {
                continue;
            };
            match flow.iter_mut().find(|f| f.tx == tx) {
                // The first commit also draws: both names belong to one transaction.
                Some(known) if known.event == "assign" && *event == "commit" => {
                    known.event = "assign + commit"
                }
                Some(_) => {}
                None => flow.push(Flow { event, tx, height }),
            }
        }
        Ok(flow)
    }

    fn call_hub<C: alloy::sol_types::SolCall>(&self, call: C, value: U256) -> Call {
        Call {
            to: TxKind::Call(self.hub),
            data: call.abi_encode().into(),
            value,
        }
    }

    /// Posts a job for `fee` wei on the model that it names.
    pub fn infer(&self, model: &ModelKey, job: &Job, neurons: u8, fee: U256) -> Call {
        let spec = spec_from_job(job, model);
        let call = WorkerHub::inferCall {
            spec,
            k: neurons,
            collateral: alloy_primitives::Uint::ZERO,
        };
        self.call_hub(call, fee)
    }

    /// Binds an answer.
    pub fn commit(&self, job_id: U256, job_hash: B256, commitment: B256) -> Call {
        let call = WorkerHub::commitCall {
            jobId: job_id,
            jobHash: job_hash,
            commitment,
        };
        self.call_hub(call, U256::ZERO)
    }

    /// Publishes an answer.
    pub fn reveal(&self, job_id: U256, salt: B256, trace_root: B256, output_ids: &[u32]) -> Call {
        let call = WorkerHub::revealCall {
            jobId: job_id,
            salt,
            traceRoot: trace_root,
            outputIds: bitai_types::job::ids_to_bytes(output_ids).into(),
        };
        self.call_hub(call, U256::ZERO)
    }

    /// Where a neuron's answer to a job was committed: the job that leads the batch, and the place in it; zeros before.
    pub async fn committed_at(&self, job_id: U256, neuron: Address) -> Result<(U256, U256), Refusal> {
        let call = WorkerHub::committedAtCall {
            jobId: job_id,
            neuron_: neuron,
        };
        let at = self.read(self.hub, call).await?;
        Ok((at.lead, at.place))
    }

    /// Binds the answers of many jobs, packed ([`bitai_types::batch`]).
    pub fn commit_batch(&self, jobs: &[u8], job_hashes: B256, root: B256) -> Call {
        let call = WorkerHub::commitBatchCall {
            jobs: Bytes::copy_from_slice(jobs),
            jobHashes: job_hashes,
            root,
        };
        self.call_hub(call, U256::ZERO)
    }

    /// Publishes the answers beneath a node of a batch.
    pub fn reveal_batch(
        &self,
        lead: U256,
        salt: B256,
        node: u64,
        path: Vec<B256>,
        jobs: &[u8],
        answers: Vec<u8>,
    ) -> Call {
        let call = WorkerHub::revealBatchCall {
            lead,
            salt,
            node: U256::from(node),
            path,
            jobs: Bytes::copy_from_slice(jobs),
            answers: answers.into(),
        };
        self.call_hub(call, U256::ZERO)
    }

    /// Ends many jobs, packed.
    pub fn finalise_batch(&self, jobs: &[u8]) -> Call {
        let call = WorkerHub::finaliseBatchCall {
            jobs: Bytes::copy_from_slice(jobs),
        };
        self.call_hub(call, U256::ZERO)
    }

    /// Ends a job after its window.
    pub fn finalise(&self, job_id: U256) -> Call {
        self.call_hub(WorkerHub::finaliseCall { jobId: job_id }, U256::ZERO)
    }

    /// Acts on silence.
    pub fn timeout(&self, job_id: U256) -> Call {
        self.call_hub(WorkerHub::timeoutCall { jobId: job_id }, U256::ZERO)
    }

    /// Adds stake.
    pub fn stake(&self, wei: U256) -> Call {
        self.call_hub(WorkerHub::stakeCall {}, wei)
    }

    /// Offers to serve a model at a price, locking at most `collateral_max_wei` for one job.
    pub fn serve(&self, model: &ModelKey, ask: &Ask, collateral_max_wei: U256) -> Call {
        self.serve_id(model.id(), ask, collateral_max_wei)
    }

    /// The same for the model of this id.
    pub fn serve_id(&self, model_id: B256, ask: &Ask, collateral_max_wei: U256) -> Call {
        let call = WorkerHub::serveCall {
            modelId: model_id,
            askBase: alloy_primitives::Uint::saturating_from(ask.per_job),
            askPerInput: ask.per_input,
            askPerOutput: ask.per_output,
            collateralMax: alloy_primitives::Uint::saturating_from(collateral_max_wei),
        };
        self.call_hub(call, U256::ZERO)
    }

    /// Takes the sender's offer for a model back.
    pub fn unserve(&self, model_id: B256) -> Call {
        self.call_hub(WorkerHub::unserveCall { modelId: model_id }, U256::ZERO)
    }
}

/// Whether a refusal says that the sender offers no such model.
pub fn is_not_serving(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Said { data: Some(data), .. } if is_error::<WorkerHub::NotServing>(data))
}

pub(super) fn is_error<E: alloy::sol_types::SolError>(data: &Bytes) -> bool {
    data.get(..4) == Some(&E::SELECTOR)
}

fn read_posted(log: &Log) -> Option<Posted> {
    let decoded = log.log_decode::<WorkerHub::JobPosted>().ok()?;
    let event = &decoded.inner.data;
    match job_from_spec(&event.spec) {
        Ok(job) => Some(Posted {
            job_id: event.jobId,
            payer: event.payer,
            model: ModelKey {
                model_root: job.model_root,
                spec_version: job.spec_version,
                shape: ModelShape {
                    vocab: event.spec.vocab,
                    context: event.spec.context,
                    words: event.spec.words,
                },
            },
            job,
            neurons: event.k,
            height: log.block_number?,
            tx: log.transaction_hash?,
        }),
        Err(e) => {
            tracing::warn!(job = %event.jobId, error = %e, "a posted job has malformed ids");
            None
        }
    }
}

fn read_revealed(log: &Log) -> Option<(U256, Revealed)> {
    let event = log.log_decode::<WorkerHub::Revealed>().ok()?.inner.data;
    let revealed = Revealed {
        neuron: event.neuron,
        trace_root: event.traceRoot,
        output_ids: bitai_types::job::ids_from_bytes(&event.outputIds).ok()?,
        tx: log.transaction_hash?,
    };
    Some((event.jobId, revealed))
}

/// The status of a job as an enum; an unknown number is treated as over, so that nothing is sent for it.
pub fn status_of(job: &HubJob) -> JobStatus {
    JobStatus::from_u8(job.status).unwrap_or(JobStatus::Refunded)
}

/// The state of a slot as an enum.
pub fn state_of(slot: &Slot) -> SlotState {
    SlotState::from_u8(slot.state).unwrap_or(SlotState::None)
}
