// Linear for 1 to 8 rows (decode; rules L1 to L5): the weight is streamed once.
//
// Bytes: n * k of weight (5 us for 4,096 x 4,096 at an H100's 3.35 TB/s); operations: rows * planes / 4 dp4a a byte. A multiprocessor's share of
// the bandwidth is 25 bytes a ns and memory answers after some 700 ns, so 20 KiB must be under way in each: a thread has two
// 16-byte loads of OUTS = 4 weight rows out at once, 160 threads of them are enough. Eight rows of two planes need 60 dp4a a clock and
// multiprocessor, about what it has.
//
// A block makes 4 outputs of every row; its warps split k. Each warp stays within one segment, so it has one sum a value: first in
// registers, then over the lanes (each step halves the values that a lane still holds), then over the warps in shared memory, where
// a thread a value ends with L2 to L4. x is read straight from the caches: a load of x serves four of w.
//
// Needs: k % 16 == 0, rows of w, hi and lo aligned to 16 bytes, segments of a multiple of 32 elements, rows <= the kernel's.
// grid (ceil(n / 4)), block 32 * warps, warps a multiple of `segments`, at most 8: max(segments, the power of two at or above k / 1,024)
// is a good choice. Static shared memory, 2 KiB at most.
#include "linear.h"
#include "team_sums.h"

namespace gemv {

constexpr u32 OUTS = 4;
constexpr u32 WARPS_MAX = 8;
// Elements of a 16-byte load.
constexpr u32 CHUNK = 16;

DEVICE i32 dot16(const uint4& x, const uint4& w, i32 acc) {
    acc = __dp4a(static_cast<i32>(x.x), static_cast<i32>(w.x), acc);
    acc = __dp4a(static_cast<i32>(x.y), static_cast<i32>(w.y), acc);
    acc = __dp4a(static_cast<i32>(x.z), static_cast<i32>(w.z), acc);
    return __dp4a(static_cast<i32>(x.w), static_cast<i32>(w.w), acc);
}

// L2 to L4 of one output element, from the warps' sums of each plane.
template <u32 ROWS, u32 PLANES>
DEVICE void finish_value(const LinearArgs& a, const i32 (&sums)[WARPS_MAX][OUTS * ROWS * PLANES], u32 parts, u32 value) {
    const u32 row = value / OUTS, out = blockIdx.x * OUTS + value % OUTS;
    if (row >= a.rows || out >= a.n) return;
    const u32 w_scale = a.w_scales[out];
    const i32 limit = segment_limit(a.segments);
    i32 sum = 0;
    for (u32 s = 0; s < a.segments; s++) {
        i32 hi = 0, lo = 0;
        for (u32 p = 0; p < parts; p++) {
            hi += sums[s * parts + p][value];
            if (PLANES == 2) lo += sums[s * parts + p][value + (PLANES - 1) * OUTS * ROWS];
        }
        const u32 x_scale = a.x_scales[static_cast<u64>(row) * a.segments + s];
        const i32 y = PLANES == 2 ? requant_a16(hi, lo, x_scale, w_scale, a.f_out) : requant_a8(hi, x_scale, w_scale, a.f_out);
        sum += clamp_segment(y, limit);
    }
    a.out[static_cast<u64>(row) * a.n + out] = add_bias(a, sum, out);
}

// Where a thread reads: the rows of its outputs and of x from its first chunk on.
template <u32 ROWS, u32 PLANES, bool MULT>
struct Rows {
    const u8* w[OUTS];
    const u8* x[PLANES][ROWS];
    const u8* mult[MULT ? OUTS : 1];

    // From chunk `base` of the rows. A row past the end is read as the last one, and its sum is not used.
    METHOD Rows(const LinearArgs& a, u32 base) {
        UNROLL
        for (u32 o = 0; o < OUTS; o++) {
            const u64 out = min(blockIdx.x * OUTS + o, a.n - 1);
            w[o] = reinterpret_cast<const u8*>(a.w) + out * a.k + base * CHUNK;
            if (MULT) mult[MULT ? o : 0] = a.mult + out * (a.k / GROUP);
        }
        UNROLL
        for (u32 r = 0; r < ROWS; r++) {
            const u64 at = static_cast<u64>(min(r, a.rows - 1)) * a.k + base * CHUNK;
            x[0][r] = reinterpret_cast<const u8*>(a.hi) + at;
            if (PLANES == 2) x[PLANES - 1][r] = reinterpret_cast<const u8*>(a.lo) + at;
        }
    }

