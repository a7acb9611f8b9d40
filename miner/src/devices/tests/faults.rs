//! What devices do wrong.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::kit::{Rig, Script, gpus, pci, until};
use crate::{
    devices::{Gpus, Pause, State, Undone},
    exit::Failure,
};

#[test]
fn one_of_three_dies_while_jobs_flow_and_every_job_is_answered_once() {
    let mut rig = Rig::new(3, gpus());
    rig.fakes[1].loses_in.store(4, Ordering::Relaxed);
    rig.fakes[1].bad_opens.store(u32::MAX, Ordering::Relaxed);
    rig.order(0..12);
    rig.all_right(0..12);
    let why = rig.until_failed(1);
    assert!(why.contains("lost") || why.contains("no such device"), "{why}");
    let faults = rig.devices.faults();
    assert_eq!(faults[1].0, pci(1));
    assert!(faults[1].1.lost > 0, "{faults:?}");
    assert_eq!((faults[0].1.lost, faults[2].1.lost), (0, 0), "{faults:?}");
}

#[test]
fn a_lost_gpu_is_opened_again_until_it_is_back() {
    let mut rig = Rig::new(1, gpus());
    rig.fakes[0].loses_in.store(3, Ordering::Relaxed);
    rig.fakes[0].bad_opens.store(2, Ordering::Relaxed);
    rig.order(0..2);
    rig.all_right(0..2);
    // The first one, two that failed, the one that helped.
    assert_eq!(rig.fakes[0].opens.load(Ordering::Relaxed), 4);
    assert_eq!(rig.devices.faults()[0].1.lost, 3);
}

#[test]
fn rejects_a_job_that_every_device_fails_under() {
    let mut rig = Rig::new(1, gpus());
    rig.fakes[0].bad_steps.store(3, Ordering::Relaxed);
    rig.order(0..1);
    let done = rig.next();
    let Err(Undone::Failed(Failure::Device(why))) = done.result else {
        panic!("{done:?}")
    };
    assert!(
        why.contains("3 devices failed under it") && why.contains(&pci(0)),
        "{why}"
    );
}

#[test]
fn a_hung_gpu_is_left_and_its_jobs_go_to_another_one() {
    let mut rig = Rig::new(
        2,
        Gpus {
            hang_after: Duration::from_secs(2),
            ..gpus()
        },
    );
    rig.fakes[0].shut(true);
    rig.order(0..4);
    rig.all_right(0..4);
    let why = rig.until_failed(0);
    assert!(why.contains("hung") && why.contains("gpu.hang_after"), "{why}");
    assert_eq!(rig.devices.faults()[0].1.hung, 1);
    // It is not opened anew while its old thread is in the step; then it is.
    assert_eq!(rig.fakes[0].opens.load(Ordering::Relaxed), 1);
    rig.fakes[0].shut(false);
    until("the device back", || rig.reading(0).state == State::Idle);
    assert_eq!(rig.fakes[0].opens.load(Ordering::Relaxed), 2);
    rig.order(4..8);
    rig.all_right(4..8);
}

#[test]
fn a_fleet_ends_while_a_gpu_hangs() {
    let rig = Rig::new(1, gpus());
    let fake = Arc::clone(&rig.fakes[0]);
    fake.shut(true);
    rig.order(0..1);
    until("a step", || fake.steps.load(Ordering::Relaxed) > 0);
    drop(rig);
    fake.shut(false);
}

#[test]
fn what_does_not_fit_side_by_side_runs_in_turns() {
    let mut rig = Rig::new(1, gpus());
    rig.fakes[0].fits.store(2, Ordering::Relaxed);
    rig.fakes[0].shut(true);
    rig.order(0..7);
    rig.fakes[0].shut(false);
    rig.all_right(0..7);
    assert_eq!(rig.devices.faults()[0].1.no_room, 0);
}

