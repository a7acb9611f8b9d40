//! The conformance suite on the emulated GPU, in several orders of threads and blocks; what a runner refuses.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use rayon::prelude::*;

use super::*;
use crate::conformance;

/// Enough for every case of the suite.
const MEMORY: u64 = 256 << 20;

/// Each case in one of three orders of threads and blocks (ascending is one), which must not show.
#[test]
fn the_emulated_gpu_passes_the_conformance_suite_with_every_kernel_that_there_is() {
    let cases = conformance::cases::all();
    assert!(cases.len() > 100, "{}", cases.len());
    cases.par_iter().enumerate().for_each(|(i, case)| {
        let device = CudaDevice::emulated(i as u64 % 3, MEMORY);
        conformance::check_case(&device, case).unwrap();
    });
    let used = emulator::used();
    let unused: Vec<_> = emulator::kernels()
        .into_iter()
        .filter(|k| !used.contains(k))
        .collect();
    assert!(unused.is_empty(), "{unused:?} never ran");
}

#[test]
fn rejects_a_model_larger_than_the_memory() {
    let case = conformance::Shape::SMALL.build("too large");
    match CudaDevice::emulated(0, 1000).load(case.program.clone(), &case.tensors) {
        Err(KernelError::OutOfMemory { need, free: 1000, .. }) => assert!(need > 1000),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn rejects_a_sequence_that_the_cache_has_no_room_for() {
    let case = conformance::Shape::SMALL.build("full cache");
    let mut device = CudaDevice::emulated(0, MEMORY);
    device.memory.cache_bytes = Some(0);
    let mut runner = device.load(case.program.clone(), &case.tensors).unwrap();
    let first = runner.open(1).unwrap();
    match runner.open(1) {
        Err(KernelError::OutOfMemory { need, free: 0, .. }) => assert!(need > 0),
        other => panic!("{other:?}"),
    }
    runner.close(first);
    runner.open(1).unwrap();
}

#[test]
fn a_cache_for_one_sequence_holds_it_and_no_other() {
    let case = conformance::Shape::SMALL.build("one sequence");
    let device = CudaDevice::emulated(0, MEMORY);
    let tokens = case.program.context;
    let mut runner = device
        .load_for(case.program.clone(), &case.tensors, tokens)
        .unwrap();
    let first = runner.open(tokens).unwrap();
    assert!(matches!(
        runner.open(1),
        Err(KernelError::OutOfMemory { free: 0, .. })
    ));
    runner.close(first);
    runner.open(tokens).unwrap();
}

/// Roots of a case's tokens in two steps, few rows at a time. From the second step on the nth allocation fails and the
/// step is taken again; None where nothing failed.
fn roots_after_a_failure(case: &conformance::Case, tokens: &[u32], nth: u32) -> (bool, Vec<crate::Hash>) {
    let driver = Arc::new(emulator::Emulator::new(0, MEMORY));
    let memory = Memory {
        cache_bytes: Some(MEMORY / 16),
    };
    let limits = runner::Limits { body: 4, waiting: 8 };
    let door: Arc<dyn Driver> = driver.clone();
    let mut runner =
        runner::CudaRunner::load(door, memory, limits, case.program.clone(), &case.tensors).unwrap();
    let seq = runner.open(tokens.len() as u32).unwrap();
    let (first, rest) = tokens.split_at(3);
    let step = |tokens| crate::SeqStep {
        seq,
        tokens,
        sample: 0,
        sampler: &crate::Sampler::Greedy,
    };
    runner.step(&[step(first)], None).unwrap();
    driver.fail_at(nth);
    let failed = runner.step(&[step(rest)], None).is_err();
    driver.fail_at(0);
    if failed {
        assert_eq!(runner.len(seq).unwrap(), 3);
        runner.step(&[step(rest)], None).unwrap();
    }
    runner.hash(seq).unwrap();
    let (at, roots) = runner.take_bodies(seq, true).unwrap();
    assert_eq!((at, roots.len()), (0, tokens.len()));
    (failed, roots)
}

#[test]
fn a_step_that_fails_anywhere_is_taken_back_whole() {
    let case = conformance::Shape::SMALL.build("failing memory");
    // More rows than may wait to be hashed: hashing starts within the step.
    let tokens: Vec<u32> = (0..40).map(|i| i * 7 % case.program.vocab).collect();
    let (_, want) = roots_after_a_failure(&case, &tokens, 0);
    let mut failures = 0;
    for nth in (1..).step_by(9) {
        let (failed, roots) = roots_after_a_failure(&case, &tokens, nth);
        assert!(roots == want, "after a failure of allocation {nth}");
        if !failed {
            break;
        }
        failures += 1;
    }
    assert!(failures > 3, "{failures}");
}
