// Greedy sampling (S1): the lowest id of a row's largest logit. Bytes: 4 a logit (128,256 logits: 0.5 MB a row).
// Logit and id make one 64-bit number whose order is S1's, so the answer is a maximum and any order of joining gives it.
// Launch: grid (rows), block a power of two of 32 to 1,024.
#include "args.h"
#include "gpu.h"
#include "reduce.h"
#include "row4.h"

namespace greedy_ {

struct Best;

// Larger logits are larger, lower ids of one logit are larger. Never 0 (ids stay below 2^32 - 1), which stands for no logit.
DEVICE u64 rank(i32 logit, u32 id) { return static_cast<u64>(static_cast<u32>(logit) ^ 0x80000000u) << 32 | ~id; }

} // namespace greedy_

KERNEL(greedy, GreedyArgs) {
    const i32* row = a.logits + static_cast<u64>(blockIdx.x) * a.cols;
    bool aligned = fours(a.logits, a.cols);
    // The lane's own best: ids ascend, so a later one has to be larger.
    i32 best = 0;
    u32 id = 0;
    bool any = false;
    auto look = [&](i32 logit, u32 i) {
        if (i < a.cols && (!any || logit > best)) best = logit, id = i, any = true;
    };
    // One block reads the whole row, so it keeps four loads a thread under way.
    u32 step = 4 * blockDim.x;
    for (u32 first = 4 * threadIdx.x; first < a.cols; first += 4 * step) {
        int4 v[4];
        UNROLL
        for (u32 j = 0; j < 4; j++) v[j] = load4(row, first + j * step, a.cols, aligned);
        UNROLL
        for (u32 j = 0; j < 4; j++) {
            u32 i = first + j * step;
            look(v[j].x, i), look(v[j].y, i + 1), look(v[j].z, i + 2), look(v[j].w, i + 3);
        }
    }
    u64 top = block_reduce<Maximum, greedy_::Best>(any ? greedy_::rank(best, id) : 0ull, 0ull);
    if (threadIdx.x == 0) a.out[blockIdx.x] = ~static_cast<u32>(top);
}
