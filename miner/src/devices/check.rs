//! A sample of the GPUs' results, computed again on the processor in the background. Where they differ the plain loops
//! say who erred: a processor that does not agree with itself convicts nobody.

use std::{collections::BTreeMap, sync::mpsc, time::Duration};

use alloy_primitives::{B256, U256};
use bitai_kernels::cpu::CpuDevice;
use bitai_model::pack::Pack;
use bitai_poc::Transcript;
use bitai_types::Job;

use super::{Computed, Undone, crew::Crew, fleet::Msg};
use crate::{
    engine::{Loaded, kernel_failure},
    exit::Failure,
};

/// Results that may wait for their check; what comes while so many wait is not checked.
const WAITING: usize = 4;

/// A result to be checked.
pub(super) struct Task {
    /// Whose it is.
    pub(super) number: usize,
    pub(super) job_id: U256,
    pub(super) job: Job,
    pub(super) claimed: Transcript,
}

/// The checking thread; it ends with this, after its current check.
pub(super) struct Checker(mpsc::SyncSender<Task>);

impl Checker {
    /// Starts the thread.
    pub(super) fn start(
        packs: BTreeMap<B256, Pack>,
        threads: usize,
        fleet: mpsc::Sender<Msg>,
    ) -> Result<Self, Failure> {
        let (to, inbox) = mpsc::sync_channel::<Task>(WAITING);
        let mut bench = Bench {
            packs,
            threads: threads.max(1),
            loaded: None,
        };
        std::thread::Builder::new()
            .name("recheck".into())
            .spawn(move || {
                while let Ok(task) = inbox.recv() {
                    let verdict = bench.verdict(&task);
                    let msg = Msg::Checked {
                        number: task.number,
                        job_id: task.job_id,
                        job_hash: task.job.hash(),
                        verdict,
                    };
                    if fleet.send(msg).is_err() {
                        return;
                    }
                }
            })
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting the checking thread")))?;
        Ok(Self(to))
    }

    /// Puts a result in the queue; `false` where that is full.
    pub(super) fn offer(&self, task: Task) -> bool {
        self.0.try_send(task).is_ok()
    }
}

impl Crew {
    /// Has a result checked where one is due.
    pub(super) fn sample(&mut self, n: usize, job_id: U256, job: &Job, transcript: &Transcript) {
        let unit = &mut self.units[n];
        let (Some(checker), true) = (&self.checker, unit.place.is_gpu) else {
            return;
        };
        if unit.due >= 100 {
            let task = Task {
                number: n,
                job_id,
                job: job.clone(),
                claimed: transcript.clone(),
            };
            if checker.offer(task) {
                unit.due -= 100;
            } else {
                // The next one, then; more than one need not be made up for.
                unit.due = 100;
                return;
            }
        }
        unit.due += self.gpus.recheck_percent;
    }

    /// A result was computed again: a device that erred is paused, and its answer taken back.
    pub(super) fn checked(
        &mut self,
        n: usize,
        (job_id, job_hash): (U256, B256),
        verdict: Result<Option<String>, Failure>,
    ) {
        let unit = &mut self.units[n];
        match verdict {
            Ok(None) => {
                unit.faults.checked += 1;
                tracing::debug!(device = %unit.place, job = %job_id, "computed again on the processor: right");
            }
            Ok(Some(at)) => {
                unit.faults.checked += 1;
                unit.faults.wrong += 1;
                unit.wrong = Some(job_id.to_string());
                let why = format!(
                    "{} computed job {job_id} wrongly: {at} differ from the processor's",
                    unit.place
                );
                tracing::error!(
                    "{why}. It is paused: lower its clocks and power, test its memory (bitai-miner selftest --device cuda), then resume it"
                );
                unit.hold();
                self.move_jobs(n, true);
                // Nobody listens any more: the neuron is ending.
                let _ = self.done.send(Computed {
                    job_id,
                    job_hash,
                    result: Err(Undone::Wrong(why)),
                    took: Duration::ZERO,
                });
            }
            Err(failure) => {
                tracing::warn!(device = %unit.place, job = %job_id, "a result was not checked: {failure}");
            }
        }
    }
}

/// Where results are checked.
struct Bench {
    packs: BTreeMap<B256, Pack>,
    threads: usize,
    /// The model that was used last.
    loaded: Option<(B256, Loaded)>,
}

impl Bench {
    /// `None` where the result is right, else where it first differs.
    fn verdict(&mut self, task: &Task) -> Result<Option<String>, Failure> {
        let root = task.job.model_root;
        let pack = self
            .packs
            .get(&root)
            .ok_or_else(|| Failure::Internal(anyhow::anyhow!("no pack {root} to check with")))?;
        let mut loaded = match self.loaded.take() {
            Some((of, loaded)) if of == root => loaded,
            _ => {
                let cpu = CpuDevice::new(self.threads).map_err(|e| kernel_failure(&e))?;
                Loaded::on(pack, &cpu)?
            }
        };
        let outputs = task.claimed.outputs();
        let mine = loaded.recheck(&task.job, outputs, &mut |_| ())?;
        self.loaded = Some((root, loaded));
        let claimed = task
            .claimed
            .root()
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("a result's transcript")))?;
        if mine.trace_root == claimed {
            return Ok(None);
        }
        let plain = CpuDevice::portable(self.threads).map_err(|e| kernel_failure(&e))?;
        let second = Loaded::on(pack, &plain)?.recheck(&task.job, outputs, &mut |_| ())?;
        if second.trace_root != mine.trace_root {
            return Err(Failure::Device(
                "the processor computed one answer in two ways and got two results: its memory or clock is at fault"
                    .into(),
            ));
        }
        Ok(Some(differs(&task.claimed, &mine.transcript)))
    }
}

/// The first place where two transcripts of one job differ.
fn differs(claimed: &Transcript, right: &Transcript) -> String {
    let mut rows = claimed.body_roots().iter().zip(right.body_roots());
    if let Some(position) = rows.position(|(a, b)| a != b) {
        return format!("the rows of position {position}");
    }
    let mut ids = claimed.outputs().iter().zip(right.outputs());
    match ids.position(|(a, b)| a != b) {
        Some(token) => format!("output {token}"),
        None => "its length".into(),
    }
}
