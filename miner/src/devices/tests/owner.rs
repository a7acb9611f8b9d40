//! What the owner asks of devices.

use std::sync::{Arc, atomic::Ordering};

use alloy_primitives::U256;

use super::kit::{Rig, Script, gpus, until};
use crate::devices::{Devices, Pause, State};

#[test]
fn a_paused_device_finishes_what_it_has_and_takes_no_more() {
    let mut rig = Rig::new(1, gpus());
    rig.fakes[0].shut(true);
    rig.order(0..1);
    until("a step", || rig.fakes[0].steps.load(Ordering::Relaxed) > 0);
    let id = rig.reading(0).id;
    rig.devices.pause(&id, "the cat sleeps on it").unwrap();
    let words = "the cat sleeps on it".to_owned();
    assert_eq!(rig.until_paused(0), Pause::Asked { words });
    rig.order(1..2);
    rig.fakes[0].shut(false);
    rig.all_right(0..1);
    let job = U256::from(1);
    until("a job that waits", || rig.devices.waiting(&job).is_some());
    let why = rig.devices.waiting(&job).unwrap();
    assert!(why.contains("the cat"), "{why}");
    rig.devices.resume("all").unwrap();
    rig.all_right(1..2);
}

#[test]
fn rejects_a_device_that_is_not_there() {
    let rig = Rig::new(1, gpus());
    let why = rig.devices.pause("0000:99:00", "").unwrap_err().to_string();
    assert!(why.contains("0000:99:00") && why.contains("0000:01:00"), "{why}");
    assert!(Devices::default().resume("all").is_err(), "no neuron, no devices");
    let devices = rig.devices.clone();
    drop(rig);
    assert!(devices.readings().is_empty());
}

#[test]
fn a_gpu_that_was_paused_for_a_wrong_result_goes_on_when_its_owner_says_so() {
    let bad = Arc::new(Script::default());
    *bad.errs.lock().unwrap() = true;
    let mut rig = Rig::with(
        vec![Arc::clone(&bad)],
        crate::devices::Gpus {
            recheck_percent: 1,
            ..gpus()
        },
    )
    .unwrap();
    rig.order(0..1);
    rig.next();
    rig.next();
    rig.until_paused(0);
    rig.order(1..2);
    rig.devices.resume(&rig.reading(0).id).unwrap();
    // One per cent: the second result is not checked.
    assert!(rig.next().result.is_ok());
    until("an idle device", || rig.reading(0).state == State::Idle);
    assert_eq!(rig.devices.faults()[0].1.checked, 1);
}
