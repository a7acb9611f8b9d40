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
        b256!("ad65d16535c217579d3d8729e0d238a7063f50390bb5146d0f8be24376462cee"),
    ),
    (
        Named::Tiny,
        Profile::B,
        b256!("c5b53e3966e48be8566cca89fb09da5e2033c5427f16bf8a2bf06fad4d42073b"),
    ),
    (
        Named::Half,
        Profile::A,
        b256!("627e3c8bfb56fd2497e0eccdea7374ada4c43f073d136c236ba1da2d4e5c528a"),
    ),
    (
        Named::Half,
        Profile::B,
        b256!("8053e69b5979499ddfa507e7c5f0abf374dd75fb17a960113e1d0a472367fece"),
    ),
    (
        Named::One,
        Profile::A,
        b256!("920b9d44c3c704ca4c85b5564fbbad9cab29ca78f4d276caae16be62fe9f53d1"),
    ),
    (
        Named::One,
        Profile::B,
        b256!("914062ddef6b7c93708ab73a06e398e3acecfbb8931258c67abb949c9f6e6809"),
    ),
    (
        Named::Eight,
        Profile::B,
        b256!("24b68afc0cbfc1e6f82ea927cf1c6f63a56ac87c1692e4de14e6463366d85ae8"),
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
