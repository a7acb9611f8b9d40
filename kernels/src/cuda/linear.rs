//! Which kernel computes a linear site, by its shape, and how many blocks it takes. The needs of each stand in its file
//! under `kernels/cuda`; the tests hold the two together.

/// What decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) segments: usize,
    pub(crate) planes: u8,
    pub(crate) grouped: bool,
}

/// A kernel and its geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) kernel: &'static str,
    pub(crate) grid: [u32; 3],
    pub(crate) block: u32,
    pub(crate) shared: u32,
}

/// Most blocks in the second and third dimension of a grid.
pub(crate) const GRID_MAX: usize = 65_535;
/// Most rows that stream the weight once (`linear_gemv.cu`).
const GEMV_ROWS: usize = 8;
/// Slots (rows times planes) up to which the small tile is the better one.
const BATCH_SLOTS: usize = 128;

/// Kernel names by planes and multipliers.
fn name(names: [&'static str; 4], s: Shape) -> &'static str {
    names[2 * usize::from(s.planes == 2) + usize::from(s.grouped)]
}

/// The kernel for a shape on a GPU whose blocks may have `shared_max` bytes of shared memory.
pub(crate) fn choose(s: Shape, shared_max: u32) -> Choice {
    let segment = s.k / s.segments;
    if s.rows <= GEMV_ROWS && s.k.is_multiple_of(16) && segment.is_multiple_of(32) {
        return gemv(s);
    }
    if s.rows > GEMV_ROWS && segment.is_multiple_of(64) {
        return gemm(s, shared_max);
    }
    const WARPS: usize = 4;
    Choice {
        kernel: "linear_any",
        grid: [s.n.div_ceil(WARPS) as u32, s.rows.min(GRID_MAX) as u32, 1],
        block: 32 * WARPS as u32,
        shared: 0,
    }
}

fn gemv(s: Shape) -> Choice {
    const OUTPUTS: usize = 4;
    const WARPS_MAX: usize = 8;
    let names = match s.rows {
        1 => [
            "linear_gemv_a8_1",
            "linear_gemv_a8_g32_1",
            "linear_gemv_a16_1",
            "linear_gemv_a16_g32_1",
        ],
        2 => [
            "linear_gemv_a8_2",
            "linear_gemv_a8_g32_2",
            "linear_gemv_a16_2",
            "linear_gemv_a16_g32_2",
        ],
        3 | 4 => [
            "linear_gemv_a8_4",
            "linear_gemv_a8_g32_4",
            "linear_gemv_a16_4",
            "linear_gemv_a16_g32_4",
        ],
        _ => [
            "linear_gemv_a8_8",
            "linear_gemv_a8_g32_8",
            "linear_gemv_a16_8",
            "linear_gemv_a16_g32_8",
        ],
    };
    let warps =
        s.k.div_ceil(1024)
            .next_power_of_two()
            .max(s.segments)
            .min(WARPS_MAX);
    Choice {
        kernel: name(names, s),
        grid: [s.n.div_ceil(OUTPUTS) as u32, 1, 1],
        block: 32 * warps as u32,
        shared: 0,
    }
}

fn gemm(s: Shape, shared_max: u32) -> Choice {
    const LARGE: u32 = 69_632;
    let planes = usize::from(s.planes);
    let tile = |outputs: usize, slots: usize| {
        let down = s.rows.div_ceil(slots / planes).min(GRID_MAX);
        [s.n.div_ceil(outputs) as u32, down as u32, 1]
    };
    if s.rows * planes <= BATCH_SLOTS || LARGE > shared_max {
        let names = [
            "linear_batch_a8",
            "linear_batch_a8_g32",
            "linear_batch_a16",
            "linear_batch_a16_g32",
        ];
        return Choice {
            kernel: name(names, s),
            grid: tile(32, 64),
            block: 128,
            shared: 49_664,
        };
    }
    let names = [
        "linear_gemm_a8",
        "linear_gemm_a8_g32",
        "linear_gemm_a16",
        "linear_gemm_a16_g32",
    ];
    Choice {
        kernel: name(names, s),
        grid: tile(128, 128),
        block: 256,
        shared: LARGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        rows: 1,
        n: 1000,
        k: 576,
        segments: 1,
        planes: 2,
        grouped: false,
    };

    #[test]
    fn the_shape_chooses_the_kernel() {
        let of = |s: Shape| choose(s, 227 << 10).kernel;
        assert_eq!(of(SHAPE), "linear_gemv_a16_1");
        assert_eq!(
            of(Shape {
                rows: 3,
                planes: 1,
                grouped: true,
                ..SHAPE
            }),
            "linear_gemv_a8_g32_4"
        );
        assert_eq!(of(Shape { rows: 9, ..SHAPE }), "linear_batch_a16");
        assert_eq!(
            of(Shape {
                rows: 300,
                planes: 1,
                ..SHAPE
            }),
            "linear_gemm_a8"
        );
        assert_eq!(
            of(Shape {
                rows: 300,
                k: 96,
                ..SHAPE
            }),
            "linear_any"
        );
        assert_eq!(of(Shape { k: 33, ..SHAPE }), "linear_any");
        assert_eq!(
            of(Shape {
                k: 512,
                segments: 8,
                ..SHAPE
            }),
            "linear_gemv_a16_1"
        );
        assert_eq!(
            choose(
                Shape {
                    k: 512,
                    segments: 8,
                    ..SHAPE
                },
                1 << 16
            )
            .block,
            256
        );
    }
}
