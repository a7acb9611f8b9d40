// Many sums at once over the lanes of a warp (one sum: reduce.h).
#pragma once
#include "gpu.h"

// Sums each of v[0..N] over the LANES lanes of a team (consecutive lanes; both powers of two) in N - 1 shuffles or so: with each step a lane
// gives away half of the values that it still holds. Afterwards, `lane` counted within the team:
//   N >= LANES: v[i] of a lane, i < N / LANES, is the sum of value lane * (N / LANES) + i;
//   N < LANES: v[0] is the sum of value lane / (LANES / N).
// All lanes of the warp must call it.
template <u32 LANES, u32 N>
DEVICE void team_sums(i32 (&v)[N], u32 lane) {
    u32 held = N;
    UNROLL for (u32 step = LANES / 2; step > 0; step /= 2) {
        if (held > 1) {
            const bool upper = lane & step;
            held /= 2;
            UNROLL for (u32 i = 0; i < N / 2; i++) {
                if (i >= held) break;
                const i32 given = upper ? v[i] : v[i + held];
                const i32 kept = upper ? v[i + held] : v[i];
                v[i] = kept + __shfl_xor_sync(FULL, given, step);
            }
        } else {
            v[0] += __shfl_xor_sync(FULL, v[0], step);
        }
    }
}
