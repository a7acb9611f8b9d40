//! Fleets of fake GPUs under faults: every job is answered once and rightly, and what is wrong is named.

mod faults;
mod kit;
mod owner;

use std::sync::{Arc, atomic::Ordering};

use alloy_primitives::U256;

use super::{State, Undone};
use crate::exit::Failure;
use kit::{Rig, Script, gpus, until};

#[test]
fn every_device_takes_its_share_and_all_answers_are_the_same() {
    let mut rig = Rig::new(3, gpus());
    for fake in &rig.fakes {
        fake.shut(true);
    }
    rig.order(0..6);
    for n in 0..3 {
        until("a step on every device", || {
            rig.fakes[n].steps.load(Ordering::Relaxed) > 0 && rig.reading(n).state == State::Working
        });
    }
    for fake in &rig.fakes {
        fake.shut(false);
    }
    rig.all_right(0..6);
    until("three idle devices", || {
        (0..3).all(|n| rig.reading(n).state == State::Idle)
    });
}

#[test]
fn a_device_that_cannot_be_opened_is_named_and_the_others_go_on() {
    let bad = Arc::new(Script::default());
    bad.bad_opens.store(u32::MAX, Ordering::Relaxed);
    let mut rig = Rig::with(vec![bad, Arc::default()], gpus()).unwrap();
    assert!(rig.until_failed(0).contains("no such device"));
    rig.order(0..3);
    rig.all_right(0..3);
    assert!(rig.devices.faults()[0].1.lost > 0);
    // It is the one fault there is.
    assert_eq!(rig.devices.faults()[1].1.lost, 0);
}

#[test]
fn rejects_a_start_where_no_device_can_be_opened() {
    let bad = Arc::new(Script::default());
    bad.bad_opens.store(u32::MAX, Ordering::Relaxed);
    let failure = Rig::with(vec![bad], gpus()).err().unwrap();
    assert!(
        matches!(&failure, Failure::Lost(why) if why.contains("no such device")),
        "{failure}"
    );
}

#[test]
fn a_recalled_job_is_handed_back_and_others_are_answered() {
    let mut rig = Rig::new(1, gpus());
    rig.fakes[0].shut(true);
    rig.order(0..2);
    until("a step", || rig.fakes[0].steps.load(Ordering::Relaxed) > 0);
    rig.fleet.recall(U256::from(0));
    rig.fleet.heard();
    rig.fakes[0].shut(false);
    let done = rig.next();
    assert!(
        done.job_id == U256::ZERO && matches!(done.result, Err(Undone::Recalled)),
        "{done:?}"
    );
    rig.all_right(1..2);
}
