//! Steps of many jobs in one transaction. What is ready at one look is gathered, and goes as a batch where it is more than
//! one; what a batch left out, or all of it where it failed, goes alone.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{B256, U256, keccak256};
use bitai_contracts::JobStatus;
use bitai_types::batch::{JOBS_MAX, Tree, job_hashes, pack_jobs, put_answer};
use bitai_types::rpc::InscriptionStage;

use super::Neuron;
use crate::{
    chain::{
        Refusal,
        send::{Call, RAISES_MAX, is_in_flight, is_nonce_used, is_too_cheap},
    },
    exit::Failure,
    journal::{Batch, Step},
};

/// Heights before a window's end at which nothing is held back any more.
const HURRY: u64 = 4;

/// A step that a job is ready for.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    /// The job.
    pub job_id: U256,
    /// What it needs.
    pub step: Step,
    /// Its draw.
    pub attempt: u8,
    /// What the chain calls it.
    pub job_hash: B256,
    /// Last height of the window.
    pub deadline: u64,
    /// What the chain holds as this neuron's commitment, and the job that leads its batch.
    pub committed: B256,
    /// See `committed`.
    pub lead: U256,
    /// Whether it is on its way in a transaction of its own.
    pub alone: bool,
}

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Steps to be taken.
    pub ready: Vec<Ready>,
    /// Where each job stands.
    pub status: BTreeMap<U256, JobStatus>,
}

/// What is remembered from look to look; a restart forgets it and loses at most a little time.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// Heights for which a step waits for company.
    wait: u64,
    since: BTreeMap<(Step, U256), u64>,
    /// Steps that a batch was refused for.
    alone: BTreeSet<(Step, U256)>,
}

/// How a leaf of a batch stands that is to be revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    /// To be revealed now.
    Ready,
    /// Everyone is bound: showing it tells nobody anything.
    Open,
    /// Somebody could still copy it.
    Secret,
}

/// The nodes to reveal: as few as hold every ready leaf and no secret one.
fn nodes(leaves: &[Leaf]) -> Vec<u64> {
    fn go(leaves: &[Leaf], width: usize, node: u64, out: &mut Vec<u64>) {
        if !leaves.contains(&Leaf::Ready) {
            return;
        }
        if !leaves.contains(&Leaf::Secret) {
            return out.push(node);
        }
        let (left, right) = leaves.split_at(leaves.len().min(width / 2));
        go(left, width / 2, 2 * node, out);
        go(right, width / 2, 2 * node + 1, out);
    }
    let mut out = Vec::new();
    go(leaves, leaves.len().next_power_of_two(), 1, &mut out);
    out
}

/// The leaves beneath a node of a tree of `n` leaves.
fn beneath(node: u64, n: usize) -> std::ops::Range<usize> {
    let width = n.next_power_of_two() >> node.ilog2();
    let first = (node - (1 << node.ilog2())) as usize * width;
    first..(first + width).min(n)
}

/// How a batch on its way stands.
enum Way {
    /// It goes on.
    Waits,
    /// It executed, or never will: what its jobs still need goes alone.
    Over(&'static str),
}

impl Gathering {
    /// Waits so many heights for company.
    pub(super) fn new(wait: u64) -> Self {
        Self {
            wait,
            ..Self::default()
        }
    }

    /// Waits for nothing any more.
    pub(super) fn hurry(&mut self) {
        self.wait = 0;
    }
}

impl Neuron {
    /// Takes the steps that one look found.
    pub(super) async fn take_steps(&mut self, found: Found, height: u64) -> Result<(), Failure> {
        let keys: BTreeSet<(Step, U256)> = found.ready.iter().map(|r| (r.step, r.job_id)).collect();
        self.gathering.since.retain(|key, _| keys.contains(key));
        self.gathering.alone.retain(|key| keys.contains(key));
        for key in keys {
            self.gathering.since.entry(key).or_insert(height);
        }
        for step in [Step::Commit, Step::Reveal, Step::Finalise] {
            let of_step = found.ready.iter().filter(|r| r.step == step).cloned();
            let free = self.free_of_batches(step, of_step.collect()).await?;
            match step {
                Step::Commit => self.commit_ready(free, height).await?,
                Step::Reveal => self.reveal_ready(free, &found.status, height).await?,
                _ => self.finalise_ready(free).await?,
            }
        }
        Ok(())
    }

