//! What a running neuron shows of itself: the worker reports to a [`Monitor`], an HTTP server on loopback shows it.
//!
//! A report is a short lock and some additions; it waits for no reader of the network.

mod api;
mod metrics;
mod rates;
mod settings;
mod summary;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use alloy_primitives::U256;

pub use api::{Server, serve};
pub use rates::{Rates, Windows};
pub use settings::Settings;
pub use summary::{DeviceView, JobView, Jobs, Latencies, Latency, Summary, Work};

use crate::{devices::Devices, journal::Step};

/// Jobs of which single lines are kept; the oldest go first.
const JOBS_KEPT: usize = 256;

/// A handle on what one neuron has done; clones share it.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    devices: Devices,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    summary: Summary,
    answers: Rates,
    tokens: Rates,
    jobs: BTreeMap<U256, Tracked>,
}

#[derive(Debug)]
struct Tracked {
    view: JobView,
    /// What an end has added; taken back should a reorg open the job again.
    end: Option<End>,
    computed: Option<Duration>,
    committed: Option<Duration>,
    revealed: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Paid(U256),
    Refunded,
    Unpaid,
}

impl Default for Monitor {
    fn default() -> Self {
        Self::of(Devices::default())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl State {
    fn job(&mut self, job_id: U256) -> &mut Tracked {
        if !self.jobs.contains_key(&job_id) && self.jobs.len() >= JOBS_KEPT {
            self.jobs.pop_first();
        }
        self.jobs.entry(job_id).or_insert_with(|| Tracked {
            view: JobView {
                job_id,
                state: "open".into(),
                input_ids: 0,
                output_ids: None,
                earned_wei: None,
                trouble: None,
            },
            end: None,
            computed: None,
            committed: None,
            revealed: None,
        })
    }
}

impl Monitor {
    /// One that also shows these devices.
    pub fn of(devices: Devices) -> Self {
        Self(Arc::new(Shared {
            started: Instant::now(),
            devices,
            state: Mutex::default(),
        }))
    }

    fn devices(&self) -> Vec<DeviceView> {
        let faults = self.0.devices.faults();
        let readings = self.0.devices.readings();
        readings
            .into_iter()
            .map(|reading| {
                // A fleet that starts between the two calls shows its counts the next time.
                let faults = faults.iter().find(|(id, _)| *id == reading.id);
                DeviceView {
                    faults: faults.map(|(_, f)| *f).unwrap_or_default(),
                    reading,
                }
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters are whole whatever happened to their last user.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_start(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// The node answered: its newest height, and the jobs in hand.
    pub fn looked(&self, height: u64, open: usize) {
        let mut s = self.state();
        s.summary.height = Some(height);
        s.summary.node_fault = None;
        s.summary.jobs.open = open as u64;
    }

    /// The node did not answer, or refused.
    pub fn node_failed(&self, why: &impl ToString) {
        self.state().summary.node_fault = Some(why.to_string());
    }

    /// A job was given to a device.
    pub fn ordered(&self, job_id: U256, input_ids: usize) {
        let mut s = self.state();
        s.summary.jobs.ordered += 1;
        let view = &mut s.job(job_id).view;
        view.state = "computing".into();
        view.input_ids = input_ids as u64;
    }

    /// A device has answered.
    pub fn computed(&self, job_id: U256, input_ids: usize, output_ids: usize, took: Duration) {
        let now = self.since_start();
        let mut s = self.state();
        s.summary.jobs.computed += 1;
        s.summary.work.input_ids += input_ids as u64;
        s.summary.work.output_ids += output_ids as u64;
        s.summary.work.milliseconds += millis(took);
        s.summary.latency.compute.add(millis(took));
        s.answers.add(now.as_secs(), 1);
        s.tokens.add(now.as_secs(), output_ids as u64);
        let job = s.job(job_id);
        job.computed = Some(now);
        job.view.state = "computed".into();
        job.view.input_ids = input_ids as u64;
        job.view.output_ids = Some(output_ids as u64);
    }

    /// A device failed at a job.
    pub fn failed(&self, job_id: U256, why: &str) {
        let mut s = self.state();
        s.summary.jobs.failed += 1;
        s.job(job_id).view.trouble = Some(why.to_owned());
    }

    /// A step has left for the first time, or again; each job counts once a step.
    pub fn sent(&self, step: Step, jobs: &[U256]) {
        let now = self.since_start();
        let mut s = self.state();
        for job_id in jobs {
            let job = s.job(*job_id);
            let (mark, before, state) = match step {
                Step::Commit => (&mut job.committed, job.computed, "committed"),
                Step::Reveal => (&mut job.revealed, job.committed, "revealed"),
                Step::Finalise | Step::Timeout => continue,
            };
            if mark.is_some() {
                continue;
            }
            *mark = Some(now);
            job.view.state = state.into();
            let took = before.map(|before| millis(now.saturating_sub(before)));
            let summary = &mut s.summary;
            let (count, latency) = match step {
                Step::Commit => (&mut summary.jobs.committed, &mut summary.latency.commit),
                _ => (&mut summary.jobs.revealed, &mut summary.latency.reveal),
            };
            *count += 1;
            if let Some(took) = took {
                latency.add(took);
            }
        }
    }

    /// The node or the contract refused a step of a job.
    pub fn refused(&self, job_id: U256, why: &impl ToString) {
        let mut s = self.state();
        s.summary.jobs.refused += 1;
        s.job(job_id).view.trouble = Some(why.to_string());
    }

    /// A job is over; `earned` where it was paid. The end of a job that a reorg opened again replaces its first one.
    pub fn closed(&self, job_id: U256, why: &str, earned: Option<U256>) {
        let now = self.since_start();
        let mut s = self.state();
        let end = match earned {
            Some(wei) => End::Paid(wei),
            None if why == "refunded" => End::Refunded,
            None => End::Unpaid,
        };
        let job = s.job(job_id);
        let before = job.end.replace(end);
        let revealed = job.revealed;
        job.view.state = why.to_owned();
        job.view.earned_wei = earned;
        let summary = &mut s.summary;
        match before {
            Some(End::Paid(wei)) => {
                summary.jobs.paid -= 1;
                summary.earned_wei -= wei;
            }
            Some(End::Refunded) => summary.jobs.refunded -= 1,
            Some(End::Unpaid) => summary.jobs.unpaid -= 1,
            None => {}
        }
        match end {
            End::Paid(wei) => {
                summary.jobs.paid += 1;
                summary.earned_wei += wei;
                if let (None, Some(revealed)) = (before, revealed) {
                    summary.latency.payment.add(millis(now.saturating_sub(revealed)));
                }
            }
            End::Refunded => summary.jobs.refunded += 1,
            End::Unpaid => summary.jobs.unpaid += 1,
        }
    }

    /// Everything at this moment.
    pub fn summary(&self) -> Summary {
        let now = self.since_start().as_secs();
        let devices = self.devices();
        let s = self.state();
        Summary {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: now,
            devices,
            answers: s.answers.at(now),
            tokens: s.tokens.at(now),
            ..s.summary.clone()
        }
    }

    /// The newest jobs, newest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.state().jobs.values().rev().map(|j| j.view.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: U256 = U256::from_limbs([7, 0, 0, 0]);

    #[test]
    fn a_job_is_counted_at_each_step_and_once() {
        let m = Monitor::default();
        m.ordered(JOB, 5);
        m.computed(JOB, 5, 3, Duration::from_millis(20));
        for step in [
            Step::Commit,
            Step::Commit,
            Step::Reveal,
            Step::Reveal,
            Step::Finalise,
        ] {
            m.sent(step, &[JOB]);
        }
        m.closed(JOB, "paid", Some(U256::from(90)));
        let s = m.summary();
        assert_eq!((s.jobs.ordered, s.jobs.computed), (1, 1));
        assert_eq!((s.jobs.committed, s.jobs.revealed, s.jobs.paid), (1, 1, 1));
        assert_eq!(
            (s.work.input_ids, s.work.output_ids, s.work.milliseconds),
            (5, 3, 20)
        );
        assert_eq!((s.earned_wei, s.tokens.in_15m), (U256::from(90), 3));
        let l = s.latency;
        assert_eq!(
            [l.compute, l.commit, l.reveal, l.payment].map(|l| l.count),
            [1; 4]
        );
        assert_eq!(m.jobs()[0].state, "paid");
    }

    #[test]
    fn a_reorg_takes_the_first_end_back() {
        let m = Monitor::default();
        m.closed(JOB, "paid", Some(U256::from(90)));
        m.closed(JOB, "refunded", None);
        let s = m.summary();
        assert_eq!((s.jobs.paid, s.jobs.refunded, s.earned_wei), (0, 1, U256::ZERO));
        m.closed(JOB, "lost: silent or convicted", None);
        assert_eq!((m.summary().jobs.refunded, m.summary().jobs.unpaid), (0, 1));
    }

    #[test]
    fn lines_of_jobs_stay_few_while_counts_go_on() {
        let m = Monitor::default();
        for id in 0..1_000u64 {
            m.ordered(U256::from(id), 1);
        }
        let jobs = m.jobs();
        assert_eq!((m.summary().jobs.ordered, jobs.len()), (1_000, JOBS_KEPT));
        assert_eq!(jobs[0].job_id, U256::from(999));
    }

    #[test]
    fn a_node_that_answers_again_has_no_fault() {
        let m = Monitor::default();
        m.node_failed(&"gone");
        assert_eq!(m.summary().node_fault.as_deref(), Some("gone"));
        m.looked(9, 2);
        assert_eq!((m.summary().node_fault, m.summary().height), (None, Some(9)));
    }
}
