// Attention of many queries (prefill, encoders; rules A1 to A9) on the int8 tensor cores.
//
// Operations a (query head, key): 2 * head_dim multiply-adds for the dots of both passes, planes * head_dim for the sum over V, 25 instructions for the
// softmax, which is most of the time. Bytes: a block's rows share every tile of keys, 3 * head_dim a key for both passes.
//
// A block takes ROWS = 16 * GROUPS rows of one KV head: the query heads of one query, then those of the next. The warps of a group (SPLIT = head_dim / 32
// of them) share 16 rows: in pass 2 each makes the weights of 32 keys of the tile, leaves them in shared memory as the tensor cores
// want them, and sums 32 elements of V over all the tile's keys. Tiles of records come by cp.async, two stages. V stays as it lies: a
// lane reads four keys' words of four elements and turns them over.
//
// Every row has keys and units of its own (A1, A3). Where all rows of the block agree on the units, a key's factors are made once; tiles
// that some row does not see all of, and blocks whose rows differ, take the slower path, which asks for every (row, key).
// Rows of several sequences in one block are taken one sequence after the other.
//
// Needs: heads / kv_heads <= ROWS, q and out aligned to 16 bytes; a row sees at most 65,536 keys (int32 sums of a plane). Names: attention_tile_64_p15,
// _64_p23, _96_p15, ... for head_dim 64, 96, 128 and p_bits 15, 23.
// grid (ceil(rows / floor(ROWS / (heads / kv_heads))), kv_heads).
//             ROWS  block  dynamic shared memory
//   64  p15   128   512     51,776
//   64  p23    96   384     49,856
//   96  p15    64   384     63,808
//   96  p23    64   384     69,952
//   128 p15    64   512    100,160 (sm_75 has 65,536, sm_86, 89 and 120 have 101,376 a block)
//   128 p23    48   384     99,200
#include "attention_weights.h"

namespace tile {

template <u32 D_, u32 PLANES_>
struct Shape {
    static constexpr u32 D = D_, PLANES = PLANES_;
    // Three planes need more registers, so there are fewer warps.
    static constexpr u32 SPLIT = D / 32, GROUPS = D == 96 ? 4 : D == 64 ? (PLANES == 2 ? 8 : 6) : (PLANES == 2 ? 4 : 3);
    static constexpr u32 ROWS = 16 * GROUPS, KEYS = 32 * SPLIT, THREADS = 32 * SPLIT * GROUPS;
    // A record of 2 * D + 8 bytes and 8 more: an odd number of 16 bytes, so that 8 records lie in different banks.
    static constexpr u32 RECORD = 2 * D + 16, STAGE = KEYS * RECORD, QUERY = D + 16;
    // Threads that copy a record together.
    static constexpr u32 COPIERS = THREADS / KEYS;
    static constexpr u32 SHIFT = D == 64 ? 11 : 10;
    static_assert(THREADS % KEYS == 0, "as many threads a key");
};

// What a block works on at a time. It lies in shared memory because registers are short.
struct Run {
    u32 first, last;      // queries, all of one sequence
    u32 lo, end;          // keys that some row sees
    u32 all_lo, all_end;  // keys that every row sees
    u32 differ;           // whether rows have units of their own
    KvHead kv;
};

template <class S>
struct Memory {
    alignas(16) u8 stages[2][S::STAGE];
    // Of 16 keys: a lane's four weights of its two rows.
    uint2 weights[S::GROUPS][S::PLANES][S::SPLIT][2][WARP];
    alignas(16) u8 q[S::ROWS][S::QUERY];
    alignas(8) u32 k_factors[2][S::KEYS];
    alignas(8) u32 v_factors[2][S::KEYS];
    u64 z[S::ROWS];
    Sight sights[S::ROWS];
    Row rows[S::ROWS];
    i32 peak[S::ROWS];
    i32 common[2];
    Run run;
};

template <class S>
struct Block {
    const AttentionArgs& a;
    Memory<S>& m;
    u32 group; // query heads of the KV head