    /// Looks after the batches that carry this step, and gives the jobs that none carries; those that are to go alone go.
    async fn free_of_batches(&mut self, step: Step, ready: Vec<Ready>) -> Result<Vec<Ready>, Failure> {
        let mut carried = BTreeSet::new();
        let mut left_out = BTreeSet::new();
        for (id, batch) in self.journal.batches() {
            let wanted = batch.step == step && ready.iter().any(|r| batch.jobs.contains(&r.job_id));
            if !wanted {
                continue;
            }
            if batch.over {
                left_out.extend(batch.jobs);
                continue;
            }
            if let Way::Over(why) = self.look_after(id, &batch).await? {
                tracing::debug!(batch = id, %step, tx = %batch.signed.hash, "{why}");
                self.journal.put_batch(
                    id,
                    Batch {
                        over: true,
                        ..batch.clone()
                    },
                )?;
            }
            // Where it has just executed the state shows it at the next look.
            carried.extend(batch.jobs);
        }
        let mut free = Vec::new();
        for mut r in ready {
            r.alone |= left_out.contains(&r.job_id) || self.gathering.alone.contains(&(step, r.job_id));
            if !carried.contains(&r.job_id) {
                free.push(r);
            }
        }
        Ok(free)
    }

    /// Sends a batch again that was lost, and pays more for one that waits while the price has risen.
    async fn look_after(&mut self, id: u64, batch: &Batch) -> Result<Way, Failure> {
        let fail = |e: Refusal| e.into_failure("looking for a transaction");
        let node = std::sync::Arc::clone(self.hub.node());
        let old = &batch.signed;
        if let Some(receipt) = node.receipt(old.hash).await.map_err(fail)? {
            return Ok(match receipt.status() {
                true => Way::Over("executed"),
                false => Way::Over("reverted; each job goes alone"),
            });
        }
        match node.inscription(old.hash).await.map_err(fail)?.map(|w| w.stage) {
            Some(InscriptionStage::Broadcast) => return Ok(Way::Waits),
            Some(InscriptionStage::Mempool) if self.waits_behind_a_gap(old).await? => {
                return Ok(Way::Over(
                    "a transaction before it was let go; each job goes alone",
                ));
            }
            Some(InscriptionStage::Mempool) => {}
            _ => match self.sender.broadcast(old).await {
                Ok(()) => return Ok(Way::Waits),
                Err(e) if is_in_flight(&e) => return Ok(Way::Waits),
                Err(e) if is_too_cheap(&e) => {}
                Err(e) if is_nonce_used(&e) => {
                    return Ok(Way::Over("its nonce was used; each job goes alone"));
                }
                Err(Refusal::Down(failure)) => return Err(failure),
                Err(_) => return Ok(Way::Over("refused by now; each job goes alone")),
            },
        }
        let dearer = match self.sender.dearer(old).await {
            Ok(Some(dearer)) => dearer,
            Ok(None) | Err(Refusal::Said { .. }) => return Ok(Way::Waits),
            Err(Refusal::Down(failure)) => return Err(failure),
        };
        let replaced = Batch {
            signed: dearer.clone(),
            ..batch.clone()
        };
        self.journal.put_batch(id, replaced)?;
        match self.sender.broadcast(&dearer).await {
            Ok(()) => tracing::info!(batch = id, tx = %dearer.hash, "the price has risen; paying more"),
            Err(Refusal::Down(failure)) => return Err(failure),
            // The cheaper one is what may still execute.
            Err(Refusal::Said { .. }) => self.journal.put_batch(id, batch.clone())?,
        }
        Ok(Way::Waits)
    }

    /// Signs a batch, notes it, sends it. `false` where the node refuses it: its jobs go alone.
    async fn send_batch(
        &mut self,
        step: Step,
        jobs: Vec<U256>,
        leaves: Vec<B256>,
        call: Call,
    ) -> Result<bool, Failure> {
        let id = self.journal.next_batch();
        // The seat that answers disputes sends with this key, too.
        let sender = self.sender.clone();
        let _turn = sender.turn().await;
        let mut raises = 0;
        loop {
            let nonce = match self.hub.node().nonce(self.sender.address(), "pending").await {
                Ok(nonce) => nonce,
                Err(e) => return Err(e.into_failure("reading the nonce")),
            };
            let refused = match self.sender.sign(&call, nonce, raises).await {
                Ok(signed) => {
                    let batch = Batch::new(step, jobs.clone(), leaves.clone(), signed.clone());
                    self.journal.put_batch(id, batch)?;
                    match self.sender.broadcast(&signed).await {
                        Ok(()) => {
                            tracing::info!(batch = id, jobs = jobs.len(), %step, tx = %signed.hash, "sent");
                            self.monitor.sent(step, &jobs);
                            return Ok(true);
                        }
                        Err(e) if raises < RAISES_MAX && is_too_cheap(&e) => {
                            raises += 1;
                            continue;
                        }
                        Err(e) => e,
                    }
                }
                Err(e) => e,
            };
            return match refused {
                // Whether it arrived nobody knows: the next look sends what the journal holds.
                Refusal::Down(failure) => Err(failure),
                said => {
                    self.journal.drop_batch(id)?;
                    tracing::warn!(jobs = jobs.len(), %step, "refused as a batch, each goes alone: {}", said.into_failure("node"));
                    self.gathering.alone.extend(jobs.iter().map(|id| (step, *id)));
                    Ok(false)
                }
            };
        }
    }

