// From dot products on tensor-core fragments to weights on them (rules A4 to A6): what attention_tile does for every (query, key).
//
// The counts are in docs/adr/0037: 3 instructions in pass 1, 18 to 23 in pass 2, nothing wider than 32 bits but the sum Z.
#pragma once
#include "attention.h"
#include "reduce.h"

namespace tile {

// x >> n, 0 from n = 32 on: what the hardware does and C++ leaves open.
DEVICE u32 shift_right(u32 x, u32 n) {
#if defined(__CUDACC__)
    u32 y;
    asm("shr.u32 %0, %1, %2;" : "=r"(y) : "r"(x), "r"(n));
    return y;
#else
    return n > 31 ? 0 : x >> n;
#endif
}

// The high word of a * b, plus c: one instruction.
DEVICE u32 mad_high(u32 a, u32 b, u32 c) { return __umulhi(a, b) + c; }

// What a row sees: read in slow tiles alone.
struct Sight {
    Keys keys;  // A1; nothing where the tile has no such row
    i32 unit_k, unit_v;
};

// A row's numbers in pass 2.
struct alignas(16) Row {
    i32 minus_c;  // A4: -C
    u32 most;     // largest score + 2^F - 1
    u32 f;        // A4: F, and
    u32 up;       // -2^(32 - F)
};

// X1 of a key's distance below the largest score, from its aligned dot product; z' = z + 2^F - 1 is what `most` has in it.
DEVICE u32 share_of(i32 y, const Row& r) {
    const u32 over = static_cast<u32>(__mulhi(y, r.minus_c)) + r.most;
    const u32 g = over * r.up + r.up; // (NOT over) << (32 - F)
    u32 p = mad_high(29109857u, g, 111735252u);
    p = mad_high(p, g, 518343275u);
    p = mad_high(p, g, 1488229728u);
    p = mad_high(p, g, 2147418112u);
    return shift_right(p, over >> r.f);
}

// What both passes need of a tile's keys: their factors in a fast tile, else the scales themselves.
struct Factors {
    const u32* k;
    const u32* v;
    u32 first; // position of the tile's first key
};

// A key's factor for a row, and whether the row sees it. FAST: every row sees every key of the tile, in one unit.
template <bool FAST>
DEVICE i32 k_factor(u32 word, const Sight& r) {
    return FAST ? static_cast<i32>(word) : key_factor(word, r.unit_k);
}
template <bool FAST>
DEVICE bool sees(u32 j, const Sight& r) {
    return FAST || (j >= r.keys.lo && j < r.keys.end);
}

// Rows of a fragment: a thread's second row is 8 below its first.
constexpr u32 NEXT_ROW = 8;

// Pass 1: the largest aligned dot product of each of the thread's two rows. A fragment d[n] has, of keys `key` + 8n and the next, row 0's
// dots and then row 1's. `sight` is that of row 0.
template <bool FAST, u32 SHIFT>
DEVICE void raise(const i32 (&dots)[2][4], const Factors& factors, u32 key, const Sight* sight, i32 (&peak)[2]) {
    UNROLL
    for (u32 n = 0; n < 2; n++) {
        const uint2 k = *reinterpret_cast<const uint2*>(factors.k + key + n * 8);
        UNROLL
        for (u32 c = 0; c < 4; c++) {
            const Sight& r = sight[c / 2 * NEXT_ROW];
            const i32 y = aligned(dots[n][c], k_factor<FAST>(c % 2 ? k.y : k.x, r), SHIFT);
            if (sees<FAST>(factors.first + key + n * 8 + c % 2, r)) peak[c / 2] = max(peak[c / 2], y);
        }
    }
}

// Pass 2: adds to Z, and gives the weights as byte planes in the order of an operand of the tensor cores: keys 2t, 2t + 1, 2t + 8 and
// 2t + 9 of sixteen in one word, for row 0 and row 1.
template <bool FAST, u32 SHIFT, u32 PLANES>
DEVICE void weigh(const i32 (&dots)[2][4], const Factors& factors, u32 key, u32 p_bits, const Sight* sight, const Row* rows, u64 (&z)[2],
                  u32 (&planes)[PLANES][2]) {
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        // Read anew each time: kept, they would cost registers that the sums over V need.
        const Row r = rows[i * NEXT_ROW];
        const Sight& see = sight[i * NEXT_ROW];
        // 256 times the weight, so that its planes are whole bytes.
        u32 p[4];
        UNROLL
        for (u32 n = 0; n < 2; n++) {
            const u32 at = key + n * 8;
            const uint2 k = *reinterpret_cast<const uint2*>(factors.k + at);
            const uint2 v = *reinterpret_cast<const uint2*>(factors.v + at);
            UNROLL
            for (u32 c = 0; c < 2; c++) {
                const u32 j = factors.first + at + c, word = c ? v.y : v.x;
                const i32 y = aligned(dots[n][i * 2 + c], k_factor<FAST>(c ? k.y : k.x, see), SHIFT);
                const u32 e = share_of(y, r);
                const u32 fine = mad_high(e, FAST ? word : value_factor(word, see.unit_v, p_bits), j * 159 & 255);
                const bool seen = sees<FAST>(j, see);
                z[i] += seen ? e : 0;
                p[n * 2 + c] = seen ? fine : 0;
            }
        }
        const u32 a = __byte_perm(p[0], p[1], 0x6251), b = __byte_perm(p[2], p[3], 0x6251);
        planes[0][i] = __byte_perm(a, b, 0x5410);
        planes[1][i] = __byte_perm(a, b, 0x7632);
        if (PLANES == 3) planes[PLANES - 1][i] = __byte_perm(__byte_perm(p[0], p[1], 0x0073), __byte_perm(p[2], p[3], 0x0073), 0x5410);
    }
}

} // namespace tile
