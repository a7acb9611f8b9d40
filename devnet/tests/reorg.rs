//! A Bitcoin reorg that takes the neuron's commit away: the job is answered again on the new branch, paid once.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use alloy_primitives::U256;
use bitai_contracts::{JobStatus, SlotState};
use bitai_devnet::{Devnet, accounts::Account};
use bitai_miner::{ask, chain::hub::state_of};
use bitai_node::{
    bitcoin::{Backend, embedded::EmbeddedRegtest},
    inscriber::keys::Keys,
};
use common::{copy_blocks, job, options, post, settled, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_reorg_removed_is_made_again_and_paid_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), true);
    let devnet = Devnet::start(&options).await.unwrap();
    let me = Account::named("neuron").address();
    let main = std::sync::Arc::clone(&devnet.node.parts().backend);

    // A second Bitcoin that knows the chain up to just after the job was posted.
    let job_id = post(&devnet, &job(&devnet, 9, 24)).await;
    let other = EmbeddedRegtest::open(&dir.path().join("fork")).unwrap();
    let fork_height = main.tip().unwrap().height;
    copy_blocks(main.as_ref(), &other, 0, fork_height);

    until("the neuron has committed", || async {
        let slot = devnet.hub.slot(job_id, me).await.unwrap();
        !matches!(state_of(&slot), SlotState::None | SlotState::Assigned)
    })
    .await;
    let before = devnet.hub.flow(job_id).await.unwrap();
    let commit = before
        .iter()
        .find(|f| f.event.contains("commit"))
        .unwrap()
        .clone();

    // The other branch grows past the first and takes over: its blocks hold none of the job's later steps.
    let nobody = Keys::from_seed(&[9; 32], main.network()).script();
    until("the other branch is the longer one", || async {
        let ahead = main.tip().unwrap().height + 3 - other.tip().unwrap().height;
        other.generate(u32::try_from(ahead).unwrap(), &nobody).unwrap();
        copy_blocks(&other, main.as_ref(), fork_height, u64::MAX);
        let at = fork_height + 1;
        main.hash_at(at).unwrap() == other.hash_at(at).unwrap()
    })
    .await;

    settled(&devnet, job_id).await.unwrap();
    let after = devnet.hub.flow(job_id).await.unwrap();
    let again = after.iter().find(|f| f.event.contains("commit")).unwrap();
    assert_ne!(
        again.height, commit.height,
        "the commit stands in another block now"
    );
    paid_once(&devnet, job_id).await;
    devnet.stop().await.unwrap();
}

async fn paid_once(devnet: &Devnet, job_id: U256) {
    let job = devnet.hub.job(job_id).await.unwrap().unwrap();
    assert_eq!(JobStatus::from_u8(job.status), Some(JobStatus::Settled));
    let steps: Vec<_> = ask::legs(&devnet.hub, job_id)
        .await
        .unwrap()
        .into_iter()
        .map(|l| l.step)
        .collect();
    assert_eq!(
        steps.iter().filter(|s| s.contains("finalise")).count(),
        1,
        "{steps:?}"
    );
    assert_eq!(
        steps.iter().filter(|s| s.contains("commit")).count(),
        1,
        "{steps:?}"
    );
}