    /// Whether a step may wait for company at this height.
    fn may_wait(&self, r: &Ready, height: u64) -> bool {
        let since = self.gathering.since.get(&(r.step, r.job_id)).copied();
        let until = since.unwrap_or(height).saturating_add(self.gathering.wait);
        height < until && until.saturating_add(HURRY) < r.deadline
    }

    async fn commit_ready(&mut self, ready: Vec<Ready>, height: u64) -> Result<(), Failure> {
        let (alone, mut company): (Vec<_>, Vec<_>) = ready.into_iter().partition(|r| r.alone);
        for r in &alone {
            self.commit_alone(r).await?;
        }
        // What is still being computed may come along.
        if !self.computing.is_empty()
            && !company.is_empty()
            && company.iter().all(|r| self.may_wait(r, height))
        {
            return Ok(());
        }
        company.sort_by_key(|r| r.job_id);
        for group in company.chunks(JOBS_MAX) {
            let ids: Vec<U256> = group.iter().map(|r| r.job_id).collect();
            let sent = match (group, pack_jobs(&ids)) {
                ([_, _, ..], Ok(packed)) => {
                    let salt = self.batch_salt(&packed);
                    let leaves: Vec<B256> = ids.iter().filter_map(|id| self.leaf(*id, salt)).collect();
                    let hashes: Vec<B256> = group.iter().map(|r| r.job_hash).collect();
                    match Tree::new(leaves.clone()) {
                        Ok(tree) if leaves.len() == ids.len() => {
                            let call = self.hub.commit_batch(&packed, job_hashes(&hashes), tree.root());
                            self.send_batch(Step::Commit, ids, leaves, call).await?
                        }
                        _ => false,
                    }
                }
                _ => false,
            };
            if !sent {
                for r in group {
                    self.commit_alone(r).await?;
                }
            }
        }
        Ok(())
    }

    async fn commit_alone(&mut self, r: &Ready) -> Result<(), Failure> {
        let Some(leaf) = self.leaf(r.job_id, self.salt(r.job_id)) else {
            return Ok(());
        };
        let call = self.hub.commit(r.job_id, r.job_hash, leaf);
        self.submit(r.job_id, Step::Commit, r.attempt, call).await
    }

    async fn reveal_ready(
        &mut self,
        ready: Vec<Ready>,
        status: &BTreeMap<U256, JobStatus>,
        height: u64,
    ) -> Result<(), Failure> {
        let mut groups: BTreeMap<B256, Vec<Ready>> = BTreeMap::new();
        for r in ready {
            if self.leaf(r.job_id, self.salt(r.job_id)) != Some(r.committed) {
                groups.entry(r.committed).or_default().push(r);
                continue;
            }
            let salt = self.salt(r.job_id);
            if let Some(answer) = self.journal.get(&r.job_id).and_then(|e| e.answer.as_ref()) {
                let call = self
                    .hub
                    .reveal(r.job_id, salt, answer.trace_root, &answer.output_ids);
                self.submit(r.job_id, Step::Reveal, r.attempt, call).await?;
            }
        }
        for (root, group) in groups {
            self.reveal_group(root, group, status, height).await?;
        }
        Ok(())
    }