    METHOD Block(const AttentionArgs& args, Memory<S>& memory) : a(args), m(memory), group(args.heads / args.kv_heads) {}

    // The warp's part of keys and elements, and its first row.
    METHOD static u32 part() { return threadIdx.x / WARP % S::SPLIT; }
    METHOD static u32 rows16() { return threadIdx.x / WARP / S::SPLIT * 16; }

    METHOD u32 row_count() const { return (m.run.last - m.run.first) * group; }
    METHOD u64 row_at(u32 r) const {
        return static_cast<u64>(m.run.first + r / group) * a.heads + blockIdx.y * group + r % group;
    }

    // Rows of the run: what they see, and their queries.
    METHOD void start() {
        const u32 count = row_count();
        for (u32 r = threadIdx.x; r < S::ROWS; r += S::THREADS) {
            m.sights[r] = {r < count ? visible(a, m.run.first + r / group) : Keys{0, 0}, NO_UNIT, NO_UNIT};
            m.peak[r] = NO_UNIT;
            m.z[r] = 0;
        }
        constexpr u32 PIECES = S::D / 16;
        for (u32 i = threadIdx.x; i < S::ROWS * PIECES; i += S::THREADS) {
            const u32 r = i / PIECES, at = i % PIECES * 16;
            *reinterpret_cast<uint4*>(m.q[r] + at) =
                r < count ? *reinterpret_cast<const uint4*>(a.q + row_at(r) * S::D + at) : make_uint4(0, 0, 0, 0);
        }
        __syncthreads();
        if (threadIdx.x >= WARP) return;
        u32 lo = ~0u, all_lo = 0, all_end = ~0u, end = 0;
        for (u32 r = threadIdx.x; r < count; r += WARP) {
            const Keys k = m.sights[r].keys;
            lo = min(lo, k.lo);
            all_lo = max(all_lo, k.lo);
            all_end = min(all_end, k.end);
            end = max(end, k.end);
        }
        lo = ~warp_reduce<Maximum>(~lo);
        all_lo = warp_reduce<Maximum>(all_lo);
        all_end = ~warp_reduce<Maximum>(~all_end);
        end = warp_reduce<Maximum>(end);
        if (threadIdx.x > 0) return;
        // Where no key is seen by all, the middle is empty.
        m.run.lo = lo;
        m.run.end = end;
        m.run.all_lo = all_lo;
        m.run.all_end = max(all_lo, all_end);
        m.common[0] = m.common[1] = NO_UNIT;
    }

    // A3 over keys from, from + step ... below `to`.
    METHOD void raise_units(i32 (&unit)[2], u32 from, u32 to, u32 step) const {
        UNROLL_4
        for (u32 j = from; j < to; j += step) {
            const u8* record = m.run.kv.record(j);
            unit[0] = max(unit[0], unit_of(load_word(record + k_scale_at(S::D))));
            unit[1] = max(unit[1], unit_of(load_word(record + v_scale_at(S::D))));
        }
    }

    // A3: the keys that all see by all threads, the rest by a warp a query.
    METHOD void units() {
        i32 unit[2] = {NO_UNIT, NO_UNIT};
        raise_units(unit, m.run.all_lo + threadIdx.x, m.run.all_end, S::THREADS);
        atomicMax(&m.common[0], warp_reduce<Maximum>(unit[0]));
        atomicMax(&m.common[1], warp_reduce<Maximum>(unit[1]));
        __syncthreads();
        const u32 lane = threadIdx.x % WARP;
        for (u32 i = threadIdx.x / WARP; i < m.run.last - m.run.first; i += S::THREADS / WARP) {
            const Keys k = m.sights[i * group].keys;
            i32 own[2] = {m.common[0], m.common[1]};
            raise_units(own, k.lo + lane, min(m.run.all_lo, k.end), WARP);
            raise_units(own, max(m.run.all_end, k.lo) + lane, k.end, WARP);
            own[0] = warp_reduce<Maximum>(own[0]);
            own[1] = warp_reduce<Maximum>(own[1]);
            for (u32 h = lane; h < group; h += WARP) {
                m.sights[i * group + h].unit_k = own[0];
                m.sights[i * group + h].unit_v = own[1];
            }
        }
        __syncthreads();
        const Sight& first = m.sights[0];
        for (u32 r = threadIdx.x; r < row_count(); r += S::THREADS)
            if (m.sights[r].unit_k != first.unit_k || m.sights[r].unit_v != first.unit_v) m.run.differ = 1;
        __syncthreads();
    }

