// Gated units (G1 to G5): act(gate) * up, or act(x) where there is no up.
//
// Bytes: 12 (8 without up) an element; some 60 instructions, half of them 64-bit shifts, so wider loads would gain nothing. The tables
// (2 KiB each) stay in the first-level cache. Launch: grid-stride over count elements, any block.
#include "args.h"
#include "gpu.h"
#include "spec.h"

KERNEL(glu, GluArgs) {
    u64 threads = static_cast<u64>(gridDim.x) * blockDim.x;
    i32 f = static_cast<i32>(a.f);
    NO_UNROLL
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.count; i += threads) {
        i32 gate = a.gate[i];
        i32 share = unit_share(a.act, unit_argument(gate, f), a.sigmoid, a.phi);
        a.out[i] = a.up ? unit_gated(gate, a.up[i], share, f) : unit_alone(gate, share);
    }
}
