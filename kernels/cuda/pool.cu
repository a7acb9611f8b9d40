// Pooling (O1): the rows of one sequence become one, their mean to within a factor of two or the first. Bytes: 4 an element, one addition.
// Launch: grid-stride over cols, any block; a thread walks down its column, neighbours read neighbouring words.
#include "args.h"
#include "gpu.h"
#include "spec.h"

KERNEL(pool, PoolArgs) {
    const i32* x = a.x + static_cast<u64>(a.first) * a.cols;
    for (u32 col = blockIdx.x * blockDim.x + threadIdx.x; col < a.cols; col += gridDim.x * blockDim.x) {
        if (!a.mean) {
            a.out[col] = sat32(x[col]);
            continue;
        }
        i64 sum = 0;
        // Eight loads under way at a time.
        u32 row = 0;
        for (; row + 8 <= a.count; row += 8) {
            i32 v[8];
            UNROLL
            for (u32 i = 0; i < 8; i++) v[i] = x[static_cast<u64>(row + i) * a.cols + col];
            UNROLL
            for (u32 i = 0; i < 8; i++) sum += v[i];
        }
        for (; row < a.count; row++) sum += x[static_cast<u64>(row) * a.cols + col];
        a.out[col] = pool_mean(sum, a.count);
    }
}
