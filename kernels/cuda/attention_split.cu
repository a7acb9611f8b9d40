// Attention of few queries over many keys (decode): the keys of a row are split over blocks (rules A1 to A9).
//
// Bytes: K and V once for all query heads of a KV head: 2 * (head_dim + 4) a key, and 4 a (head, key) for the dot product kept between
// passes, which stays in the second-level cache. Operations a (head, key): head_dim / 4 dp4a for K, 25 for the exponential, head_dim / 4 a plane for V.
// Maxima and integer sums commute, so blocks meet in device memory by atomics and any order gives the same bits.
//
// Five kernels, in this order, all with the same arguments and scratch:
//   attention_init    grid (any), block any        clears the scratch
//   attention_units   grid (splits, kv_heads, rows), block 128     A3's units
//   attention_dots    grid (splits, kv_heads, rows), block 128     A4's y of every key, and the largest
//   attention_sums    grid (splits, kv_heads, rows), block 128     A5 to A7
//   attention_finish  grid (heads, rows), block any                A8, A9
// A row's keys are cut in `splits` pieces of a multiple of 64 keys: splits * kv_heads * rows some 4 to 8 a multiprocessor is a good choice, no
// more than ceil(span / 64) and no fewer than ceil(span / 65,536) (int32 sums of a plane). The scratch may be what it was: dots are not cleared.
// Needs: head_dim a multiple of 8, at most 256; span at least the keys that a row sees; rows <= 65,535. Static shared memory only.
#include "attention.h"
#include "reduce.h"
#include "team_sums.h"

