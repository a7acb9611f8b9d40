//! The desk at which own claims are explained: one thread, the question with the least time left first, every answer
//! on the table as soon as it is computed. Whoever explains a claim is kept while a game about it goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use bitai_poc::dispute::{Ask, Claim, Defend, DisputeError};

use crate::exit::Failure;

/// Makes who explains a claim: loads its model, which may take minutes. Called on the desk's own thread.
pub type Maker = Arc<dyn Fn(&Claim) -> Result<Explainer, Failure> + Send + Sync>;
/// Who explains a claim.
pub type Explainer = Box<dyn Defend + Send>;

/// Pause before a claim that could not be explained is tried anew.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Most claims whose explainers are kept: each holds a transcript and cached rows.
const CLAIMS: usize = 8;

/// A question that a game waits for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The claim.
    pub(super) claim: Arc<Claim>,
    /// Id of the ask.
    pub(super) id: B256,
    /// What is asked.
    pub(super) ask: Ask,
    /// Heights left on the neuron's clock.
    pub(super) left: u64,
}

/// What lies on the table.
#[derive(Default)]
struct Table {
    wanted: Vec<Wanted>,
    /// Claims whose explainers are to be kept.
    live: BTreeSet<B256>,
    /// Encoded answers; none where the run has no such node, which no further try changes.
    answers: BTreeMap<B256, Option<Vec<u8>>>,
    /// Claims that wait for their next try.
    again_at: BTreeMap<B256, Instant>,
    closed: bool,
}

impl Table {
    /// The next question, or how long to wait for one.
    fn next(&self, now: Instant) -> Result<Wanted, Option<Duration>> {
        let open = |w: &&Wanted| !self.answers.contains_key(&w.id);
        let again = |w: &Wanted| self.again_at.get(&B256::from(w.claim.id())).copied();
        let due = self.wanted.iter().filter(open);
        let first = due
            .filter(|w| again(w).is_none_or(|at| at <= now))
            .min_by_key(|w| (w.left, w.id));
        match first {
            Some(wanted) => Ok(wanted.clone()),
            None => Err(self
                .wanted
                .iter()
                .filter(open)
                .filter_map(again)
                .min()
                .map(|at| at.saturating_duration_since(now))),
        }
    }
}

type Shared = Arc<(Mutex<Table>, Condvar)>;

fn lock(shared: &Shared) -> MutexGuard<'_, Table> {
    // Nothing panics in the middle of a change.
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A desk; its thread ends after the question at hand when this is dropped.
pub(super) struct Desk(Shared);

impl Desk {
    /// Starts the thread.
    pub(super) fn start(maker: Maker) -> Result<Self, Failure> {
        Self::retrying(maker, RETRY_AFTER)
    }

    /// [`Desk::start`] with another pause after a failure.
    pub(super) fn retrying(maker: Maker, retry: Duration) -> Result<Self, Failure> {
        let shared = Shared::default();
        let worker = Worker {
            shared: Arc::clone(&shared),
            maker,
            retry,
            explainers: Vec::new(),
            said: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("explain".into())
            .spawn(|| worker.work())
            .map_err(|e| {
                Failure::Internal(anyhow::Error::new(e).context("starting the explaining thread"))
            })?;
        Ok(Self(shared))
    }

    /// Puts down all questions that games wait for, in the place of those before; answers to others are cleared away,
    /// and the explainers of claims that are not `live`.
    pub(super) fn want(&self, wanted: Vec<Wanted>, live: BTreeSet<B256>) {
        let mut table = lock(&self.0);
        table.answers.retain(|id, _| wanted.iter().any(|w| w.id == *id));
        table.again_at.retain(|claim, _| live.contains(claim));
        table.wanted = wanted;
        table.live = live;
        drop(table);
        self.0.1.notify_one();
    }

    /// The encoded answer, once it is there.
    pub(super) fn answer(&self, ask: &B256) -> Option<Vec<u8>> {
        lock(&self.0).answers.get(ask)?.clone()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        lock(&self.0).closed = true;
        self.0.1.notify_one();
    }
}

/// The thread.
struct Worker {
    shared: Shared,
    maker: Maker,
    retry: Duration,
    /// Used last at the end.
    explainers: Vec<(B256, Explainer)>,
    /// The last failure of a claim: said once.
    said: BTreeMap<B256, String>,
}

impl Worker {
    fn work(mut self) {
        while let Some(wanted) = self.next() {
            let (id, claim) = (wanted.id, B256::from(wanted.claim.id()));
            // A fault of a player is no reason for all other claims to fall silent.
            let made = catch_unwind(AssertUnwindSafe(|| self.answer(&wanted)));
            let made =
                made.unwrap_or_else(|_| Err(Failure::Device("computing an answer ended by itself".into())));
            match made {
                Ok(answer) => {
                    self.said.remove(&claim);
                    lock(&self.shared).answers.insert(id, answer);
                }
                Err(failure) => {
                    let words = failure.to_string();
                    if self.said.get(&claim) != Some(&words) {
                        tracing::error!(%claim, job = %wanted.claim.job_id, "cannot be explained now: {words}");
                        self.said.insert(claim, words);
                    }
                    // What failed may be under the others as well: all start anew.
                    self.explainers.clear();
                    let at = Instant::now() + self.retry;
                    lock(&self.shared).again_at.insert(claim, at);
                }
            }
        }
    }

