// BLAKE3 of byte rows, and the trace's leaves and Merkle roots over them (docs/spec/poc.md, section 1), so that no row leaves the device.
//
// Bytes: a row once; 64 bytes are one compression of some 900 instructions, so a 16 KiB row is 256 of them: 230,000 instructions, four thousandths
// of a second of one lane, or 7 microseconds of an H100 for a batch of 512 rows. Chunks are independent: a thread each.
// Launches:
//   hash_chunks   grid-stride over (row, chunk), any block: chaining values of 1 KiB chunks; a row of one chunk gets its hash
//   hash_parents  grid-stride over rows, a warp a row, block a multiple of 32: joins the values of rows of several chunks, level by level
//   hash_leaves   grid-stride over leaves, any block
//   hash_trees    grid (trees), any block: roots over runs of leaves, level by level, in place
#include "args.h"
#include "gpu.h"

namespace hash_ {

// BLAKE3's flags.
constexpr u32 CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8;
constexpr u32 CHUNK = 1024, BLOCK = 64, NONE = 0xffffffffu;

struct Value {
    u32 w[8];
};

DEVICE Value initial() {
    return {{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u}};
}

DEVICE u32 rotate_right(u32 x, u32 n) { return __funnelshift_r(x, x, n); }

DEVICE void mix(u32& a, u32& b, u32& c, u32& d, u32 x, u32 y) {
    a += b + x;
    d = rotate_right(d ^ a, 16);
    c += d;
    b = rotate_right(b ^ c, 12);
    a += b + y;
    d = rotate_right(d ^ a, 8);
    c += d;
    b = rotate_right(b ^ c, 7);
}

// The compression of one block into a chaining value. m is used up.
DEVICE void compress(Value& cv, u32 (&m)[16], u32 counter, u32 len, u32 flags) {
    u32 v[16];
    UNROLL
    for (u32 i = 0; i < 8; i++) v[i] = cv.w[i];
    Value iv = initial();
    UNROLL
    for (u32 i = 0; i < 4; i++) v[8 + i] = iv.w[i];
    v[12] = counter, v[13] = 0, v[14] = len, v[15] = flags;
    UNROLL
    for (u32 round = 0; round < 7; round++) {
        mix(v[0], v[4], v[8], v[12], m[0], m[1]);
        mix(v[1], v[5], v[9], v[13], m[2], m[3]);
        mix(v[2], v[6], v[10], v[14], m[4], m[5]);
        mix(v[3], v[7], v[11], v[15], m[6], m[7]);
        mix(v[0], v[5], v[10], v[15], m[8], m[9]);
        mix(v[1], v[6], v[11], v[12], m[10], m[11]);
        mix(v[2], v[7], v[8], v[13], m[12], m[13]);
        mix(v[3], v[4], v[9], v[14], m[14], m[15]);
        // The order of the words in the next round; unrolled, it moves nothing.
        u32 n[16] = {m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13], m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8]};
        UNROLL
        for (u32 i = 0; i < 16; i++) m[i] = n[i];
    }
    UNROLL
    for (u32 i = 0; i < 8; i++) cv.w[i] = v[i] ^ v[8 + i];
}

DEVICE Value read(const u32* p) {
    Value v;
    UNROLL
    for (u32 i = 0; i < 8; i++) v.w[i] = p[i];
    return v;
}

DEVICE void write(u32* p, const Value& v) {
    UNROLL
    for (u32 i = 0; i < 8; i++) p[i] = v.w[i];
}

DEVICE u32 chunks_of(u32 len) { return len == 0 ? 1 : (len - 1) / CHUNK + 1; }

// The block of at most 64 bytes at `p` (4-byte aligned), zeros behind its end.
DEVICE void read_block(u32 (&m)[16], const u8* p, u32 len) {
    const u32* words = reinterpret_cast<const u32*>(p);
    u32 whole = len / 4, part = 0;
    NO_UNROLL
    for (u32 j = 4 * whole; j < len; j++) part |= static_cast<u32>(p[j]) << (8 * (j % 4));
    UNROLL
    for (u32 i = 0; i < 16; i++) m[i] = i < whole ? words[i] : i == whole ? part : 0;
}

// The chaining value of a chunk of a row; the row's hash where it is the only one.
DEVICE Value chunk_value(const ByteRow& row, u32 chunk) {
    u32 begin = chunk * CHUNK, len = min(row.len - begin, CHUNK);
    u32 blocks = len == 0 ? 1 : (len - 1) / BLOCK + 1;
    u32 root = row.len <= CHUNK ? ROOT : 0;
    Value cv = initial();
    NO_UNROLL
    for (u32 b = 0; b < blocks; b++) {
        u32 size = min(len - b * BLOCK, BLOCK);
        u32 m[16];
        read_block(m, row.data + begin + b * BLOCK, size);
        u32 flags = (b == 0 ? CHUNK_START : 0) | (b + 1 == blocks ? CHUNK_END | root : 0);
        compress(cv, m, chunk, size, flags);
    }
    return cv;
}

DEVICE Value parent(const u32* left, const u32* right, u32 flags) {
    u32 m[16];
    UNROLL
    for (u32 i = 0; i < 8; i++) m[i] = left[i], m[8 + i] = right[i];
    Value cv = initial();
    compress(cv, m, 0, BLOCK, PARENT | flags);
    return cv;
}

