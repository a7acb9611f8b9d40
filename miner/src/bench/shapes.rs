//! Models to measure without a download: shapes whose integers come from a seed, and the trace root of one fixed job on
//! each, so that a device which computes fast and wrong is found out.

use alloy_primitives::{B256, b256};
use bitai_model::{pack::Profile, synthetic::Shape};
use clap::ValueEnum;

/// Seed of every synthetic weight.
pub(super) const SEED: u64 = 1;

/// A shape by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Named {
    /// 16 layers of width 64: seconds on anything
    Tiny,
    /// Half a billion weights, the shape of Qwen2.5-0.5B
    #[value(name = "0.5b")]
    Half,
    /// A billion weights, the shape of Llama 3.2 1B
    #[value(name = "1b")]
    One,
    /// Eight billion weights, the shape of Llama 3.1 8B
    #[value(name = "8b")]
    Eight,
}

impl Named {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Half => "0.5b",
            Self::One => "1b",
            Self::Eight => "8b",
        }
    }

    /// Its sizes. The context is what a bench uses, not what such a model could take.
    pub fn shape(self, profile: Profile) -> Shape {
        let shape = |layers, heads, kv_heads, head_dim, d_ff, vocab, tied| Shape {
            layers,
            heads,
            kv_heads,
            head_dim,
            d_ff,
            vocab,
            context: 8192,
            tied,
            profile,
        };
        match self {
            Self::Tiny => Shape {
                profile,
                ..Shape::tiny()
            },
            Self::Half => shape(24, 14, 2, 64, 4864, 151_936, true),
            Self::One => shape(16, 32, 8, 64, 8192, 128_256, true),
            Self::Eight => shape(32, 32, 8, 128, 14_336, 128_256, false),
        }
    }

    /// The trace root of [`super::checksum`] on this shape, as every backend must give it.
    pub fn recorded(self, profile: Profile) -> Option<B256> {
        RECORDED
            .iter()
            .find(|(name, p, _)| *name == self && *p == profile)
            .map(|(_, _, root)| *root)
    }
}

/// Roots under tensor spec 0: `tiny` from the reference and both CPU backends, the others from the CPU backend with AVX2. `bench --shape NAME` prints the root that it
/// computes; a new spec version needs them anew.
const RECORDED: &[(Named, Profile, B256)] = &[
    (
        Named::Tiny,
        Profile::A,
        b256!("01e2ee17ce06fa77a754ff1e2c0e8765193552270e72d20b981639aaa7ed235b"),
    ),
    (
        Named::Tiny,
        Profile::B,
        b256!("f240650f9f98baa3296c2039432c013d27d777567b190904658bd54c36ec1c72"),
    ),
    (
        Named::Half,
        Profile::A,
        b256!("8b9f7bdce364e607457b638e98c34c9e8448e80a5a831b4002fab1ab60319404"),
    ),
    (
        Named::Half,
        Profile::B,
        b256!("c760486a8856044e189fca45291d5634acf9db518ceca1f75ad385b59c9faee8"),
    ),
    (
        Named::One,
        Profile::A,
        b256!("2c3176036f99f4ba48ca58a6b2bbfecf563afc174c1a5690c6c509b8319e457d"),
    ),
    (
        Named::One,
        Profile::B,
        b256!("71b0933212d584777a81555e51fdb8dd358caf212802ec5107a3752a17592c76"),
    ),
    (
        Named::Eight,
        Profile::B,
        b256!("64459de7f58feb01b3746bb950bad5d324607b19f051f16a6ef00a593e2188ab"),
    ),
];

#[cfg(test)]
mod tests {
    use bitai_kernels::cpu::CpuDevice;
    use bitai_model::synthetic;

    use super::*;
    use crate::bench::checksum;

    #[test]
    fn the_tiny_shape_gives_the_recorded_roots() {
        for profile in [Profile::A, Profile::B] {
            let pack = synthetic::pack(&Named::Tiny.shape(profile), SEED).unwrap();
            let root = checksum(&pack, &CpuDevice::new(1).unwrap()).unwrap();
            assert_eq!(Some(root), Named::Tiny.recorded(profile));
        }
    }
}
