// Linear for more than 8 rows (prefill and batches; rules L1 to L5) on the int8 tensor cores.
//
// Operations: rows * n * k * planes multiply-adds. Bytes: a block of 128 x 128 reads 2 * 128 * k and does 128 * 128 * k: 64 a byte, where an H100 has some
// 600 multiply-adds a byte of device memory and 300 a byte of the second-level cache, so tiles must come from that
// cache for all but the first reader: blocks that run together share rows or weights. The small tile is for batches up to some 64
// rows, where the weight is read once and is all that counts: 32 outputs a block so that n = 4,096 gives every multiprocessor one.
//
// A stage holds 64 bytes of k of every slot: rows, then outputs; STAGES of them are under way (cp.async). A16 is two planes of the same rows:
// tiles of 16 slots take turns, hi and lo, so a warp loads the weight once for both. A step of 32 of k is one group of multipliers: its
// product is multiplied before it is added. A slot's four pieces of 16 bytes lie in an order of its own, so that the 8 rows of a
// matrix (ldmatrix) and the 8 lanes of a copy touch every bank once.
//
// A segment ends in shared memory: sums go there as the tensor cores leave them and come back row by row, for L2 to L4 in a short loop and
// whole lines of output. Between segments the clamped sums so far wait in `out`, each written and read by one thread.
//
// Needs: k and segments of a multiple of 64 elements, rows of w, hi and lo aligned to 16 bytes, mult to 2.
// linear_gemm_*:  grid (ceil(n / 128), ceil(rows / (128 / planes))), block 256, dynamic shared memory 69,632 bytes (not on sm_75).
// linear_batch_*: grid (ceil(n / 32), ceil(rows / (64 / planes))), block 128, dynamic shared memory 49,664 bytes.
#include "linear.h"

namespace gemm {

// Bytes of k that a step takes of every slot.
constexpr u32 STEP = 64;

// WM x WN warps, each MT x NT mma tiles of 16 slots x 8 outputs.
template <u32 WM, u32 WN, u32 MT_, u32 NT_, u32 STAGES_>
struct Shape {
    static constexpr u32 WARPS_M = WM, MT = MT_, NT = NT_, STAGES = STAGES_;
    static constexpr u32 THREADS = WM * WN * WARP;
    static constexpr u32 SLOTS = WM * MT * 16;
    static constexpr u32 OUTS = WN * NT * 8;
    static constexpr u32 STAGE = (SLOTS + OUTS) * STEP;
    // Copies of 16 bytes that a thread makes for a stage.
    static constexpr u32 UNITS = STAGE / 16 / THREADS;
    // Words from one slot's sums to the next: 8 more than there are, so that 8 slots lie in different banks.
    static constexpr u32 SUMS = OUTS + 8;
    static_assert(STAGE % (16 * THREADS) == 0, "every thread copies as many units");
    static_assert(THREADS / 4 % 8 == 0, "its slots have their pieces in one order");
    static_assert(OUTS <= THREADS && STAGES >= 3, "multipliers come a thread an output, a step later");
};
using Large = Shape<2, 4, 4, 4, 4>;
using Small = Shape<2, 2, 2, 2, 8>;

// Where 16 bytes of a slot lie in a stage.
DEVICE u32 place(u32 slot, u32 piece) { return slot * STEP + (piece ^ (slot / 2 % 4)) * 16; }

template <class S, u32 PLANES, bool MULT>
struct Block {
    static constexpr u32 ROWS = S::SLOTS / PLANES;

    const LinearArgs& a;
    u8* shared;
    u16* mults;
    const u8* from[S::UNITS];
    u32 to, row0, out0, slot_w, out_w, slot_at, out_at;
    i32 acc[S::MT][S::NT][4];

