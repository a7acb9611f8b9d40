// Tests of the emulated GPU itself: kernels that are right, and kernels with a mistake that it has to show.
//
// bitai_emu_selftest() prints what fails and gives how many; tests call it. Alone, in other ways of compiling (-DEMU_UCONTEXT
// is the portable way of switching fibers, sanitisers as g++ names them):
//   g++ -std=c++17 -O2 -fno-exceptions -fno-rtti -fno-strict-aliasing -DEMU_MAIN kernels/cuda/emu/emu.cpp -o selftest && ./selftest
#pragma once

namespace {

struct TestArgs {
    i32* out;
    const i32* in;
    u32 n, pad;
};

// Each thread's neighbour through static shared memory, and a sum that needs every warp.
KERNEL(test_neighbour, TestArgs) {
    SHARED(i32[1024], values);
    u32 t = threadIdx.x, n = blockDim.x;
    values[t] = static_cast<i32>(t);
    __syncthreads();
    a.out[blockIdx.x * n + t] = values[(t + 1) % n];
}

// The same without its barrier.
KERNEL(test_no_barrier, TestArgs) {
    SHARED(i32[1024], values);
    u32 t = threadIdx.x, n = blockDim.x;
    values[t] = static_cast<i32>(t);
    a.out[blockIdx.x * n + t] = values[(t + 1) % n];
}

// Shared memory that nobody wrote.
KERNEL(test_unwritten, TestArgs) {
    SHARED(i32[4], values);
    a.out[blockIdx.x] = values[1];
    if (blockIdx.x == 0) values[1] = 7;
}

// Odd lanes wait at the barrier, even lanes at a shuffle.
KERNEL(test_divergent, TestArgs) {
    if (threadIdx.x % 2) {
        __syncthreads();
    } else {
        a.out[threadIdx.x] = __shfl_xor_sync(FULL, a.out[threadIdx.x], 1);
    }
}

// A lane outside the mask that it names.
KERNEL(test_outside_mask, TestArgs) {
    __syncwarp(threadIdx.x == 3 ? 1u : 1u << threadIdx.x);
    a.out[threadIdx.x] = 1;
}

// A barrier behind an early return: the threads that ended do not count.
KERNEL(test_early_return, TestArgs) {
    if (threadIdx.x >= a.n) return;
    __syncthreads();
    a.out[threadIdx.x] = 1;
}

// Every shuffle, the votes, and halves of a warp with masks of their own.
KERNEL(test_warp, TestArgs) {
    u32 lane = threadIdx.x;
    i64 wide = static_cast<i64>(lane) << 40;
    i32 bad = 0;
    bad |= __shfl_sync(FULL, lane, 5) != 5;
    bad |= __shfl_xor_sync(FULL, wide, 3) != static_cast<i64>(lane ^ 3) << 40;
    bad |= __shfl_down_sync(FULL, lane, 4) != (lane < 28 ? lane + 4 : lane);
    bad |= __shfl_up_sync(FULL, lane, 4) != (lane < 4 ? lane : lane - 4);
    bad |= __ballot_sync(FULL, lane % 3 == 0) != 0x49249249u;
    bad |= __any_sync(FULL, lane == 9) != 1 || __all_sync(FULL, lane < 31) != 0;
    u32 mine = lane < 16 ? 0xffffu : 0xffff0000u;
    bad |= __shfl_sync(mine, lane, lane < 16 ? 2 : 20) != (lane < 16 ? 2u : 20u);
    a.out[lane] = bad;
}

// Bytes of words by number: a 16 x 32 times b 32 x 8 (given as 8 columns of 32).
template <bool Unsigned>
DEVICE void product(const TestArgs& a) {
    const u8* bytes = reinterpret_cast<const u8*>(a.in);
    SHARED(u8[16 * 32], left);
    u32 lane = threadIdx.x, g = lane / 4, t = lane % 4, x[4], y[2];
    for (u32 i = lane; i < 16 * 32; i += 32) left[i] = bytes[i];
    __syncwarp();
    // Rows 0 to 7, then 8 to 15, of bytes 0 to 15, then the same of bytes 16 to 31: the order of a[0] .. a[3].
    ldmatrix_x4(x, left + (lane % 16) * 32 + lane / 16 * 16);
    const u32* columns = reinterpret_cast<const u32*>(bytes + 16 * 32);
    y[0] = columns[g * 8 + t], y[1] = columns[g * 8 + 4 + t];
    i32 d[4] = {1, 2, 3, 4};
    if (Unsigned) {
        mma_u8s8(d, x, y);
    } else {
        mma_s8(d, x, y);
    }
    for (u32 i = 0; i < 4; i++) a.out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}
KERNEL(test_mma, TestArgs) { product<false>(a); }
KERNEL(test_mma_unsigned, TestArgs) { product<true>(a); }

// Two groups of copies; `n` says how many may be under way when the first is read, 2 for a wait that was forgotten.
KERNEL(test_copies, TestArgs) {
    DYNAMIC_SHARED(i32, buffer);
    u32 t = threadIdx.x;
    cp_async16(buffer + 4 * t, a.in + 4 * t);
    cp_async_commit();
    cp_async16(buffer + 128 + 4 * t, a.in, false);
    cp_async_commit();
    if (a.n == 1) cp_async_wait<1>();
    if (a.n == 0) cp_async_wait<0>();
    __syncthreads();
    a.out[t] = buffer[(4 * t + 5) % 128];
    a.out[32 + t] = buffer[128 + t];
}

KERNEL(test_overflow, TestArgs) {
    DYNAMIC_SHARED(i32, buffer);
    buffer[a.n] = 1;
}

KERNEL_BOUNDS(test_bounds, TestArgs, 64, 1) { a.out[threadIdx.x] = 1; }

i32 failures = 0;

void check(bool ok, const char* what, u64 order) {
    if (ok) return;
    failures++;
    fprintf(stderr, "emulated GPU: %s: failed in order %llu (%s)\n", what, order, bitai_emu_error());
}

i32 run(const char* name, u32 blocks, u32 block, u32 shared, TestArgs args, u64 order) {
    u32 grid[3] = {blocks, 1, 1};
    return bitai_emu_launch(name, grid, block, shared, &args, sizeof args, order);
}

} // namespace