namespace split {

constexpr u32 THREADS = 128;
constexpr u32 TILE = 64;
constexpr u32 HEAD_MAX = 256;
// Query heads that are worked on together.
constexpr u32 HEADS_MAX = 8;
// Lanes that share a key's dot products, and keys that they take together.
constexpr u32 TEAM = 8;
constexpr u32 KEYS = 4;

// The block's piece of the visible keys.
DEVICE Keys piece(const AttentionArgs& a, u32 row) {
    const Keys all = visible(a, row);
    const u32 count = all.end - all.lo;
    const u32 share = (count + gridDim.x * TILE - 1) / (gridDim.x * TILE) * TILE;
    const u32 from = min(all.lo + blockIdx.x * share, all.end);
    return {from, min(from + share, all.end)};
}

// A row's line of dots for a head: index by j - lo.
DEVICE i32* dots_of(const AttentionArgs& a, u32 row, u32 head) {
    return a.dots + (static_cast<u64>(row) * a.heads + head) * a.span;
}

struct DotsShared {
    uint2 q[HEADS_MAX][HEAD_MAX / 8];
};

// A2 to A4 of HEADS heads from `head` on, `used` of which exist.
template <u32 HEADS>
DEVICE void dots(const AttentionArgs& a, DotsShared& s, const KvHead& kv, Keys keys, u32 lo, u32 row, u32 head, u32 used) {
    const u32 words = a.head_dim / 8, shift = dot_shift(a.head_dim);
    const i32 unit = a.units[(row * a.kv_heads + blockIdx.y) * 2];
    const uint2* q = reinterpret_cast<const uint2*>(a.q + (static_cast<u64>(row) * a.heads + head) * a.head_dim);
    // The group before may still be reading.
    __syncthreads();
    for (u32 i = threadIdx.x; i < HEADS * words; i += THREADS) {
        // A head that is not there is read as the last one, and its dots are not stored.
        s.q[i / words][i % words] = q[min(i / words, used - 1) * words + i % words];
    }
    __syncthreads();

    const u32 lane = threadIdx.x % TEAM, team = threadIdx.x / TEAM;
    constexpr u32 VALUES = KEYS * HEADS;
    constexpr u32 OWN = VALUES > TEAM ? VALUES / TEAM : 1;
    i32 most[OWN];
    UNROLL for (u32 i = 0; i < OWN; i++) most[i] = NO_UNIT;
    for (u32 first = keys.lo; first < keys.end; first += TILE) {
        const u32 j0 = first + team * KEYS;
        const uint2* k[KEYS];
        UNROLL for (u32 i = 0; i < KEYS; i++) k[i] = reinterpret_cast<const uint2*>(kv.record(min(j0 + i, keys.end - 1)));
        i32 acc[VALUES] = {};
        for (u32 w = lane; w < words; w += TEAM) {
            uint2 ks[KEYS];
            UNROLL for (u32 i = 0; i < KEYS; i++) ks[i] = k[i][w];
            UNROLL for (u32 h = 0; h < HEADS; h++) {
                const uint2 x = s.q[h][w];
                UNROLL for (u32 i = 0; i < KEYS; i++) {
                    i32& v = acc[i * HEADS + h];
                    v = __dp4a(static_cast<i32>(x.x), static_cast<i32>(ks[i].x), v);
                    v = __dp4a(static_cast<i32>(x.y), static_cast<i32>(ks[i].y), v);
                }
            }
        }
        team_sums<TEAM>(acc, lane);
        // Two lanes a key: the lane's values are heads of key lane / 2.
        const u32 j = j0 + lane / 2;
        if (j >= keys.end) continue;
        const i32 factor = key_factor(load_word(kv.record(j) + a.head_dim), unit);
        UNROLL for (u32 i = 0; i < OWN; i++) {
            const u32 h = HEADS == 1 ? 0 : (lane * OWN + i) % HEADS;
            const i32 y = aligned(acc[i], factor, shift);
            most[i] = max(most[i], y);
            if (h < used) dots_of(a, row, head + h)[j - lo] = y;
        }
    }
    // Lanes 0 and 1 end with the largest of the warp's keys, for the heads of even and odd lanes.
    UNROLL for (u32 i = 0; i < OWN; i++) {
        UNROLL for (u32 step = 2; step < WARP; step *= 2) most[i] = max(most[i], __shfl_xor_sync(FULL, most[i], step));
        const u32 h = HEADS == 1 ? 0 : (lane * OWN + i) % HEADS;
        if (threadIdx.x % WARP < 2 && h < used) atomicMax(a.peak + static_cast<u64>(row) * a.heads + head + h, most[i]);
    }
}

struct SumsShared {
    i64 acc[HEADS_MAX][HEAD_MAX];
    // Weights by byte plane: a word has four keys of one plane.
    u32 weights[3][HEADS_MAX][TILE / 4];
    // Where the tile's records lie behind the KV head's first; past the end the last key's. (Not addresses: the compiler would no
    // longer know that they are device memory.)
    u64 records[TILE];
    QueryFactor factors[HEADS_MAX];
    i32 most[HEADS_MAX];
};

// A5 and A6 of a tile: a thread takes one key of every second head.
template <u32 HEADS, u32 PLANES>
DEVICE void weigh(const AttentionArgs& a, SumsShared& s, const KvHead& kv, Keys keys, u32 lo, u32 first, const i32* y, i32 unit,
                  u32 used, u64 (&z)[(HEADS + 1) / 2]) {
    const u32 key = threadIdx.x % TILE, j = first + key;
    const bool there = j < keys.end;
    const u64 record = kv.offset(min(j, keys.end - 1));
    if (threadIdx.x < TILE) s.records[key] = record;
    const u32 factor = value_factor(load_word(kv.pool + record + v_scale_at(a.head_dim)), unit, a.p_bits);
    UNROLL for (u32 i = 0; i < (HEADS + 1) / 2; i++) {
        const u32 h = i * 2 + threadIdx.x / TILE;
        if (HEADS == 1 && h > 0) break;
        u32 p_j = 0;
        if (there && h < used) {
            const u32 e = share(score(y[static_cast<u64>(h) * a.span + j - lo], s.factors[h].c), s.most[h], s.factors[h].f);
            p_j = weight(e, factor, j, a.p_bits);
            z[i] += e;
        }
        UNROLL for (u32 p = 0; p < PLANES; p++)
            reinterpret_cast<u8*>(s.weights[p][h])[key] = static_cast<u8>(p_j >> (8 * p));
    }
}

// A5 to A7 of HEADS heads from `head` on over the block's keys.
template <u32 HEADS, u32 PLANES>
DEVICE void sums(const AttentionArgs& a, SumsShared& s, const KvHead& kv, Keys keys, u32 lo, u32 row, u32 head, u32 used) {
    const u32 d = a.head_dim, t = threadIdx.x;
    const u64 at = static_cast<u64>(row) * a.heads + head;
    const i32* units = a.units + (row * a.kv_heads + blockIdx.y) * 2;
    __syncthreads();
    if (t < used) {
        s.factors[t] = query_factor(a.q_scales[at + t], a.scale, units[0], dot_shift(d));
        s.most[t] = score(a.peak[at + t], s.factors[t].c);
    }
    for (u32 i = t; i < HEADS * d; i += THREADS) s.acc[i / d][i % d] = 0;
    __syncthreads();

    // A thread has one word of the head; `teams` threads share a word and take turns with the tile's groups of four keys.
    const u32 words = d / 4, teams = THREADS / words, word = t % words, team = t / words;
    u64 z[(HEADS + 1) / 2] = {};
    i32 acc[PLANES][HEADS][4] = {};
    for (u32 first = keys.lo; first < keys.end; first += TILE) {
        weigh<HEADS, PLANES>(a, s, kv, keys, lo, first, dots_of(a, row, head), units[1], used, z);
        __syncthreads();
        if (team < teams) {
            UNROLL_2
            for (u32 quad = team; quad < TILE / 4; quad += teams) {
                u32 v[4];
                UNROLL
                for (u32 i = 0; i < 4; i++) v[i] = load_word(kv.pool + s.records[quad * 4 + i] + v_at(d) + word * 4);
                transpose(v);
                UNROLL for (u32 p = 0; p < PLANES; p++)
                    UNROLL for (u32 h = 0; h < HEADS; h++) {
                        const u32 weights = s.weights[p][h][quad];
                        UNROLL for (u32 i = 0; i < 4; i++) acc[p][h][i] = dp4a_us(weights, v[i], acc[p][h][i]);
                    }
            }
        }
        __syncthreads();
    }

    for (u32 turn = 0; turn < teams; turn++) {
        if (team == turn) {
            UNROLL for (u32 h = 0; h < HEADS; h++)
                UNROLL for (u32 i = 0; i < 4; i++)
                    UNROLL for (u32 p = 0; p < PLANES; p++) s.acc[h][word * 4 + i] += static_cast<i64>(acc[p][h][i]) * (1 << (8 * p));
        }
        __syncthreads();
    }
    for (u32 i = t; i < used * d; i += THREADS)
        atomicAdd(reinterpret_cast<u64*>(a.acc) + at * d + i, static_cast<u64>(s.acc[i / d][i % d]));
    UNROLL for (u32 i = 0; i < (HEADS + 1) / 2; i++) {
        const u32 h = i * 2 + t / TILE;
        const u64 sum = warp_reduce<Sum>(z[i]);
        if (t % WARP == 0 && h < used) atomicAdd(a.z + at + h, sum);
    }
}

template <u32 PLANES>
DEVICE void all_sums(const AttentionArgs& a, SumsShared& s) {
    const u32 row = blockIdx.z, group = a.heads / a.kv_heads, from = blockIdx.y * group;
    const Keys keys = piece(a, row);
    if (keys.lo >= keys.end) return;
    const KvHead kv = kv_head(a, a.slots[row], blockIdx.y);
    const u32 lo = visible(a, row).lo;
    for (u32 h = 0; h < group; h += HEADS_MAX) {
        const u32 used = min(group - h, HEADS_MAX);
        if (used == 1) sums<1, PLANES>(a, s, kv, keys, lo, row, from + h, used);
        else if (used == 2) sums<2, PLANES>(a, s, kv, keys, lo, row, from + h, used);
        else if (used <= 4) sums<4, PLANES>(a, s, kv, keys, lo, row, from + h, used);
        else sums<8, PLANES>(a, s, kv, keys, lo, row, from + h, used);
    }
}

} // namespace split