    METHOD Block(const LinearArgs& args, u8* memory) : a(args), shared(memory) {
        mults = reinterpret_cast<u16*>(memory + S::STAGE * S::STAGES);
        const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        slot_w = warp % S::WARPS_M * S::MT * 16;
        out_w = warp / S::WARPS_M * S::NT * 8;
        // The rows that this lane names to ldmatrix. Activations: slots 0..8 and 8..16 of a tile at the step's first piece, then both at
        // its second. Outputs: 8 of them at all four pieces.
        slot_at = place(slot_w + lane % 16, lane / 16);
        out_at = place(S::SLOTS + out_w + lane % 8, lane / 8);
        out0 = blockIdx.x * S::OUTS;
        row0 = blockIdx.y * ROWS;
        const u32 slot = threadIdx.x / 4, piece = threadIdx.x % 4;
        to = place(slot, piece);
        UNROLL for (u32 i = 0; i < S::UNITS; i++)
            from[i] = reinterpret_cast<const u8*>(source(slot + i * S::THREADS / 4)) + piece * 16;
    }

    // The row that fills a slot. Past the end the last one does: what comes of it is not stored.
    METHOD const i8* source(u32 slot) const {
        if (slot >= S::SLOTS) return a.w + static_cast<u64>(min(out0 + slot - S::SLOTS, a.n - 1)) * a.k;
        const u32 row = PLANES == 1 ? slot : slot / 32 * 16 + slot % 16;
        return (PLANES == 2 && slot / 16 % 2 ? a.lo : a.hi) + static_cast<u64>(min(row0 + row, a.rows - 1)) * a.k;
    }

    METHOD void fetch(u32 step) {
        u8* stage = shared + step % S::STAGES * S::STAGE + to;
        UNROLL for (u32 i = 0; i < S::UNITS; i++) cp_async16(stage + i * S::THREADS * 16, from[i] + static_cast<u64>(step) * STEP);
    }

    // Both multipliers of a step for the thread's output of the block.
    METHOD u16 fetch_mult(u32 step) const {
        if (threadIdx.x >= S::OUTS) return 0;
        const u64 out = min(out0 + threadIdx.x, a.n - 1);
        return *reinterpret_cast<const u16*>(a.mult + out * (a.k / GROUP) + step * 2);
    }

    METHOD void put_mult(u32 step, u16 mult) {
        if (threadIdx.x < S::OUTS) mults[step % S::STAGES * S::OUTS + threadIdx.x] = mult;
    }

    // Adds 64 of k, as two steps of 32.
    METHOD void multiply(const u8* stage, const u16* mult) {
        u32 w[S::NT][4];
        u32 both[S::NT];
        UNROLL for (u32 n = 0; n < S::NT; n++) {
            ldmatrix_x4(w[n], stage + out_at + n * 8 * STEP);
            // Two outputs' multipliers of both groups.
            if (MULT) both[n] = *reinterpret_cast<const u32*>(mult + out_w + n * 8 + threadIdx.x % 4 * 2);
        }
        UNROLL for (u32 m = 0; m < S::MT; m++) {
            UNROLL for (u32 half = 0; half < 2; half++) {
                u32 x[4];
                // Pieces 2 and 3 lie where 0 and 1 do but for one bit of the address.
                ldmatrix_x4(x, stage + (slot_at ^ (half * 32)) + m * 16 * STEP);
                UNROLL for (u32 n = 0; n < S::NT; n++) {
                    const u32 outs[2] = {w[n][half * 2], w[n][half * 2 + 1]};
                    if (!MULT) {
                        mma_s8(acc[m][n], x, outs);
                        continue;
                    }
                    i32 part[4] = {0, 0, 0, 0};
                    mma_s8(part, x, outs);
                    UNROLL for (u32 i = 0; i < 4; i++)
                        acc[m][n][i] += part[i] * static_cast<i32>(both[n] >> (i % 2 * 16 + half * 8) & 255);
                }
            }
        }
    }