    // Adds the products of COUNT chunks, `stride` apart, to the sums. All loads of w go out before the first is used.
    template <u32 COUNT>
    METHOD void add(i32 (&acc)[OUTS * ROWS * PLANES], u32 base, u32 first, u32 stride) const {
        uint4 ws[COUNT][OUTS];
        i32 ms[COUNT][MULT ? OUTS : 1];
        UNROLL
        for (u32 u = 0; u < COUNT; u++) {
            UNROLL
            for (u32 o = 0; o < OUTS; o++) {
                ws[u][o] = load_once(w[o] + (first + u * stride) * CHUNK);
                if (MULT) ms[u][MULT ? o : 0] = mult[MULT ? o : 0][(base + first + u * stride) / 2];
            }
        }
        UNROLL
        for (u32 u = 0; u < COUNT; u++) {
            UNROLL
            for (u32 p = 0; p < PLANES; p++) {
                UNROLL
                for (u32 r = 0; r < ROWS; r++) {
                    const uint4 xs = *reinterpret_cast<const uint4*>(x[p][r] + (first + u * stride) * CHUNK);
                    UNROLL
                    for (u32 o = 0; o < OUTS; o++) {
                        i32& v = acc[(p * ROWS + r) * OUTS + o];
                        v = MULT ? v + dot16(xs, ws[u][o], 0) * ms[u][MULT ? o : 0] : dot16(xs, ws[u][o], v);
                    }
                }
            }
        }
    }
};

template <u32 ROWS, u32 PLANES, bool MULT>
DEVICE void run(const LinearArgs& a) {
    constexpr u32 VALUES = OUTS * ROWS * PLANES; // by plane, row, output
    // With many sums a thread has registers for half as many loads, and so there are twice as many threads.
    constexpr u32 AHEAD = ROWS * PLANES < 8 ? 2 : 1;
    using Sums = i32[WARPS_MAX][VALUES];
    SHARED(Sums, sums);
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    // `parts` warps share a segment and take turns with its chunks.
    const u32 parts = blockDim.x / WARP / a.segments, stride = parts * WARP;
    const u32 chunks = a.k / a.segments / CHUNK, base = warp / parts * chunks;
    const Rows<ROWS, PLANES, MULT> rows(a, base);

    i32 acc[VALUES] = {};
    u32 c = warp % parts * WARP + lane;
    for (; c + (AHEAD - 1) * stride < chunks; c += AHEAD * stride) rows.template add<AHEAD>(acc, base, c, stride);
    if (c < chunks) rows.template add<1>(acc, base, c, stride);

    // At most 32 values at a time, so that each lane ends with one.
    constexpr u32 ROUND = VALUES < WARP ? VALUES : WARP;
    UNROLL
    for (u32 first = 0; first < VALUES; first += ROUND) {
        i32 round[ROUND];
        UNROLL
        for (u32 i = 0; i < ROUND; i++) round[i] = acc[first + i];
        team_sums<WARP>(round, lane);
        if (lane % (WARP / ROUND) == 0) sums[warp][first + lane / (WARP / ROUND)] = round[0];
    }
    __syncthreads();
    for (u32 v = threadIdx.x; v < OUTS * ROWS; v += blockDim.x) finish_value<ROWS, PLANES>(a, sums, parts, v);
}

} // namespace gemv

#define GEMV(name, rows, planes, mult, blocks) \
    KERNEL_BOUNDS(name, LinearArgs, gemv::WARPS_MAX* WARP, blocks) { gemv::run<rows, planes, mult>(a); }

GEMV(linear_gemv_a8_1, 1, 1, false, 3)
GEMV(linear_gemv_a8_2, 2, 1, false, 3)
GEMV(linear_gemv_a8_4, 4, 1, false, 2)
GEMV(linear_gemv_a8_8, 8, 1, false, 1)
GEMV(linear_gemv_a8_g32_1, 1, 1, true, 3)
GEMV(linear_gemv_a8_g32_2, 2, 1, true, 3)
GEMV(linear_gemv_a8_g32_4, 4, 1, true, 2)
GEMV(linear_gemv_a8_g32_8, 8, 1, true, 1)
GEMV(linear_gemv_a16_1, 1, 2, false, 3)
GEMV(linear_gemv_a16_2, 2, 2, false, 2)
GEMV(linear_gemv_a16_4, 4, 2, false, 1)
GEMV(linear_gemv_a16_8, 8, 2, false, 1)
GEMV(linear_gemv_a16_g32_1, 1, 2, true, 3)
GEMV(linear_gemv_a16_g32_2, 2, 2, true, 2)
GEMV(linear_gemv_a16_g32_4, 4, 2, true, 1)
GEMV(linear_gemv_a16_g32_8, 8, 2, true, 1)
