// Where a token's canonical KV row lies in the paged cache, and where a head's record lies in the row.
#pragma once
#include "args.h"
#include "gpu.h"

// Tokens of a page; the same in kernels/src/cuda/cache.rs.
static constexpr u32 PAGE = 32;

// The row of the token at `pos` of the sequence in line `slot` of the page table.
DEVICE u8* cache_row(const Cache& c, u32 slot, u32 pos) {
    u32 page = c.table[slot * c.table_stride + c.cache * c.pages_a_layer + pos / PAGE];
    return c.pool + (static_cast<u64>(page) * PAGE + pos % PAGE) * c.row_stride;
}

// Bytes of a head's record: K integers, K scale, V integers, V scale.
DEVICE u32 record_len(u32 head_dim) { return 2 * (head_dim + 4); }

// Byte offset of a head's record: records never cross a 1 KiB chunk where they fit in one.
DEVICE u32 record_offset(u32 head, u32 head_dim) {
    u32 len = record_len(head_dim);
    if (len > 1024) return head * len;
    u32 a_chunk = 1024 / len;
    return head / a_chunk * 1024 + head % a_chunk * len;
}
