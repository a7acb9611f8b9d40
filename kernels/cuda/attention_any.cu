// Attention for every case of rules A1 to A9: one block takes one query head of one row.
//
// Three walks over the visible keys: units (A3), the largest aligned dot product (A4; scores never fall where it rises, A5), sums (A5 to A7). Keys
// are read byte by byte, a thread a key, so any head size and any alignment of records is right; 2 * head_dim multiplications a key for the
// two dot products, head_dim 64-bit ones for the sum over V. The kernel for what attention_split and attention_tile do not take,
// and the one they are compared with; its speed does not matter.
//
// grid (heads, rows or fewer), block 128. Static shared memory, 10 KiB. head_dim at most 1,024 (V1).
#include "attention.h"

namespace attention_plain {

constexpr u32 THREADS = 128;
constexpr u32 HEAD_MAX = 1024;

struct Shared {
    i64 acc[HEAD_MAX];
    u64 z;
    u32 weights[THREADS];
    i32 unit_k, unit_v, peak;
    i8 q[HEAD_MAX];
};

// A2 to A4: y of one key.
DEVICE i32 aligned_dot(const Shared& s, const u8* record, u32 head_dim) {
    const i8* k = reinterpret_cast<const i8*>(record);
    i32 dot = 0;
    for (u32 i = 0; i < head_dim; i++) dot += s.q[i] * k[i];
    return aligned(dot, key_factor(load_bytes(record + k_scale_at(head_dim)), s.unit_k), dot_shift(head_dim));
}

// A1 to A9 of head h of a row.
DEVICE void head(const AttentionArgs& a, Shared& s, u32 row, u32 h) {
    const u32 t = threadIdx.x, d = a.head_dim;
    const Keys keys = visible(a, row);
    const KvHead kv = kv_head(a, a.slots[row], h / (a.heads / a.kv_heads));
    const u64 at = static_cast<u64>(row) * a.heads + h;

    for (u32 i = t; i < d; i += THREADS) {
        s.q[i] = a.q[at * d + i];
        s.acc[i] = 0;
    }
    if (t == 0) {
        s.unit_k = s.unit_v = s.peak = NO_UNIT;
        s.z = 0;
    }
    __syncthreads();

    i32 unit_k = NO_UNIT, unit_v = NO_UNIT;
    for (u32 j = keys.lo + t; j < keys.end; j += THREADS) {
        const u8* record = kv.record(j);
        unit_k = max(unit_k, unit_of(load_bytes(record + k_scale_at(d))));
        unit_v = max(unit_v, unit_of(load_bytes(record + v_scale_at(d))));
    }
    atomicMax(&s.unit_k, unit_k);
    atomicMax(&s.unit_v, unit_v);
    __syncthreads();

    i32 peak = NO_UNIT;
    for (u32 j = keys.lo + t; j < keys.end; j += THREADS) peak = max(peak, aligned_dot(s, kv.record(j), d));
    atomicMax(&s.peak, peak);
    __syncthreads();

    const QueryFactor factor = query_factor(a.q_scales[at], a.scale, s.unit_k, dot_shift(d));
    const i32 most = score(s.peak, factor.c);
    u64 z = 0;
    for (u32 first = keys.lo; first < keys.end; first += THREADS) {
        const u32 j = first + t;
        if (j < keys.end) {
            const u8* record = kv.record(j);
            const u32 e = share(score(aligned_dot(s, record, d), factor.c), most, factor.f);
            s.weights[t] = weight(e, value_factor(load_bytes(record + v_scale_at(d)), s.unit_v, a.p_bits), j, a.p_bits);
            z += e;
        }
        __syncthreads();
        const u32 count = min(keys.end - first, THREADS);
        for (u32 n = 0; n < count; n++) {
            const i8* v = reinterpret_cast<const i8*>(kv.record(first + n) + v_at(d));
            for (u32 i = t; i < d; i += THREADS) s.acc[i] += static_cast<i64>(s.weights[n]) * v[i];
        }
        __syncthreads();
    }
    atomicAdd(&s.z, z);
    __syncthreads();

    const Reciprocal r = reciprocal(s.z);
    for (u32 i = t; i < d; i += THREADS)
        a.out[at * d + i] = attention_element(s.acc[i], r, s.unit_v, a.p_bits, static_cast<i32>(a.f_out));
    // The next row of this block starts over in the same shared memory.
    __syncthreads();
}

} // namespace attention_plain

KERNEL_BOUNDS(attention_any, AttentionArgs, attention_plain::THREADS, 1) {
    SHARED(attention_plain::Shared, s);
    for (u32 row = blockIdx.y; row < a.rows; row += gridDim.y) attention_plain::head(a, s, row, blockIdx.x);
}