    // L1 of a segment: the sums of steps first .. end.
    METHOD void sum(u32 first, u32 end) {
        UNROLL for (u32 m = 0; m < S::MT; m++)
            UNROLL for (u32 n = 0; n < S::NT; n++)
                UNROLL for (u32 i = 0; i < 4; i++) acc[m][n][i] = 0;
        // Copies of STAGES - 1 steps are under way ahead of the one in work; a multiplier waits one step more in a register.
        u16 waiting = 0;
        UNROLL for (u32 s = 0; s < S::STAGES - 1; s++) {
            if (first + s < end) {
                fetch(first + s);
                if (MULT && s < S::STAGES - 2) put_mult(first + s, fetch_mult(first + s));
                if (MULT && s == S::STAGES - 2) waiting = fetch_mult(first + s);
            }
            cp_async_commit();
        }
        NO_UNROLL for (u32 s = first; s < end; s++) {
            cp_async_wait<S::STAGES - 2>();
            // Behind this the step's bytes are there for all, and nobody reads the stage of the step before any more.
            __syncthreads();
            const u32 ahead = s + S::STAGES - 1;
            if (MULT) put_mult(ahead - 1, waiting);
            if (ahead < end) {
                fetch(ahead);
                if (MULT) waiting = fetch_mult(ahead);
            }
            cp_async_commit();
            multiply(shared + s % S::STAGES * S::STAGE, mults + s % S::STAGES * S::OUTS);
        }
        cp_async_wait<0>();
        __syncthreads();
    }

    // L2 to L4 of the segment whose sums the threads hold.
    METHOD void fold(u32 segment) {
        i32* sums = reinterpret_cast<i32*>(shared);
        const u32 lane = threadIdx.x % WARP;
        UNROLL for (u32 m = 0; m < S::MT; m++)
            UNROLL for (u32 n = 0; n < S::NT; n++)
                UNROLL for (u32 half = 0; half < 2; half++)
                    *reinterpret_cast<int2*>(sums + (slot_w + m * 16 + half * 8 + lane / 4) * S::SUMS + out_w + n * 8 + lane % 4 * 2) =
                        make_int2(acc[m][n][half * 2], acc[m][n][half * 2 + 1]);
        __syncthreads();
        const u32 column = threadIdx.x % S::OUTS, out = out0 + column;
        if (out < a.n) {
            const u32 w_scale = a.w_scales[out];
            const i32 limit = segment_limit(a.segments);
            const u32 rows = min(ROWS, a.rows - row0);
            UNROLL_4
            for (u32 r = threadIdx.x / S::OUTS; r < rows; r += S::THREADS / S::OUTS) {
                const u64 row = row0 + r;
                const u32 x_scale = a.x_scales[row * a.segments + segment];
                const i32* at = sums + (PLANES == 1 ? r : r / 16 * 32 + r % 16) * S::SUMS + column;
                i32 y = PLANES == 1 ? requant_a8(*at, x_scale, w_scale, a.f_out)
                                    : requant_a16(at[0], at[16 * S::SUMS], x_scale, w_scale, a.f_out);
                i32* to = a.out + row * a.n + out;
                y = clamp_segment(y, limit);
                if (segment > 0) y += *to;
                *to = segment + 1 == a.segments ? add_bias(a, y, out) : y;
            }
        }
        __syncthreads();
    }

    METHOD void run() {
        const u32 steps = a.k / STEP / a.segments;
        NO_UNROLL for (u32 s = 0; s < a.segments; s++) {
            sum(s * steps, (s + 1) * steps);
            fold(s);
        }
    }
};

} // namespace gemm

#define GEMM(name, shape, planes, mult, blocks)                     \
    KERNEL_BOUNDS(name, LinearArgs, gemm::shape::THREADS, blocks) { \
        DYNAMIC_SHARED(u8, memory);                                 \
        gemm::Block<gemm::shape, planes, mult>(a, memory).run();    \
    }

GEMM(linear_gemm_a8, Large, 1, false, 2)
GEMM(linear_gemm_a8_g32, Large, 1, true, 1)
GEMM(linear_gemm_a16, Large, 2, false, 2)
GEMM(linear_gemm_a16_g32, Large, 2, true, 1)
GEMM(linear_batch_a8, Small, 1, false, 4)
GEMM(linear_batch_a8_g32, Small, 1, true, 4)
GEMM(linear_batch_a16, Small, 2, false, 4)
GEMM(linear_batch_a16_g32, Small, 2, true, 4)