extern "C" int32_t bitai_emu_selftest() {
    failures = 0;
    static i32 out[4096];
    alignas(16) static i32 in[1024];
    u32 missed = 0, unread = 0;
    for (u64 order = 0; order < 16; order++) {
        TestArgs args = {out, in, 0, 0};
        bool ok = run("test_neighbour", 3, 1000, 0, args, order) == 0;
        for (u32 i = 0; i < 3000; i++) ok &= out[i] == static_cast<i32>((i % 1000 + 1) % 1000);
        check(ok, "threads read their neighbours behind a barrier", order);

        ok = run("test_no_barrier", 1, 256, 0, args, order) == 0;
        for (u32 i = 0; i < 256; i++) ok &= out[i] == static_cast<i32>((i + 1) % 256);
        missed += ok;

        check(run("test_unwritten", 2, 1, 0, args, order) == 0 && out[0] != 0 && out[0] != 7 && out[1] != 7,
              "shared memory is a pattern in every block", order);
        check(run("test_divergent", 1, 32, 0, args, order) == Deadlock && strstr(bitai_emu_error(), "test_divergent"),
              "rejects a block that waits at two places", order);
        check(run("test_outside_mask", 1, 32, 0, args, order) == Deadlock, "rejects a lane outside its mask", order);
        out[0] = out[9] = 0;
        check(run("test_early_return", 1, 70, 0, {out, in, 10, 0}, order) == 0 && out[0] == 1 && out[9] == 1,
              "threads that ended do not hold a barrier up", order);
        ok = run("test_warp", 1, 32, 0, args, order) == 0;
        for (u32 i = 0; i < 32; i++) ok &= out[i] == 0;
        check(ok, "shuffles and votes", order);

        u8* bytes = reinterpret_cast<u8*>(in);
        for (u32 i = 0; i < 24 * 32; i++) bytes[i] = static_cast<u8>(i * 37 + i / 7 * 11 + order);
        for (i32 sign = 0; sign < 2; sign++) {
            ok = run(sign ? "test_mma" : "test_mma_unsigned", 1, 32, 0, args, order) == 0;
            for (u32 r = 0; r < 16; r++) {
                for (u32 c = 0; c < 8; c++) {
                    i32 want = static_cast<i32>(1 + c % 2 + (r >= 8 ? 2 : 0));
                    for (u32 k = 0; k < 32; k++) {
                        u8 x = bytes[r * 32 + k];
                        want += (sign ? static_cast<i8>(x) : x) * static_cast<i8>(bytes[512 + c * 32 + k]);
                    }
                    ok &= out[r * 8 + c] == want;
                }
            }
            check(ok, sign ? "signed products" : "unsigned products", order);
        }

        for (u32 n = 0; n < 3; n++) {
            ok = run("test_copies", 1, 32, 1024, {out, in, n, 0}, order) == 0;
            for (u32 i = 0; i < 32; i++) ok &= out[i] == in[(4 * i + 5) % 128];
            if (n == 0) {
                for (u32 i = 0; i < 32; i++) ok &= out[32 + i] == 0;
            }
            if (n == 2) {
                unread += ok;
            } else {
                check(ok, "copies are there behind their wait", order);
            }
        }
        check(run("test_overflow", 1, 1, 64, {out, in, 15, 0}, order) == 0, "the last word of shared memory", order);
        check(run("test_overflow", 1, 1, 64, {out, in, 16, 0}, order) == BadGeometry, "rejects writes past shared memory", order);
    }
    check(missed < 16, "a missing barrier shows in some order", 0);
    check(unread < 16, "a missing wait shows in some order", 0);
    TestArgs args = {out, in, 0, 0};
    u32 none[3] = {0, 1, 1}, one[3] = {1, 1, 1};
    check(run("test_nothing", 1, 32, 0, args, 0) == NoKernel, "rejects an unknown name", 0);
    check(bitai_emu_launch("test_warp", one, 32, 0, &args, 8, 0) == WrongArgs, "rejects arguments of another length", 0);
    check(bitai_emu_launch("test_warp", none, 32, 0, &args, sizeof args, 0) == BadGeometry, "rejects an empty grid", 0);
    check(run("test_warp", 1, 0, 0, args, 0) == BadGeometry, "rejects an empty block", 0);
    check(run("test_warp", 1, 1025, 0, args, 0) == BadGeometry, "rejects a block of more than 1,024 threads", 0);
    check(run("test_warp", 1, 32, 227 * 1024 + 1, args, 0) == BadGeometry, "rejects more shared memory than there is", 0);
    check(run("test_bounds", 1, 64, 0, args, 0) == 0 && run("test_bounds", 1, 65, 0, args, 0) == BadGeometry,
          "rejects a block beyond a kernel's bounds", 0);
    return failures;
}

#ifdef EMU_MAIN
int main() {
    if (bitai_emu_selftest() != 0) return 1;
    puts("ok");
}
#endif