    /// Reveals jobs that one batch has committed.
    async fn reveal_group(
        &mut self,
        root: B256,
        group: Vec<Ready>,
        status: &BTreeMap<U256, JobStatus>,
        height: u64,
    ) -> Result<(), Failure> {
        let of_root = |b: &Batch| {
            let tree = (b.step == Step::Commit).then(|| Tree::new(b.leaves.clone()).ok())??;
            (tree.root() == root).then_some(tree)
        };
        let known = self
            .journal
            .batches()
            .into_iter()
            .find_map(|(_, b)| of_root(&b).map(|tree| (b, tree)));
        let Some((batch, tree)) = known else {
            for r in &group {
                tracing::error!(job = %r.job_id, "the chain holds another commitment than ours; cannot reveal");
            }
            return Ok(());
        };
        let Ok(packed) = pack_jobs(&batch.jobs) else {
            return Ok(());
        };
        let salt = self.batch_salt(&packed);
        let leaves: Vec<Leaf> = batch
            .jobs
            .iter()
            .map(|id| {
                let open = match status.get(id) {
                    Some(JobStatus::None | JobStatus::Open | JobStatus::Committing) | None => Leaf::Secret,
                    Some(_) => Leaf::Open,
                };
                match group.iter().find(|r| r.job_id == *id) {
                    Some(r) if r.alone => Leaf::Secret,
                    Some(_) => Leaf::Ready,
                    // Without its answer it can only be shown as a hash, on the path of others.
                    None if self.leaf(*id, salt).is_none() => Leaf::Secret,
                    None => open,
                }
            })
            .collect();
        let late = |r: &Ready| !self.may_wait(r, height);
        if leaves.contains(&Leaf::Secret) && !group.iter().any(|r| r.alone || late(r)) {
            return Ok(());
        }
        let alone = group.iter().filter(|r| r.alone).map(|r| {
            let at = batch.jobs.iter().position(|id| *id == r.job_id);
            at.map(|at| tree.leaf(at))
        });
        let nodes: Vec<u64> = alone.flatten().chain(nodes(&leaves)).collect();
        for node in nodes {
            let range = beneath(node, batch.jobs.len());
            let jobs = batch.jobs[range].to_vec();
            let carried: Vec<&Ready> = group.iter().filter(|r| jobs.contains(&r.job_id)).collect();
            let Some(call) = self.reveal_call(&carried, &batch, &tree, node, salt) else {
                continue;
            };
            match (carried.as_slice(), jobs.len()) {
                ([one], 1) => self.submit(one.job_id, Step::Reveal, one.attempt, call).await?,
                // What is refused goes alone at the next look.
                _ => {
                    self.send_batch(Step::Reveal, jobs, Vec::new(), call).await?;
                }
            }
        }
        Ok(())
    }

    /// The call that reveals what lies beneath a node.
    fn reveal_call(
        &self,
        carried: &[&Ready],
        batch: &Batch,
        tree: &Tree,
        node: u64,
        salt: B256,
    ) -> Option<Call> {
        let jobs = &batch.jobs[beneath(node, batch.jobs.len())];
        let lead = carried.first()?.lead;
        let mut answers = Vec::new();
        for id in jobs {
            let answer = self.journal.get(id)?.answer.as_ref()?;
            put_answer(&mut answers, &answer.trace_root, &answer.output_ids);
        }
        Some(self.hub.reveal_batch(
            lead,
            salt,
            node,
            tree.path(node)?,
            &pack_jobs(jobs).ok()?,
            answers,
        ))
    }

    async fn finalise_ready(&mut self, ready: Vec<Ready>) -> Result<(), Failure> {
        let (mut alone, mut company): (Vec<_>, Vec<_>) = ready.into_iter().partition(|r| r.alone);
        company.sort_by_key(|r| r.job_id);
        for group in company.chunks(JOBS_MAX) {
            let ids: Vec<U256> = group.iter().map(|r| r.job_id).collect();
            let sent = match (group, pack_jobs(&ids)) {
                ([_, _, ..], Ok(packed)) => {
                    let call = self.hub.finalise_batch(&packed);
                    self.send_batch(Step::Finalise, ids, Vec::new(), call).await?
                }
                _ => false,
            };
            if !sent {
                alone.extend_from_slice(group);
            }
        }
        for r in alone {
            let call = self.hub.finalise(r.job_id);
            self.submit(r.job_id, Step::Finalise, r.attempt, call).await?;
        }
        Ok(())
    }

    /// The secret of a batch: derived like a single one ([`Neuron::salt`]), from the list of its jobs.
    fn batch_salt(&self, packed: &[u8]) -> B256 {
        self.derived(b"bitai/salt/batch/v0", keccak256(packed).as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reveals_everything_at_once_unless_somebody_could_still_copy_it() {
        use Leaf::{Open, Ready, Secret};
        assert_eq!(nodes(&[Ready; 5]), [1]);
        assert_eq!(nodes(&[Ready]), [1]);
        assert_eq!(nodes(&[Open, Ready, Open]), [1]);
        assert_eq!(nodes(&[Open, Open]), [0u64; 0]);
        // Eight leaves, 8 to 15: the third is secret.
        assert_eq!(
            nodes(&[Ready, Ready, Secret, Ready, Ready, Ready, Ready, Open]),
            [4, 11, 3]
        );
        assert_eq!(nodes(&[Secret, Open, Ready, Ready, Ready]), [5, 3]);
        assert_eq!(nodes(&[Secret; 3]), [0u64; 0]);
    }

    #[test]
    fn every_node_holds_the_leaves_that_it_reveals() {
        assert_eq!(beneath(1, 5), 0..5);
        assert_eq!(beneath(2, 5), 0..4);
        assert_eq!(beneath(3, 5), 4..5);
        assert_eq!(beneath(8, 5), 0..1);
        assert_eq!(beneath(12, 5), 4..5);
        assert_eq!(beneath(1, 1), 0..1);
    }
}