    // Starts copying BYTES of every record of a tile. Keys past the end are read as the last one; no row sees them.
    template <u32 BYTES>
    METHOD void fetch(u32 tile) {
        const u32 key = threadIdx.x / S::COPIERS, sub = threadIdx.x % S::COPIERS;
        const u8* from = m.run.kv.record(min(m.run.lo + tile * S::KEYS + key, m.run.end - 1));
        u8* to = m.stages[tile % 2] + key * S::RECORD;
        UNROLL
        for (u32 i = 0; i * S::COPIERS < BYTES / 8; i++) {
            const u32 piece = i * S::COPIERS + sub;
            if (piece < BYTES / 8) cp_async8(to + piece * 8, from + piece * 8);
        }
        cp_async_commit();
    }

    // A3: the tile's factors, a thread a key. `load` reads the scales, `put` is later, when they have come.
    struct Scales {
        u32 k, v;
    };
    METHOD Scales load(u32 tile) const {
        if (threadIdx.x >= S::KEYS) return {0, 0};
        const u8* record = m.run.kv.record(min(m.run.lo + tile * S::KEYS + threadIdx.x, m.run.end - 1));
        return {load_word(record + k_scale_at(S::D)), load_word(record + v_scale_at(S::D))};
    }
    METHOD void put(u32 tile, Scales s) {
        if (threadIdx.x >= S::KEYS) return;
        const bool exact = fast(tile);
        m.k_factors[tile % 2][threadIdx.x] = exact ? static_cast<u32>(key_factor(s.k, m.sights[0].unit_k)) : s.k;
        m.v_factors[tile % 2][threadIdx.x] = exact ? value_factor(s.v, m.sights[0].unit_v, a.p_bits) : s.v;
    }
    METHOD Factors factors(u32 tile) const {
        return {m.k_factors[tile % 2], m.v_factors[tile % 2], m.run.lo + tile * S::KEYS};
    }
    // Whether every row sees all of the tile, in one unit.
    METHOD bool fast(u32 tile) const {
        const u32 from = m.run.lo + tile * S::KEYS;
        return m.run.differ == 0 && from >= m.run.all_lo && from + S::KEYS <= m.run.all_end;
    }

    // A2: the dots of the warp's 16 rows and one half of its 32 keys.
    METHOD void dots(u32 tile, u32 half, i32 (&d)[2][4]) const {
        const u32 lane = threadIdx.x % WARP;
        const u8* q = m.q[rows16() + lane % 16] + lane / 16 * 16;
        // 8 keys at 16 and the next 16 bytes, then 8 more keys.
        const u8* k = m.stages[tile % 2] + (part() * 32 + half * 16 + lane / 16 * 8 + lane % 8) * S::RECORD + lane / 8 % 2 * 16;
        UNROLL
        for (u32 i = 0; i < 4; i++) d[0][i] = d[1][i] = 0;
        // Loads of all steps at once would cost more registers than there are.
        UNROLL_2
        for (u32 at = 0; at < S::D; at += 32) {
            u32 x[4], w[4];
            ldmatrix_x4(x, q + at);
            ldmatrix_x4(w, k + at);
            const u32 b0[2] = {w[0], w[1]}, b1[2] = {w[2], w[3]};
            mma_s8(d[0], x, b0);
            mma_s8(d[1], x, b1);
        }
    }

    // The thread's two rows, and the first of its keys within a tile.
    METHOD u32 row_of(u32 i) const { return rows16() + i * NEXT_ROW + threadIdx.x % WARP / 4; }
    METHOD u32 first_key() const { return part() * 32 + threadIdx.x % 4 * 2; }