KERNEL(attention_init, AttentionArgs) {
    const u64 step = static_cast<u64>(gridDim.x) * blockDim.x, heads = static_cast<u64>(a.rows) * a.heads;
    const u64 first = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (u64 i = first; i < heads * a.head_dim; i += step) a.acc[i] = 0;
    for (u64 i = first; i < heads; i += step) {
        a.peak[i] = NO_UNIT;
        a.z[i] = 0;
    }
    for (u64 i = first; i < static_cast<u64>(a.rows) * a.kv_heads * 2; i += step) a.units[i] = NO_UNIT;
}

KERNEL_BOUNDS(attention_units, AttentionArgs, split::THREADS, 8) {
    const u32 row = blockIdx.z;
    const Keys keys = split::piece(a, row);
    const KvHead kv = kv_head(a, a.slots[row], blockIdx.y);
    i32 k = NO_UNIT, v = NO_UNIT;
    for (u32 j = keys.lo + threadIdx.x; j < keys.end; j += split::THREADS) {
        const u8* record = kv.record(j);
        k = max(k, unit_of(load_word(record + a.head_dim)));
        v = max(v, unit_of(load_word(record + 2 * a.head_dim + 4)));
    }
    k = warp_reduce<Maximum>(k);
    v = warp_reduce<Maximum>(v);
    if (threadIdx.x % WARP != 0) return;
    i32* units = a.units + (row * a.kv_heads + blockIdx.y) * 2;
    atomicMax(units, k);
    atomicMax(units + 1, v);
}

