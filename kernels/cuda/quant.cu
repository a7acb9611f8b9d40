// Quantisation of groups (Q1 to Q7), after the Walsh-Hadamard transform (W1 to W3) where the site has one: a block a group.
//
// Bytes: 4 read and 1 (A16: 2) written an element; some 15 instructions, with a transform of 512 another 9 additions and 5 shuffles.
// A warp takes pieces of 512 consecutive elements, a lane four neighbours at a time: bits 0, 1 and 7, 8 of an element's number in its
// piece are the register, bits 2 to 6 the lane. So loads are 16 bytes a lane, stores 4, and a stage of the transform is a register
// butterfly or one shuffle: no shared memory, no bank conflicts, no barrier. A transform's block lies whole in a piece, because
// it is a power of two up to 512 that divides the group. Groups up to 512 elements a warp stay in registers from the first read on;
// longer ones go through `tmp` where there is a transform, and are read again where there is none.
// Launch: grid (rows * cols / group), block a power of two of 32 to 1,024.
#include "args.h"
#include "gpu.h"
#include "reduce.h"
#include "row4.h"
#include "spec.h"

namespace quant_ {

constexpr u32 PIECE = 512;

// A warp's piece of the group: v[4 * j + i] is element 128 * j + 4 * lane + i.
struct Piece {
    i32 v[16];

    METHOD static u32 at(u32 piece, u32 j) { return piece * PIECE + 128 * j + 4 * (threadIdx.x % WARP); }

    METHOD void load(const i32* x, u32 piece, u32 n, bool aligned) {
        UNROLL
        for (u32 j = 0; j < 4; j++) {
            int4 four = load4(x, at(piece, j), n, aligned);
            v[4 * j] = four.x, v[4 * j + 1] = four.y, v[4 * j + 2] = four.z, v[4 * j + 3] = four.w;
        }
    }

    METHOD void store(i32* x, u32 piece, u32 n, bool aligned) const {
        UNROLL
        for (u32 j = 0; j < 4; j++) {
            store4(x, at(piece, j), n, aligned, make_int4(v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3]));
        }
    }

    METHOD u32 absmax() const {
        u32 most = 0;
        UNROLL
        for (u32 r = 0; r < 16; r++) most = max(most, magnitude(v[r]));
        return most;
    }

    // A stage between registers whose numbers differ in `bit`.
    METHOD void registers(u32 bit) {
        UNROLL
        for (u32 r = 0; r < 16; r++) {
            if (r & bit) continue;
            i32 x = v[r], y = v[r | bit];
            v[r] = x + y, v[r | bit] = x - y;
        }
    }

    // A stage between lanes whose numbers differ in `bit`.
    METHOD void lanes(u32 bit) {
        bool upper = threadIdx.x % WARP & bit;
        UNROLL
        for (u32 r = 0; r < 16; r++) {
            i32 other = __shfl_xor_sync(FULL, v[r], bit);
            v[r] = upper ? other - v[r] : other + v[r];
        }
    }

    // W2 and W3. Sums stay below 2^31, so plain additions do.
    METHOD void transform(u32 block, i32 s0) {
        UNROLL
        for (u32 r = 0; r < 16; r++) v[r] = wht_input(v[r], s0);
        registers(1);
        if (block > 2) registers(2);
        UNROLL
        for (u32 bit = 1; bit < 32; bit *= 2) {
            if (block > 4 * bit) lanes(bit);
        }
        if (block > 128) registers(4);
        if (block > 256) registers(8);
    }

    // Q6 and Q7.
    METHOD void quantise(const GroupParams& p, i32 q, i8* hi, i8* lo, u32 piece, u32 n, bool aligned) const {
        UNROLL
        for (u32 j = 0; j < 4; j++) {
            int4 x = make_int4(quant_element(v[4 * j], p, q), quant_element(v[4 * j + 1], p, q),
                               quant_element(v[4 * j + 2], p, q), quant_element(v[4 * j + 3], p, q));
            if (lo) {
                store_bytes4(lo, at(piece, j), n, aligned, x);
                x = make_int4(plane_hi(x.x), plane_hi(x.y), plane_hi(x.z), plane_hi(x.w));
            }
            store_bytes4(hi, at(piece, j), n, aligned, x);
        }
    }
};

struct BeforeMaximum;
struct AfterMaximum;

} // namespace quant_

KERNEL(quant, QuantArgs) {
    using quant_::PIECE;
    u32 n = a.group;
    u64 first = static_cast<u64>(blockIdx.x) * n;
    const i32* x = a.x + first;
    i32* tmp = a.wht ? a.tmp + first : nullptr;
    bool aligned = fours(a.x, n), tmp_aligned = fours(a.tmp, n);
    bool out_aligned = n % 4 == 0 && (reinterpret_cast<u64>(a.hi) | reinterpret_cast<u64>(a.lo)) % 4 == 0;
    u32 pieces = (n + PIECE - 1) / PIECE, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    bool once = pieces <= warps;

    quant_::Piece piece;
    u32 most = 0;
    for (u32 p = warp; p < pieces; p += warps) {
        piece.load(x, p, n, aligned);
        most = max(most, piece.absmax());
    }
    most = block_reduce<Maximum, quant_::BeforeMaximum>(most, 0u);
    i32 s0 = 0;
    if (a.wht) {
        s0 = wht_shift(most);
        most = 0;
        for (u32 p = warp; p < pieces; p += warps) {
            if (!once) piece.load(x, p, n, aligned);
            piece.transform(a.wht, s0);
            most = max(most, piece.absmax());
            if (!once) piece.store(tmp, p, n, tmp_aligned);
        }
        most = block_reduce<Maximum, quant_::AfterMaximum>(most, 0u);
    }

    SHARED(GroupParams, params);
    if (warp == 0) {
        GroupParams made = group_params(most, a.planes, static_cast<i32>(a.f_in), s0);
        if (threadIdx.x == 0) {
            params = made;
            a.scales[blockIdx.x] = made.scale;
        }
    }
    __syncthreads();
    GroupParams p = params;
    i32 q = q_max(a.planes);
    i8* hi = a.hi + first;
    i8* lo = a.planes == 2 ? a.lo + first : nullptr;
    for (u32 i = warp; i < pieces; i += warps) {
        if (!once) {
            // What a lane wrote to tmp, the same lane reads.
            if (a.wht) {
                piece.load(tmp, i, n, tmp_aligned);
            } else {
                piece.load(x, i, n, aligned);
            }
        }
        piece.quantise(p, q, hi, lo, i, n, out_aligned);
    }
}
