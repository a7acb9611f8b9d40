// What each kernel is told: one struct a kernel, mirrored field by field in kernels/src/cuda/args.rs.
//
// Pointers first, then u64, then u32, so that no padding differs between compilers; every struct is a multiple of 8 bytes.
// Row blocks are row-major. `hi` and `lo` are the planes of quantised rows (rule Q7): one plane uses `hi` alone and `lo` is null.
// A scale is a u32: mantissa in the low half, exponent (signed) in the high half, which are the canonical four bytes.
#pragma once
#include "types.h"

// Keys and values of one layer kind: where a token's canonical row lies.
//   page  = table[slot * table_stride + cache * pages_a_layer + pos / PAGE]
//   row   = pool + (page * PAGE + pos % PAGE) * row_stride
// `slot` is the sequence's line in the table, `cache` the layer's number among layers that cache.
struct Cache {
    u8* pool;
    const u32* table;
    u32 table_stride;   // pages of a slot: caches * pages_a_layer
    u32 pages_a_layer;  // pages that one sequence may have in one layer
    u32 row_stride;     // bytes from one token's row to the next, a multiple of 16
    u32 cache;
};

// E1, E2. grid (rows), any block. ids are token ids, or the rows' own positions.
struct EmbedArgs {
    const i8* q;          // [vocab, cols]
    const u8* mult;       // [vocab, cols / 32] or null
    const u32* scales;    // [vocab]
    const u32* ids;       // [rows]
    i32* out;             // [rows, cols]
    u32 rows, cols, f_out, pad;
};

// R1 to R6, and R7 to R9 where bias is not null. grid (rows * cols / group), block a power of two of 32 to 1,024.
struct NormArgs {
    const i32* x;         // [rows, cols]
    const i32* gain;      // [group]
    const i32* bias;      // [group]: layer norm; null: RMS norm
    i32* out;             // [rows, cols]
    u64 eps_lo, eps_hi;   // D * eps (RMS) or D^3 * eps (layer norm), 128 bits
    u32 rows, cols, group, f_out;
    i32 gain_f;
    u32 pad;
};

// Q and W. grid (rows * cols / group), block a power of two of 32 to 1,024.
struct QuantArgs {
    const i32* x;         // [rows, cols]
    i32* tmp;             // [rows, cols] scratch for transformed values; null where wht is 0
    i8* hi;               // [rows, cols]
    i8* lo;               // [rows, cols] where planes is 2
    u32* scales;          // [rows, cols / group]
    u32 rows, cols, group, planes, wht, f_in;
};

// L1 to L5. x is [rows, k] with `segments` scales a row.
struct LinearArgs {
    const i8* w;          // [n, k]
    const u8* mult;       // [n, k / 32] or null
    const u32* w_scales;  // [n]
    const i32* bias;      // [n] or null
    const i8* hi;         // [rows, k]
    const i8* lo;         // [rows, k] where planes is 2
    const u32* x_scales;  // [rows, segments]
    i32* out;             // [rows, n]
    u32 rows, n, k, segments, planes, f_out;
};

// P. grid (rows), any block.
struct RopeArgs {
    const i16* table;     // [context, head_dim]: cosines, then sines
    const u32* positions; // [rows]
    const i32* x;         // [rows, heads * head_dim]
    i32* out;
    u32 rows, heads, head_dim, halves; // halves: pairs (i, i + d/2), else (2i, 2i + 1)
};

// Canonical records of K and V into the cache, gaps zeroed. grid (rows), any block.
struct KvAppendArgs {
    Cache cache;
    const u32* slots;     // [rows]
    const u32* positions; // [rows]
    const i8* k;          // [rows, heads * head_dim]
    const u32* k_scales;  // [rows, heads]
    const i8* v;
    const u32* v_scales;
    u32 rows, heads, head_dim, row_len; // row_len: bytes of a canonical row
};

// A. Queries are [rows, heads * head_dim], one plane, a scale a head.
struct AttentionArgs {
    Cache cache;
    const u32* slots;     // [rows]
    const u32* positions; // [rows]
    const u32* lens;      // [rows]: the row's sequence length, this batch included (read where not causal)
    const i8* q;
    const u32* q_scales;  // [rows, heads]
    i32* out;             // [rows, heads * head_dim]
    // Scratch of the split kernels, see attention_split.cu; null for the others.
    i32* units;           // [rows, kv_heads, 2]: units of K and V (i32 minimum = none)
    i32* peak;            // [rows, heads]: largest aligned dot y (A4)
    i32* dots;            // [rows, heads, span]: y of every key
    u64* z;               // [rows, heads]
    i64* acc;             // [rows, heads, head_dim]
    u32 rows, heads, kv_heads, head_dim;
    u32 scale;            // the site's, as a scale word
    u32 p_bits, window, causal, f_out;
    u32 span;             // keys that dots has room for a head: at least the longest row's
};

// G. `up` null: the unit without a gate (G5). grid-stride over count elements.
struct GluArgs {
    const i32* gate;
    const i32* up;
    i32* out;
    const i32* sigmoid;   // [513] Q16
    const i32* phi;       // [513] Q16
    u64 count;
    u32 act;              // 0 silu, 1 gelu_tanh, 2 gelu_erf
    u32 f;
};

// D. grid-stride over count elements.
struct AddArgs {
    const i32* a;
    const i32* b;
    i32* out;
    u64 count;
};

// Rows of a block, picked: out row i = x row index[i]; elements are `bytes` wide in all. grid (rows).
struct GatherArgs {
    const u8* x;
    const u32* index;     // [rows]
    u8* out;
    u32 rows, bytes;
};

// O1 over rows first .. first + count of x. grid-stride over cols.
struct PoolArgs {
    const i32* x;
    i32* out;             // [cols]
    u32 first, count, cols, mean; // mean: 1 sum over rows, 0 the first row
};

// S1. One block a row, block a power of two.
struct GreedyArgs {
    const i32* logits;    // [rows, cols]
    u32* out;             // [rows]
    u32 rows, cols;
};

// A row of bytes to hash: where it lies and how long it is. len <= max_len, base 4-byte aligned.
struct ByteRow {
    const u8* data;
    u32 len, pad;
};

// BLAKE3 of byte rows. Chunk values first: grid-stride over (row, chunk); then parents: grid-stride over rows.
struct HashRowsArgs {
    const ByteRow* rows;  // [count]
    u32* cvs;             // [count, chunks_max, 8] scratch
    u32* out;             // [count, 8]
    u32 count, chunks_max; // chunks_max = max(1, ceil(longest / 1024))
};

// Leaves of the trace (kernels/src/rows.rs, leaf_hash). grid-stride over count.
struct HashLeavesArgs {
    const u32* hashes;    // [.., 8]
    const u32* positions; // [count]
    const u32* layers;    // [count]
    const u32* kv;        // [count]: index of the KV row's hash
    const u32* outs;      // [count]: index of the out row's hash, 2^32 - 1 where the layer commits none
    u32* out;             // [count, 8]
    u32 count, pad;
};

// Merkle roots over runs of leaves (rows.rs, merkle_root). One block a tree; works in place.
struct HashTreesArgs {
    u32* leaves;          // [trees, leaves_each, 8]
    u32* out;             // [trees, 8]
    u32 trees, leaves_each;
};