// The hash of a message of at most 32 words, zeros behind its end: one chunk of one or two blocks.
DEVICE Value hash_words(const u32 (&words)[32], u32 count) {
    Value cv = initial();
    // One copy of the compression in the code: the words are picked, not indexed, so they stay in registers.
    NO_UNROLL
    for (u32 b = 0; 16 * b < count; b++) {
        u32 m[16];
        UNROLL
        for (u32 i = 0; i < 16; i++) m[i] = b == 0 ? words[i] : words[16 + i];
        u32 size = min(count - 16 * b, 16u);
        compress(cv, m, 0, 4 * size, (b == 0 ? CHUNK_START : 0) | (16 * (b + 1) >= count ? CHUNK_END | ROOT : 0));
    }
    return cv;
}

// "bitai/leaf/v0" and "bitai/node/v0" with zeros to 16 bytes, as words: bita, i/le or i/no, af/v or de/v, 0.
DEVICE void tag(u32 (&m)[32], bool leaf) {
    m[0] = 0x61746962u;
    m[1] = leaf ? 0x656c2f69u : 0x6f6e2f69u;
    m[2] = leaf ? 0x762f6661u : 0x762f6564u;
    m[3] = 0x30u;
}

// An inner node: tag, height, leaves beneath, left, right.
DEVICE Value node(u32 height, u32 leaves, const u32* left, const u32* right) {
    u32 m[32];
    tag(m, false);
    m[4] = height, m[5] = leaves;
    UNROLL
    for (u32 i = 0; i < 8; i++) m[6 + i] = left[i], m[14 + i] = right[i];
    UNROLL
    for (u32 i = 22; i < 32; i++) m[i] = 0;
    return hash_words(m, 22);
}

DEVICE u64 first_thread() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE u64 all_threads() { return static_cast<u64>(gridDim.x) * blockDim.x; }

} // namespace hash_

KERNEL(hash_chunks, HashRowsArgs) {
    using namespace hash_;
    u64 all = static_cast<u64>(a.count) * a.chunks_max;
    for (u64 i = first_thread(); i < all; i += all_threads()) {
        u32 row = static_cast<u32>(i / a.chunks_max), chunk = static_cast<u32>(i % a.chunks_max);
        ByteRow r = a.rows[row];
        if (chunk >= chunks_of(r.len)) continue;
        Value v = chunk_value(r, chunk);
        write(r.len <= CHUNK ? a.out + 8ull * row : a.cvs + 8 * i, v);
    }
}

// BLAKE3's tree (the left half of a node is the largest power of two of chunks) is what comes of pairing neighbours level by level
// and letting an odd last one rise. A level is written over the first half of the one below: lanes read before any of them writes.
KERNEL(hash_parents, HashRowsArgs) {
    using namespace hash_;
    u32 lane = threadIdx.x % WARP;
    for (u64 row = first_thread() / WARP; row < a.count; row += all_threads() / WARP) {
        u32 n = chunks_of(a.rows[row].len);
        u32* cvs = a.cvs + 8 * row * a.chunks_max;
        for (; n > 1; n = n / 2 + n % 2) {
            for (u32 first = 0; first < n; first += 2 * WARP) {
                u32 left = first + 2 * lane;
                Value v = initial();
                if (left + 1 < n) {
                    v = parent(cvs + 8 * left, cvs + 8 * (left + 1), n == 2 ? ROOT : 0);
                } else if (left < n) {
                    v = read(cvs + 8 * left);
                }
                __syncwarp();
                if (left < n) write(n == 2 ? a.out + 8 * row : cvs + 8 * (left / 2), v);
                __syncwarp();
            }
        }
    }
}

KERNEL(hash_leaves, HashLeavesArgs) {
    using namespace hash_;
    for (u64 i = first_thread(); i < a.count; i += all_threads()) {
        bool has_out = a.outs[i] != NONE;
        u32 m[32];
        tag(m, true);
        m[4] = a.positions[i], m[5] = a.layers[i], m[6] = has_out ? 1 : 0;
        Value kv = read(a.hashes + 8ull * a.kv[i]);
        Value out = {{0, 0, 0, 0, 0, 0, 0, 0}};
        if (has_out) out = read(a.hashes + 8ull * a.outs[i]);
        UNROLL
        for (u32 j = 0; j < 8; j++) m[7 + j] = kv.w[j], m[15 + j] = out.w[j];
        UNROLL
        for (u32 j = 23; j < 32; j++) m[j] = 0;
        write(a.out + 8 * i, hash_words(m, has_out ? 23 : 15));
    }
}

// A node at height h covers leaves i * 2^h up to the next node's or the end; a level is written over the one below, all of a round being
// read before any of it is written.
KERNEL(hash_trees, HashTreesArgs) {
    using namespace hash_;
    u32 leaves = a.leaves_each;
    u32* nodes = a.leaves + 8ull * blockIdx.x * leaves;
    u32 height = 0;
    for (u32 n = leaves; n > 1; n = n / 2 + n % 2) {
        height++;
        for (u32 first = 0; first < n; first += 2 * blockDim.x) {
            u32 left = first + 2 * threadIdx.x;
            Value v = initial();
            if (left + 1 < n) {
                u32 begin = (left / 2) << height;
                v = node(height, min(leaves - begin, 1u << height), nodes + 8 * left, nodes + 8 * (left + 1));
            } else if (left < n) {
                v = read(nodes + 8 * left);
            }
            __syncthreads();
            if (left < n) write(nodes + 8 * (left / 2), v);
            __syncthreads();
        }
    }
    for (u32 i = threadIdx.x; i < 8; i += blockDim.x) a.out[8 * blockIdx.x + i] = leaves == 0 ? 0 : nodes[i];
}