#[test]
fn a_job_without_room_goes_to_another_device_and_is_refused_by_numbers_where_there_is_none() {
    let mut rig = Rig::new(2, gpus());
    *rig.fakes[0].is_full.lock().unwrap() = true;
    rig.order(0..1);
    rig.all_right(0..1);
    assert_eq!(rig.devices.faults()[0].1.no_room, 1);
    *rig.fakes[1].is_full.lock().unwrap() = true;
    rig.order(1..2);
    let done = rig.next();
    let Err(Undone::Failed(Failure::NoRoom(why))) = done.result else {
        panic!("{done:?}")
    };
    assert!(why.contains("4096 bytes needed, 77 free"), "{why}");
    // Neither is sick for it.
    assert_eq!(rig.devices.faults()[1].1.failed, 0);
    *rig.fakes[1].is_full.lock().unwrap() = false;
    rig.order(2..3);
    rig.all_right(2..3);
}

#[test]
fn a_hot_gpu_stops_and_its_jobs_go_to_a_cool_one() {
    let mut rig = Rig::new(2, gpus());
    rig.fakes[0].shut(true);
    rig.order(0..4);
    until("a step", || rig.fakes[0].steps.load(Ordering::Relaxed) > 0);
    rig.heat(0, Some(95));
    assert_eq!(rig.until_paused(0), Pause::Hot { at: 90, resume: 80 });
    rig.fakes[0].shut(false);
    rig.all_right(0..4);
    assert_eq!(rig.reading(0).temperature, Some(95));
    // Not before it has cooled.
    rig.heat(0, Some(85));
    until("85 degrees", || rig.reading(0).temperature == Some(85));
    assert!(matches!(rig.reading(0).state, State::Paused { .. }));
    rig.heat(0, Some(80));
    until("a cool device", || rig.reading(0).state == State::Idle);
    assert_eq!(rig.devices.faults()[0].1.hot, 1);
}

#[test]
fn the_only_gpu_keeps_its_jobs_while_it_cools_and_goes_on_with_them() {
    let mut rig = Rig::new(1, gpus());
    let fake = Arc::clone(&rig.fakes[0]);
    fake.shut(true);
    rig.order(0..1);
    until("a step", || fake.steps.load(Ordering::Relaxed) > 0);
    rig.heat(0, Some(90));
    rig.until_paused(0);
    fake.shut(false);
    // The step under way ends, and none follows however long it stays warm.
    for degrees in (81..90).rev() {
        rig.heat(0, Some(degrees));
        until("a look later", || rig.reading(0).temperature == Some(degrees));
    }
    assert!(fake.steps.load(Ordering::Relaxed) <= 2);
    rig.heat(0, Some(70));
    rig.all_right(0..1);
    assert!(fake.steps.load(Ordering::Relaxed) <= 9, "it began anew");
}

#[test]
fn mining_goes_on_where_the_drivers_figures_go_away() {
    let mut rig = Rig::new(1, gpus());
    until("figures", || rig.reading(0).temperature == Some(50));
    rig.heat(0, None);
    until("no figures", || rig.reading(0).temperature.is_none());
    assert_eq!(rig.devices.faults()[0].1.unread, 1);
    assert_eq!(rig.reading(0).milliwatts, None, "absent, never zero");
    rig.order(0..2);
    rig.all_right(0..2);
    rig.heat(0, Some(60));
    until("figures again", || rig.reading(0).temperature == Some(60));
}

#[test]
fn a_gpu_that_computes_wrongly_is_found_named_and_paused() {
    let bad = Arc::new(Script::default());
    *bad.errs.lock().unwrap() = true;
    let checked = Gpus {
        recheck_percent: 100,
        ..gpus()
    };
    let mut rig = Rig::with(vec![bad, Arc::default()], checked).unwrap();
    rig.order(0..1);
    let lie = rig.next().result.unwrap();
    assert_ne!(lie.root().unwrap(), rig.right(0));
    let done = rig.next();
    let Err(Undone::Wrong(why)) = done.result else {
        panic!("{done:?}")
    };
    assert!(
        why.contains("GPU 0") && why.contains(&pci(0)) && why.contains("position 1"),
        "{why}"
    );
    assert_eq!(rig.until_paused(0), Pause::Wrong { job: "0".into() });
    assert_eq!(
        (rig.devices.faults()[0].1.wrong, rig.devices.faults()[0].1.checked),
        (1, 1)
    );
    // The neuron orders it again, and the other one answers.
    rig.order(0..3);
    rig.all_right(0..3);
    until("right results checked", || rig.devices.faults()[1].1.checked == 3);
    assert_eq!(rig.devices.faults()[1].1.wrong, 0);
}