KERNEL_BOUNDS(attention_dots, AttentionArgs, split::THREADS, 4) {
    SHARED(split::DotsShared, s);
    const u32 row = blockIdx.z, group = a.heads / a.kv_heads, from = blockIdx.y * group;
    const Keys keys = split::piece(a, row);
    if (keys.lo >= keys.end) return;
    const KvHead kv = kv_head(a, a.slots[row], blockIdx.y);
    const u32 lo = visible(a, row).lo;
    for (u32 h = 0; h < group; h += split::HEADS_MAX) {
        const u32 used = min(group - h, split::HEADS_MAX);
        if (used == 1) split::dots<1>(a, s, kv, keys, lo, row, from + h, used);
        else if (used == 2) split::dots<2>(a, s, kv, keys, lo, row, from + h, used);
        else if (used <= 4) split::dots<4>(a, s, kv, keys, lo, row, from + h, used);
        else split::dots<8>(a, s, kv, keys, lo, row, from + h, used);
    }
}

KERNEL_BOUNDS(attention_sums, AttentionArgs, split::THREADS, 3) {
    SHARED(split::SumsShared, s);
    if (a.p_bits <= 16) split::all_sums<2>(a, s);
    else split::all_sums<3>(a, s);
}

KERNEL(attention_finish, AttentionArgs) {
    const u32 head = blockIdx.x, group = a.heads / a.kv_heads;
    for (u32 row = blockIdx.y; row < a.rows; row += gridDim.y) {
        const u64 at = static_cast<u64>(row) * a.heads + head;
        const i32 unit = a.units[(static_cast<u64>(row) * a.kv_heads + head / group) * 2 + 1];
        const Reciprocal r = reciprocal(a.z[at]);
        for (u32 i = threadIdx.x; i < a.head_dim; i += blockDim.x)
            a.out[at * a.head_dim + i] =
                attention_element(a.acc[at * a.head_dim + i], r, unit, a.p_bits, static_cast<i32>(a.f_out));
    }
}
