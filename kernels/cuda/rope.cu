// Rotary position embedding (P1, P2): pairs of elements of every head, by cosines and sines of the row's position.
//
// Bytes: 8 an element and 2 * head_dim bytes of table a row; four 64-bit products a pair. One block does a row, so in decoding it is latency that
// counts: a thread has four pairs under way. Launch: grid (rows), any block. A thread writes the pairs that it has read, so out may be x.
#include "args.h"
#include "gpu.h"
#include "spec.h"

KERNEL(rope, RopeArgs) {
    constexpr u32 BATCH = 4;
    u32 half = a.head_dim / 2, pairs = a.heads * half, with = a.halves ? half : 1;
    u64 row = static_cast<u64>(blockIdx.x) * a.heads * a.head_dim;
    const i32* x = a.x + row;
    i32* out = a.out + row;
    const i16* table = a.table + static_cast<u64>(a.positions[blockIdx.x]) * a.head_dim;
    for (u32 first = threadIdx.x; first < pairs; first += BATCH * blockDim.x) {
        u32 at[BATCH];
        i32 v[BATCH][2], turn[BATCH][2];
        UNROLL
        for (u32 j = 0; j < BATCH; j++) {
            // Past the end: the last pair once more, not written.
            u32 p = min(first + j * blockDim.x, pairs - 1), i = p % half;
            at[j] = p / half * a.head_dim + (a.halves ? i : 2 * i);
            v[j][0] = x[at[j]], v[j][1] = x[at[j] + with];
            turn[j][0] = table[i], turn[j][1] = table[half + i];
        }
        UNROLL
        for (u32 j = 0; j < BATCH; j++) {
            if (first + j * blockDim.x >= pairs) break;
            int2 r = rotate(v[j][0], v[j][1], turn[j][0], turn[j][1]);
            out[at[j]] = r.x;
            out[at[j] + with] = r.y;
        }
    }
}
