// Sums and maxima over a block: warps by shuffles, then their results through shared memory. Every thread gets the result.
//
// All threads of the block take part, the block is whole warps, and Kind (any type of the caller's) is another for every call in a
// kernel: each call has words of its own, so none has to wait until the one before it has been read.
#pragma once
#include "gpu.h"

struct Maximum {
    template <class T>
    METHOD static T join(T a, T b) {
        return max(a, b);
    }
};
struct Sum {
    template <class T>
    METHOD static T join(T a, T b) {
        return a + b;
    }
};

// Over the lanes of a warp.
template <class Join, class T>
DEVICE T warp_reduce(T v) {
    UNROLL
    for (u32 bits = WARP / 2; bits != 0; bits /= 2) v = Join::join(v, __shfl_xor_sync(FULL, v, bits));
    return v;
}

template <class Join, class Kind, class T>
DEVICE T block_reduce(T v, T none) {
    SHARED(T[32], of_warps);
    u32 lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    v = warp_reduce<Join>(v);
    if (warps == 1) return v;
    if (lane == 0) of_warps[threadIdx.x / WARP] = v;
    __syncthreads();
    return warp_reduce<Join>(lane < warps ? of_warps[lane] : none);
}
