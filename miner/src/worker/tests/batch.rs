//! Batches that a node refuses, that revert and that wait behind a gap: in the end every job goes alone, once.

use std::sync::{Arc, Mutex};

use alloy::consensus::Transaction;
use alloy_primitives::{B256, Bytes, U256};
use bitai_contracts::JobStatus;

use super::{CHAIN, HUB, job, neuron};
use crate::{
    chain::{
        testnode,
        testpool::{Executed, Pool},
    },
    journal::{Answer, Entry, Step},
    worker::{
        Neuron,
        batch::{Found, Ready},
    },
};

/// A neuron with answers to three jobs that are to be committed.
struct Stage {
    neuron: Neuron,
    pool: Arc<Mutex<Pool>>,
    _dir: tempfile::TempDir,
}

const JOBS: [u32; 3] = [1, 2, 3];

impl Stage {
    async fn new() -> Self {
        let pool = Arc::new(Mutex::new(Pool::new(HUB)));
        pool.lock().unwrap().chain = CHAIN;
        let state = Arc::clone(&pool);
        let hub = testnode::hub(CHAIN, HUB, move |method: &str, params: &_| {
            state.lock().unwrap().answer(method, params)
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let mut neuron = neuron(&dir, hub);
        for id in JOBS {
            let mut entry = Entry::new(CHAIN, HUB, U256::from(id), job(B256::ZERO));
            entry.answer = Some(Answer {
                output_ids: vec![7, 8],
                trace_root: B256::with_last_byte(id as u8),
                transcript: Bytes::new(),
            });
            neuron.journal.put(entry).unwrap();
        }
        Self {
            neuron,
            pool,
            _dir: dir,
        }
    }

    fn pool<R>(&self, change: impl FnOnce(&mut Pool) -> R) -> R {
        change(&mut self.pool.lock().unwrap())
    }

    /// A look at which these jobs are still to be committed.
    async fn look(&mut self, height: u64, jobs: &[u32]) {
        let mut found = Found::default();
        for id in jobs {
            let id = U256::from(*id);
            found.status.insert(id, JobStatus::Committing);
            let alone = self
                .neuron
                .journal
                .get(&id)
                .unwrap()
                .sent
                .contains_key(&Step::Commit);
            found.ready.push(Ready {
                job_id: id,
                step: Step::Commit,
                attempt: 0,
                job_hash: job(B256::ZERO).hash(),
                deadline: 100,
                committed: B256::ZERO,
                lead: id,
                alone,
            });
        }
        self.neuron.take_steps(found, height).await.unwrap();
    }

    /// The calls that wait, by nonce: `true` where it is a batch.
    fn waiting(&self) -> Vec<(u64, bool)> {
        let batch = self.is_batch();
        self.pool(|p| p.waiting.iter().map(|(n, tx)| (*n, batch(tx.input()))).collect())
    }

    /// Tells a batch by its selector.
    fn is_batch(&self) -> impl Fn(&[u8]) -> bool + Send + 'static {
        let call = self.neuron.hub.commit_batch(&[], B256::ZERO, B256::ZERO);
        move |data| data.get(..4) == call.data.get(..4)
    }

    /// Jobs whose single commits were executed, in order.
    fn committed(&self) -> Vec<u32> {
        let call = self.neuron.hub.commit(U256::ONE, B256::ZERO, B256::ZERO);
        let job = |e: &Executed| {
            let data = e.tx.input();
            (data.get(..4) == call.data.get(..4)).then(|| u32::from(data[35]))
        };
        self.pool(|p| p.executed.iter().filter_map(job).collect())
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_goes_as_single_transactions_at_once_and_later() {
    let mut s = Stage::new().await;
    let batch = s.is_batch();
    s.pool(|p| p.refuses = Box::new(batch));
    s.look(1, &JOBS).await;
    assert_eq!(s.waiting(), [(0, false), (1, false), (2, false)]);
    assert!(s.neuron.journal.batches().is_empty(), "it never left");
    // Looked at again, nothing is sent a second time, as batch or alone.
    s.pool(|p| p.refuses = Box::new(|_| false));
    s.look(1, &JOBS).await;
    assert_eq!(s.waiting(), [(0, false), (1, false), (2, false)]);
    s.pool(|p| p.mine(2));
    assert_eq!(s.committed(), JOBS);
}

#[tokio::test]
async fn a_batch_that_reverts_goes_as_single_transactions() {
    let mut s = Stage::new().await;
    let batch = s.is_batch();
    s.pool(|p| p.reverts = Box::new(batch));
    s.look(1, &JOBS).await;
    assert_eq!(s.waiting(), [(0, true)], "one for all");
    s.look(1, &JOBS).await;
    assert_eq!(s.waiting(), [(0, true)], "and waited for");
    s.pool(|p| p.mine(2));
    // It is found to have reverted; what the jobs still need follows.
    for height in 2..4 {
        s.look(height, &JOBS).await;
    }
    assert_eq!(s.waiting(), [(1, false), (2, false), (3, false)]);
    s.pool(|p| p.mine(4));
    assert_eq!(s.committed(), JOBS);
}

#[tokio::test]
async fn jobs_that_a_batch_left_out_go_alone_and_the_others_not_again() {
    let mut s = Stage::new().await;
    s.look(1, &JOBS).await;
    s.pool(|p| p.mine(2));
    // The chain shows two of three as committed.
    for height in 2..4 {
        s.look(height, &[2]).await;
    }
    s.pool(|p| p.mine(4));
    assert_eq!(s.committed(), [2]);
}

#[tokio::test]
async fn a_batch_and_a_step_behind_a_gap_of_nonces_are_signed_anew() {
    let mut s = Stage::new().await;
    // Of the same account: it will be let go.
    let sender = s.neuron.sender.clone();
    let stranger = s.neuron.hub.commit(U256::from(9), B256::ZERO, B256::ZERO);
    sender.send(&stranger).await.unwrap();
    s.look(1, &JOBS).await;
    assert_eq!(s.waiting(), [(0, false), (1, true)]);
    s.pool(|p| p.waiting.remove(&0));
    for height in 1..3 {
        s.look(height, &JOBS).await;
    }
    assert_eq!(
        s.waiting().iter().filter(|(_, is_batch)| !is_batch).count(),
        3,
        "each alone, the first in the gap: {:?}",
        s.waiting()
    );
    assert_eq!(s.waiting()[0], (0, false));

    // The same of a step of its own.
    let mut s = Stage::new().await;
    sender_of(&s).send(&stranger).await.unwrap();
    s.look(1, &[2]).await;
    assert_eq!(s.waiting(), [(0, false), (1, false)]);
    s.pool(|p| p.waiting.remove(&0));
    s.look(2, &[2]).await;
    s.pool(|p| p.mine(3));
    assert_eq!(s.committed()[0], 2, "it no longer waits for what never comes");
}

fn sender_of(s: &Stage) -> crate::chain::Sender {
    s.neuron.sender.clone()
}