    // Pass 1, then the numbers that pass 2 needs of each row.
    METHOD void peaks() {
        const u32 tiles = (m.run.end - m.run.lo + S::KEYS - 1) / S::KEYS;
        const Sight* sight = m.sights + row_of(0);
        i32 peak[2] = {NO_UNIT, NO_UNIT};
        fetch<S::D + 8>(0);
        put(0, load(0));
        NO_UNROLL
        for (u32 i = 0; i < tiles; i++) {
            cp_async_wait<0>();
            // The tile is there for all, and nobody works on the one before any more.
            __syncthreads();
            Scales scales = {0, 0};
            if (i + 1 < tiles) {
                fetch<S::D + 8>(i + 1);
                scales = load(i + 1);
            }
            const bool quick = fast(i);
            UNROLL
            for (u32 half = 0; half < 2; half++) {
                i32 d[2][4];
                dots(i, half, d);
                if (quick) raise<true, S::SHIFT>(d, factors(i), first_key() + half * 16, sight, peak);
                else raise<false, S::SHIFT>(d, factors(i), first_key() + half * 16, sight, peak);
            }
            if (i + 1 < tiles) put(i + 1, scales);
        }
        atomicMax(&m.peak[row_of(0)], peak[0]);
        atomicMax(&m.peak[row_of(1)], peak[1]);
        __syncthreads();
        for (u32 r = threadIdx.x; r < S::ROWS; r += S::THREADS) {
            QueryFactor factor = {0, 1};
            if (r < row_count()) factor = query_factor(a.q_scales[row_at(r)], a.scale, m.sights[r].unit_k, S::SHIFT);
            m.rows[r].minus_c = -factor.c;
            m.rows[r].most = static_cast<u32>(score(m.peak[r], factor.c)) + (1u << factor.f) - 1;
            m.rows[r].f = factor.f;
            m.rows[r].up = 0u - (1u << (32 - factor.f));
        }
        __syncthreads();
    }

    // A7: adds 32 elements of V over the tile's keys, for the warp's rows.
    METHOD void sum(u32 tile, i32 (&acc)[S::PLANES][4][4]) const {
        const u32 lane = threadIdx.x % WARP;
        UNROLL_2
        for (u32 block = 0; block < S::SPLIT; block++) {
            const u8* v = m.stages[tile % 2] + (block * 32 + lane % 4 * 2) * S::RECORD + v_at(S::D) + part() * 32 + lane / 4 * 4;
            u32 b[4][2];
            UNROLL
            for (u32 half = 0; half < 2; half++) {
                u32 w[4];
                UNROLL
                for (u32 i = 0; i < 4; i++) w[i] = load_word(v + (half * 16 + i / 2 * 8 + i % 2) * S::RECORD);
                transpose(w);
                UNROLL
                for (u32 i = 0; i < 4; i++) b[i][half] = w[i];
            }
            UNROLL
            for (u32 p = 0; p < S::PLANES; p++) {
                const uint2 w0 = m.weights[rows16() / 16][p][block][0][lane], w1 = m.weights[rows16() / 16][p][block][1][lane];
                const u32 x[4] = {w0.x, w0.y, w1.x, w1.y};
                UNROLL
                for (u32 i = 0; i < 4; i++) mma_u8s8(acc[p][i], x, b[i]);
            }
        }
    }

