//! The ceiling of the machine's multiply-adds, for benches: the instructions of the linear loops on registers
//! alone.

use crate::cpu::Isa;

/// Does a few thousand int8 multiply-adds a round on the calling thread, in the instructions that exact int8
/// sums take on `isa`; how many were done.
pub(in crate::cpu) fn multiply_adds(isa: Isa, rounds: usize) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => super::avx2::multiply_adds(rounds),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => super::vnni::multiply_adds(rounds),
        #[cfg(target_arch = "x86_64")]
        Isa::AmxInt8 => super::amx::multiply_adds(rounds),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => super::neon::multiply_adds(rounds),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => super::neon_dot::multiply_adds(rounds),
        _ => plain(rounds),
    }
}

/// Plain Rust over arrays of the nearest cache.
fn plain(rounds: usize) -> u64 {
    const LEN: usize = 512;
    let (w, x) = (
        std::hint::black_box([3i8; LEN]),
        std::hint::black_box([5i16; LEN]),
    );
    for _ in 0..rounds {
        std::hint::black_box(super::portable::dot(std::hint::black_box(&w), &x));
    }
    (rounds * LEN) as u64
}
