// Writes the canonical KV row of every token of a step into the paged cache: head by head K integers, K scale, V integers, V scale,
// records kept inside 1 KiB chunks, gaps zero (docs/spec/poc.md, rows). Attention and hashing read it where it lies.
//
// Bytes: a row's length in and out (8 heads of 128: 2,112), nothing to compute but addresses. Launch: grid (rows), any block. Heads of a
// multiple of 4 elements move as 32-bit words, others byte by byte.
#include "args.h"
#include "cache.h"
#include "gpu.h"

namespace kv_append_ {

// Unit number `u` of a canonical row, in units of T: what stands there. `unit` is the bytes of T.
template <class T>
DEVICE T at(const KvAppendArgs& a, u32 row, u32 u) {
    constexpr u32 unit = sizeof(T);
    u32 len = record_len(a.head_dim), half = len / 2, byte = u * unit;
    u32 a_chunk = len > 1024 ? 0 : 1024 / len;
    u32 head = len > 1024 ? byte / len : byte / 1024 * a_chunk + byte % 1024 / len;
    u32 within = len > 1024 ? byte % len : byte % 1024 % len;
    // The gap behind a chunk's last record.
    if (a_chunk != 0 && byte % 1024 >= a_chunk * len) return 0;
    bool value = within >= half;
    if (value) within -= half;
    u64 of_head = static_cast<u64>(row) * a.heads + head;
    if (within >= a.head_dim) {
        u32 scale = value ? a.v_scales[of_head] : a.k_scales[of_head];
        return static_cast<T>(scale >> (8 * (within - a.head_dim)));
    }
    const i8* from = (value ? a.v : a.k) + of_head * a.head_dim + within;
    return *reinterpret_cast<const T*>(from);
}

template <class T>
DEVICE void write(const KvAppendArgs& a, u8* to, u32 row) {
    for (u32 u = threadIdx.x; u < a.row_len / sizeof(T); u += blockDim.x) reinterpret_cast<T*>(to)[u] = at<T>(a, row, u);
}

} // namespace kv_append_

KERNEL(kv_append, KvAppendArgs) {
    u32 row = blockIdx.x;
    u8* to = cache_row(a.cache, a.slots[row], a.positions[row]);
    if (a.head_dim % 4 == 0) {
        kv_append_::write<u32>(a, to, row);
    } else {
        kv_append_::write<u8>(a, to, row);
    }
}
