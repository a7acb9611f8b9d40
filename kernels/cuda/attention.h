// What the attention kernels share: which keys a row sees (A1), and where a KV head's records lie.
#pragma once
#include "args.h"
#include "cache.h"
#include "gpu.h"
#include "spec.h"

// A run of keys: lo .. end.
struct Keys {
    u32 lo, end;
};

// A1.
DEVICE Keys visible(const AttentionArgs& a, u32 row) {
    const u32 end = a.causal ? a.positions[row] + 1 : a.lens[row];
    return {visible_start(end, a.window), end};
}

// The records of one KV head of one sequence.
struct KvHead {
    const u8* pool;    // at the head's record of row 0
    const u32* pages;
    u32 row_stride;

    METHOD u64 offset(u32 j) const { return (static_cast<u64>(pages[j / PAGE]) * PAGE + j % PAGE) * row_stride; }
    METHOD const u8* record(u32 j) const { return pool + offset(j); }
};

DEVICE KvHead kv_head(const AttentionArgs& a, u32 slot, u32 head) {
    const Cache& c = a.cache;
    return {c.pool + record_offset(head, a.head_dim), c.table + slot * c.table_stride + c.cache * c.pages_a_layer, c.row_stride};
}

// Byte offsets within a record.
DEVICE u32 k_scale_at(u32 head_dim) { return head_dim; }
DEVICE u32 v_at(u32 head_dim) { return head_dim + 4; }
DEVICE u32 v_scale_at(u32 head_dim) { return 2 * head_dim + 4; }

// A scale of a record whose words are aligned.
DEVICE u32 load_word(const u8* p) { return *reinterpret_cast<const u32*>(p); }

// A scale at any address.
DEVICE u32 load_bytes(const u8* p) { return p[0] | static_cast<u32>(p[1]) << 8 | static_cast<u32>(p[2]) << 16 | static_cast<u32>(p[3]) << 24; }

// Four keys of four elements turned into four elements of four keys.
DEVICE void transpose(u32 (&v)[4]) {
    const u32 a = __byte_perm(v[0], v[1], 0x5140), b = __byte_perm(v[2], v[3], 0x5140);
    const u32 c = __byte_perm(v[0], v[1], 0x7362), d = __byte_perm(v[2], v[3], 0x7362);
    v[0] = __byte_perm(a, b, 0x5410);
    v[1] = __byte_perm(a, b, 0x7632);
    v[2] = __byte_perm(c, d, 0x5410);
    v[3] = __byte_perm(c, d, 0x7632);
}
