//! The neuron's seat at work by itself: it needs a key, a hub and a data directory, so it goes on answering where the
//! neuron cannot take jobs (too small a stake, a model that is not listed any more) and when the node comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};

use super::{Defence, Maker, Shelf, honest};
use crate::{
    chain::{Hub, Sender, Verifier},
    datadir::DataDir,
    exit::Failure,
};

/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest pause between looks while no node answers.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether anybody waits for the end, and the end.
#[derive(Default)]
struct End {
    is_wanted: AtomicBool,
    is_there: Notify,
}

/// A seat at work, until this is dropped.
pub struct Guard {
    task: JoinHandle<()>,
    end: Arc<End>,
}

impl Guard {
    /// Takes the seat for the claims of `sender`; other clones of it may send at the same time.
    pub fn start(hub: Hub, sender: Sender, shelf: Arc<Shelf>) -> Self {
        Self::with(hub, None, sender, shelf)
    }

    /// Takes the seat for claims that a verifier other than the hub's judges.
    pub fn of(verifier: Verifier, sender: Sender, shelf: Arc<Shelf>) -> Self {
        Self::with(verifier.hub().clone(), Some(verifier), sender, shelf)
    }

    fn with(hub: Hub, verifier: Option<Verifier>, sender: Sender, shelf: Arc<Shelf>) -> Self {
        let end = Arc::new(End::default());
        let work = Work {
            hub,
            verifier,
            sender,
            data: shelf.data().clone(),
            maker: honest(shelf),
            defence: None,
            asked_at: None,
            end: Arc::clone(&end),
        };
        Self {
            task: tokio::spawn(work.run()),
            end,
        }
    }

    /// Done when nothing is disputed that this neuron claims, and nothing that it revealed can be.
    pub async fn until_over(&self) {
        self.end.is_wanted.store(true, Ordering::Relaxed);
        self.end.is_there.notified().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    hub: Hub,
    /// Where it is not the hub's.
    verifier: Option<Verifier>,
    sender: Sender,
    data: DataDir,
    maker: Maker,
    defence: Option<Defence>,
    /// Height at which the end was looked for last.
    asked_at: Option<u64>,
    end: Arc<End>,
}

impl Work {
    async fn run(mut self) {
        let mut pause = LOOK_EVERY;
        let mut said = None;
        loop {
            match self.look().await {
                Ok(true) => self.end.is_there.notify_one(),
                Ok(false) => {}
                Err(failure) => {
                    let words = failure.to_string();
                    if said.as_ref() != Some(&words) {
                        tracing::warn!("answering disputes: {words}");
                        said = Some(words);
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                    tokio::time::sleep(pause).await;
                    continue;
                }
            }
            (pause, said) = (LOOK_EVERY, None);
            tokio::time::sleep(pause).await;
        }
    }

    /// One turn; whether nothing is left to do for whoever asks.
    async fn look(&mut self) -> Result<bool, Failure> {
        let height = self.hub.node().height().await;
        let height = height.map_err(|e| e.into_failure("eth_blockNumber"))?;
        let defence = match &mut self.defence {
            Some(defence) => defence,
            None => {
                let verifier = match &self.verifier {
                    Some(verifier) => Ok(Some(verifier.clone())),
                    None => Verifier::of(&self.hub).await,
                };
                let Some(verifier) = verifier.map_err(|e| e.into_failure("reading the verifier"))? else {
                    tracing::info!("this hub names no verifier: nothing can be disputed on it");
                    self.end.is_there.notify_one();
                    return std::future::pending().await;
                };
                let maker = Arc::clone(&self.maker);
                let defence = Defence::new(verifier, self.sender.clone(), maker).await?;
                self.defence.insert(defence.keeping(&self.data))
            }
        };
        defence.look(height).await?;
        if !self.end.is_wanted.load(Ordering::Relaxed) || self.asked_at == Some(height) {
            return Ok(false);
        }
        let needed = defence.is_needed(height).await?;
        self.asked_at = Some(height);
        Ok(!needed)
    }
}