    /// Waits for a question; none when the desk is closed.
    fn next(&mut self) -> Option<Wanted> {
        let shared = Arc::clone(&self.shared);
        let mut table = lock(&shared);
        loop {
            if table.closed {
                return None;
            }
            self.explainers.retain(|(claim, _)| table.live.contains(claim));
            self.said.retain(|claim, _| table.live.contains(claim));
            match table.next(Instant::now()) {
                Ok(wanted) => return Some(wanted),
                Err(pause) => {
                    let pause = pause.unwrap_or(Duration::from_secs(3600));
                    let waited = shared.1.wait_timeout(table, pause);
                    table = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The answer; none where there will never be one.
    fn answer(&mut self, wanted: &Wanted) -> Result<Option<Vec<u8>>, Failure> {
        let claim = B256::from(wanted.claim.id());
        let kept = self.explainers.iter().position(|(of, _)| *of == claim);
        let mut explainer = match kept {
            Some(i) => self.explainers.remove(i).1,
            None => {
                while self.explainers.len() >= CLAIMS {
                    self.explainers.remove(0);
                }
                (self.maker)(&wanted.claim)?
            }
        };
        let bytes = match explainer.answer(&wanted.ask) {
            Ok(answer) => answer.encode(&wanted.id.0).map_err(|e| e.to_string()),
            Err(DisputeError::Device(why)) => return Err(Failure::Device(why)),
            Err(e) => Err(e.to_string()),
        };
        self.explainers.push((claim, explainer));
        Ok(match bytes {
            Ok(bytes) => Some(bytes),
            Err(why) => {
                tracing::error!(%claim, job = %wanted.claim.job_id, ask = ?wanted.ask, "no answer to that: {why}");
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use alloy_primitives::{Address, U256};
    use bitai_poc::dispute::Answer;
    use bitai_types::Job;

    use super::*;

    fn claim(job: u32) -> Arc<Claim> {
        Arc::new(Claim {
            chain_id: 1,
            hub: Address::ZERO,
            job_id: U256::from(job),
            neuron: Address::ZERO,
            job: Job::embedding(B256::ZERO, vec![1]),
            outputs: vec![1],
            root: B256::ZERO.into(),
        })
    }

    fn wanted(job: u32, pos: u32, left: u64) -> Wanted {
        Wanted {
            claim: claim(job),
            id: B256::with_last_byte((job * 16 + pos) as u8),
            ask: Ask::Tokens {
                height: 8,
                index: pos,
            },
            left,
        }
    }

    fn live(wanted: &[Wanted]) -> BTreeSet<B256> {
        wanted.iter().map(|w| w.claim.id().into()).collect()
    }

    /// Longest wait for a thread that has something to do.
    const LONG: Duration = Duration::from_secs(60);

    /// Answers when it is let, saying to what.
    struct Slow(
        mpsc::Sender<u32>,
        Arc<Mutex<mpsc::Receiver<Result<(), DisputeError>>>>,
    );

    impl Defend for Slow {
        fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
            let Ask::Tokens { index, .. } = ask else {
                panic!("only those are asked");
            };
            self.0.send(*index).unwrap();
            self.1.lock().unwrap().recv().unwrap()?;
            Ok(Answer::Tokens(vec![[1; 32]]))
        }
    }

    /// A desk; what it is at; the way to let it go on; how many explainers were made.
    struct Stage {
        desk: Desk,
        at: mpsc::Receiver<u32>,
        go: mpsc::Sender<Result<(), DisputeError>>,
        made: Arc<Mutex<u32>>,
    }

    fn stage(retry: Duration) -> Stage {
        let (say, at) = mpsc::channel();
        let (go, let_go) = mpsc::channel();
        let (let_go, made) = (Arc::new(Mutex::new(let_go)), Arc::new(Mutex::new(0)));
        let count = Arc::clone(&made);
        let maker: Maker = Arc::new(move |_| {
            *count.lock().unwrap() += 1;
            Ok(Box::new(Slow(say.clone(), Arc::clone(&let_go))))
        });
        let desk = Desk::retrying(maker, retry).unwrap();
        Stage { desk, at, go, made }
    }

    #[test]
    fn the_question_with_the_least_time_left_is_answered_first_and_each_at_once() {
        let s = stage(Duration::ZERO);
        let all = vec![wanted(1, 1, 30), wanted(1, 2, 20), wanted(2, 3, 10)];
        s.desk.want(all.clone(), live(&all));
        assert_eq!(s.at.recv_timeout(LONG).unwrap(), 3);
        // More urgent than what waits, not than what is under way.
        let mut more = all.clone();
        more.push(wanted(2, 4, 5));
        s.desk.want(more.clone(), live(&more));
        s.go.send(Ok(())).unwrap();
        assert_eq!(s.at.recv_timeout(LONG).unwrap(), 4);
        assert!(
            s.desk.answer(&all[2].id).is_some(),
            "it is there while the next is computed"
        );
        assert!(s.desk.answer(&all[0].id).is_none());
        for expected in [2, 1] {
            s.go.send(Ok(())).unwrap();
            assert_eq!(s.at.recv_timeout(LONG).unwrap(), expected);
        }
        assert_eq!(*s.made.lock().unwrap(), 2, "one a claim");
    }

    #[test]
    fn a_question_that_the_device_failed_at_is_asked_again_of_a_new_explainer() {
        let s = stage(Duration::from_millis(20));
        let all = vec![wanted(1, 1, 10)];
        s.desk.want(all.clone(), live(&all));
        assert_eq!(s.at.recv_timeout(LONG).unwrap(), 1);
        let failed = Instant::now();
        s.go.send(Err(DisputeError::Device("the bus fell silent".into())))
            .unwrap();
        // Putting the same question down again does not hurry it.
        s.desk.want(all.clone(), live(&all));
        assert_eq!(s.at.recv_timeout(LONG).unwrap(), 1);
        assert!(failed.elapsed() >= Duration::from_millis(20));
        s.go.send(Ok(())).unwrap();
        while s.desk.answer(&all[0].id).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(*s.made.lock().unwrap(), 2);
    }

    #[test]
    fn a_question_without_an_answer_is_asked_once() {
        let s = stage(Duration::ZERO);
        let all = vec![wanted(1, 1, 10), wanted(1, 2, 20)];
        s.desk.want(all.clone(), live(&all));
        for expected in [1, 2] {
            assert_eq!(s.at.recv_timeout(LONG).unwrap(), expected);
            s.go.send(Err(DisputeError::Kind("no such node"))).unwrap();
        }
        let more = vec![wanted(1, 1, 10), wanted(1, 3, 30)];
        s.desk.want(more.clone(), live(&more));
        assert_eq!(s.at.recv_timeout(LONG).unwrap(), 3);
        assert_eq!(*s.made.lock().unwrap(), 1);
    }
}
