// Picks rows of a block: out row i is x row index[i], whatever the elements are. Bytes: a row in and out. Launch: grid (rows), any block; 16,
// 4 or 1 bytes a thread, the most that rows and pointers are aligned to.
#include "args.h"
#include "gpu.h"

namespace gather_ {

template <class T>
DEVICE void copy(const u8* from, u8* to, u32 bytes) {
    for (u32 i = threadIdx.x; i < bytes / sizeof(T); i += blockDim.x) reinterpret_cast<T*>(to)[i] = reinterpret_cast<const T*>(from)[i];
}

} // namespace gather_

KERNEL(gather, GatherArgs) {
    const u8* from = a.x + static_cast<u64>(a.index[blockIdx.x]) * a.bytes;
    u8* to = a.out + static_cast<u64>(blockIdx.x) * a.bytes;
    u64 bits = reinterpret_cast<u64>(a.x) | reinterpret_cast<u64>(a.out) | a.bytes;
    if (bits % 16 == 0) {
        gather_::copy<uint4>(from, to, a.bytes);
    } else if (bits % 4 == 0) {
        gather_::copy<u32>(from, to, a.bytes);
    } else {
        gather_::copy<u8>(from, to, a.bytes);
    }
}
