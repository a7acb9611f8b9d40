//! The conformance suite on the emulated GPU, in several orders of threads and blocks; what a runner refuses.

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
