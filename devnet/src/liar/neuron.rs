//! A lying neuron: commits and reveals its lie as any neuron would, and answers with the product's own seat, whatever
//! explains the lie behind it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alloy_primitives::{B256, U256};
use bitai_miner::{
    Failure,
    chain::{Hub, Refusal, Sender, Verifier, verifier::Turn},
    config::Ask,
    dispute::{Defence, Maker, Outbox},
    models::Listed,
};
use bitai_poc::dispute::Player;
use bitai_types::{
    Job,
    job::{commit_hash, ids_hash},
};

use super::lie::{Lie, Tampered};
use crate::{accounts::coin, deploy::stake_wei};

/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for one step.
const PATIENCE: Duration = Duration::from_secs(120);

/// A neuron that lies.
pub struct Liar {
    hub: Hub,
    sender: Sender,
}

impl Liar {
    /// Stakes and offers the model, as whoever signs with this key.
    pub async fn new(hub: &Hub, sender: Sender, model: &Listed) -> Result<Self, Failure> {
        let liar = Self {
            hub: hub.clone(),
            sender,
        };
        liar.run(&hub.stake(stake_wei()), "the liar's stake").await?;
        let offer = hub.serve(&model.key(), &Ask::default(), coin() * U256::from(10));
        liar.run(&offer, "the liar's offer").await?;
        Ok(liar)
    }

    async fn run(&self, call: &bitai_miner::chain::send::Call, what: &str) -> Result<(), Failure> {
        self.sender.execute(call, what, PATIENCE).await.map(|_| ())
    }

    /// Commits and reveals the lie.
    pub async fn claim(&self, job_id: U256, job: &Job, lie: &Lie) -> Result<(), Failure> {
        let (hub, me) = (&self.hub, self.sender.address());
        let end = tokio::time::Instant::now() + PATIENCE;
        let drawn = |e: Refusal| e.into_failure("waiting for the draw");
        while !hub.drawn(job_id).await.map_err(drawn)?.contains(&me) {
            if tokio::time::Instant::now() > end {
                return Err(Failure::Unanswered {
                    job: job_id,
                    why: "the liar was not drawn".into(),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let salt = B256::repeat_byte(7);
        let bound = commit_hash(
            hub.node().chain_id(),
            hub.address(),
            job_id,
            me,
            salt,
            lie.root.0,
            ids_hash(&lie.outputs),
        );
        self.run(&hub.commit(job_id, job.hash(), bound), "the liar's commit")
            .await?;
        let reveal = hub.reveal(job_id, salt, lie.root.0, &lie.outputs);
        self.run(&reveal, "the liar's reveal").await
    }

    /// Answers until dropped.
    pub async fn answer(&self, verifier: Verifier, lie: Lie) -> Failure {
        let explainer = Arc::new(Mutex::new(Some(lie.explainer)));
        let maker: Maker = Arc::new(move |_| {
            let mut explainer = explainer.lock().unwrap_or_else(PoisonError::into_inner);
            explainer
                .take()
                .ok_or_else(|| Failure::Device("the liar explains itself once".into()))
        });
        let mut defence = match Defence::new(verifier, self.sender.clone(), maker).await {
            Ok(defence) => defence,
            Err(failure) => return failure,
        };
        loop {
            let looked = match self.hub.node().height().await {
                Ok(height) => defence.look(height).await,
                Err(e) => Err(e.into_failure("eth_blockNumber")),
            };
            match looked {
                Ok(()) | Err(Failure::Transaction { .. }) => {}
                Err(failure) => return failure,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Lets the clock run out, and answers then.
    pub async fn answer_late(
        &self,
        verifier: Verifier,
        claim: B256,
        mut player: Player<Tampered>,
    ) -> Failure {
        let mut outbox = Outbox::new(self.sender.clone());
        loop {
            match self.late(&verifier, claim, &mut player, &mut outbox).await {
                Ok(()) | Err(Failure::Transaction { .. }) => {}
                Err(failure) => return failure,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn late(
        &self,
        verifier: &Verifier,
        claim: B256,
        player: &mut Player<Tampered>,
        outbox: &mut Outbox,
    ) -> Result<(), Failure> {
        use bitai_miner::chain::verifier::Event;
        let fail = |e: Refusal| e.into_failure("reading a dispute");
        let height = self.hub.node().height().await.map_err(fail)?;
        let events = verifier.events(claim, 0).await.map_err(fail)?;
        for logged in &events {
            let Event::Asked {
                challenger, id, ask, ..
            } = &logged.event
            else {
                continue;
            };
            let standing = verifier
                .standing(claim, *challenger, height)
                .await
                .map_err(fail)?;
            // What is sent now stands one height further: the clock has run out by then.
            if standing.waiting == Some(*id) && standing.turn == Turn::Neuron(0) {
                let answer = tokio::task::block_in_place(|| player.respond(ask).ok());
                let Some(bytes) = answer.and_then(|a| a.encode(&id.0).ok()) else {
                    continue;
                };
                outbox
                    .push(height, &format!("late {id}"), &verifier.answer(bytes))
                    .await?;
            }
        }
        Ok(())
    }
}