    // Pass 2 and the end.
    METHOD void sums() {
        const u32 tiles = (m.run.end - m.run.lo + S::KEYS - 1) / S::KEYS, lane = threadIdx.x % WARP;
        const Row* rows = m.rows + row_of(0);
        const Sight* sight = m.sights + row_of(0);
        u64 z[2] = {0, 0};
        i32 acc[S::PLANES][4][4] = {};
        fetch<2 * S::D + 8>(0);
        put(0, load(0));
        NO_UNROLL
        for (u32 i = 0; i < tiles; i++) {
            cp_async_wait<0>();
            __syncthreads();
            Scales scales = {0, 0};
            if (i + 1 < tiles) {
                fetch<2 * S::D + 8>(i + 1);
                scales = load(i + 1);
            }
            const bool quick = fast(i);
            NO_UNROLL
            for (u32 half = 0; half < 2; half++) {
                i32 d[2][4];
                dots(i, half, d);
                u32 planes[S::PLANES][2];
                const u32 key = first_key() + half * 16;
                if (quick) weigh<true, S::SHIFT, S::PLANES>(d, factors(i), key, a.p_bits, sight, rows, z, planes);
                else weigh<false, S::SHIFT, S::PLANES>(d, factors(i), key, a.p_bits, sight, rows, z, planes);
                UNROLL
                for (u32 p = 0; p < S::PLANES; p++) m.weights[rows16() / 16][p][part()][half][lane] = make_uint2(planes[p][0], planes[p][1]);
            }
            if (i + 1 < tiles) put(i + 1, scales);
            // The weights of the group's other warps.
            __syncthreads();
            sum(i, acc);
        }
        atomicAdd(&m.z[row_of(0)], z[0]);
        atomicAdd(&m.z[row_of(1)], z[1]);
        __syncthreads();
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            if (row_of(i) < row_count()) store(i, sight[i * NEXT_ROW].unit_v, acc);
        }
        // The next sequence starts over in the same memory.
        __syncthreads();
    }

    // A8 and A9 of the thread's i-th row: elements 8t .. 8t + 8 of the warp's 32, column g of fragment n being element 4g + n.
    METHOD void store(u32 i, i32 unit, const i32 (&acc)[S::PLANES][4][4]) const {
        const u32 r = row_of(i);
        const Reciprocal reciprocal_z = reciprocal(m.z[r]);
        i32* out = a.out + row_at(r) * S::D + part() * 32 + threadIdx.x % 4 * 8;
        UNROLL
        for (u32 c = 0; c < 2; c++) {
            i32 y[4];
            UNROLL
            for (u32 n = 0; n < 4; n++) {
                i64 sum = 0;
                UNROLL
                for (u32 p = 0; p < S::PLANES; p++) sum += static_cast<i64>(acc[p][n][i * 2 + c]) * (1 << (8 * p));
                y[n] = attention_element(sum, reciprocal_z, unit, a.p_bits, static_cast<i32>(a.f_out));
            }
            *reinterpret_cast<int4*>(out + c * 4) = make_int4(y[0], y[1], y[2], y[3]);
        }
    }

    METHOD void run() {
        const u32 queries = S::ROWS / group, stop = min(blockIdx.x * queries + queries, a.rows);
        for (u32 first = blockIdx.x * queries; first < stop;) {
            const u32 slot = a.slots[first];
            u32 last = first + 1;
            while (last < stop && a.slots[last] == slot) last++;
            if (threadIdx.x == 0) m.run = {first, last, 0, 0, 0, 0, 0, kv_head(a, slot, blockIdx.y)};
            __syncthreads();
            start();
            __syncthreads();
            units();
            peaks();
            sums();
            first = last;
        }
    }
};

} // namespace tile

#define TILE(name, d, planes, rows, threads, bytes)                                              \
    static_assert(tile::Shape<d, planes>::ROWS == rows && sizeof(tile::Memory<tile::Shape<d, planes>>) == bytes, \
                  "the geometry above");                                                         \
    KERNEL_BOUNDS(name, AttentionArgs, threads, 1) {                                             \
        static_assert(tile::Shape<d, planes>::THREADS == threads, "the geometry above");         \
        using Memory = tile::Memory<tile::Shape<d, planes>>;                                     \
        DYNAMIC_SHARED(Memory, memory);                                                          \
        tile::Block<tile::Shape<d, planes>>(a, *memory).run();                                   \
    }

TILE(attention_tile_64_p15, 64, 2, 128, 512, 51776)
TILE(attention_tile_64_p23, 64, 3, 96, 384, 49856)
TILE(attention_tile_96_p15, 96, 2, 64, 384, 63808)
TILE(attention_tile_96_p23, 96, 3, 64, 384, 69952)
TILE(attention_tile_128_p15, 128, 2, 64, 512, 100160)
TILE(attention_tile_128_p23, 128, 3, 48, 384, 99200)
