// The emulated GPU: runs the kernels of ../module.cu on the host, thread by thread, with a C interface for Rust.
//
// Build: kernels/build.rs, or g++ -std=c++17 -O2 -fno-exceptions -fno-rtti -fno-strict-aliasing -c emu.cpp (kernels read bytes as words,
// as CUDA allows). It needs no C++ library.
//
// Blocks run one after another. A thread is a fiber with a stack of its own that runs until it waits (barrier, warp operation)
// or ends. The launch's `order` seeds which runnable thread and which block come next and whether asynchronous copies land at once
// or at the last moment: a missing barrier or wait then gives different bits in one of a few seeds. 0 is ascending order.
// Shared memory is filled with a pattern before every block. A launch whose threads wait at different places ends with code 4.
#include "emu.h"
#include "machine.h"
#include "warp.h"

namespace emu {

namespace {

void lock() {
    while (__atomic_test_and_set(&idle_lock, __ATOMIC_ACQUIRE)) {
    }
}
void unlock() { __atomic_clear(&idle_lock, __ATOMIC_RELEASE); }

Machine* take_machine() {
    lock();
    Machine* m = idle;
    if (m) idle = m->next;
    unlock();
    if (m) return m;
    m = static_cast<Machine*>(calloc(1, sizeof(Machine)));
    u8* shared = static_cast<u8*>(aligned_alloc(128, ALL_SHARED + 1024));
    if (!m || !shared) abort();
    m->dynamic_shared = shared;
    return m;
}

void give_machine(Machine* m) {
    lock();
    m->next = idle;
    idle = m;
    unlock();
}

void land(Thread& t, u32 keep_groups) {
    u32 kept = 0;
    for (u32 i = 0; i < t.copy_count; i++) {
        const Copy c = t.copies[i];
        if (c.group + keep_groups >= t.copy_group) {
            t.copies[kept++] = c;
            continue;
        }
        if (c.bytes == 8) {
            *static_cast<uint2*>(c.to) = *static_cast<const uint2*>(c.from);
        } else if (c.valid) {
            *static_cast<uint4*>(c.to) = *static_cast<const uint4*>(c.from);
        } else {
            *static_cast<uint4*>(c.to) = uint4{0, 0, 0, 0};
        }
    }
    t.copy_count = kept;
}

void try_barrier() {
    Machine& m = *machine;
    if (m.at_barrier == 0 || m.at_barrier != m.live) return;
    m.at_barrier = 0;
    for (u32 i = 0; i < m.block; i++) {
        if (m.threads[i].op == Op::Barrier) {
            m.threads[i].op = Op::None;
            make_ready(m.threads[i]);
        }
    }
}

// A thread has ended: those that waited for it may go on.
void after_end(u32 index) {
    Machine& m = *machine;
    u32 warp = index / 32;
    m.live--;
    m.alive[warp] &= ~(1u << (index % 32));
    try_barrier();
    for (u32 l = 0; l < 32; l++) {
        if (m.waiting[warp] >> l & 1) try_meet(warp, l);
    }
}

// A thread that used more stack than it has wrote over the words at its end: all of them are looked at when it ends, the first meanwhile.
void check_stack(const Machine& m, const Thread& t) {
    u32 bytes = t.state == State::Done ? CANARY_BYTES : 8;
    for (u32 i = CANARY_BYTES - bytes; i < CANARY_BYTES; i += 8) {
        u64 word;
        memcpy(&word, t.stack + i, 8);
        if (word == 0x0101010101010101ull * CANARY) continue;
        fprintf(stderr, "kernel %s: a thread's stack ran over (%u bytes)\n", m.kernel->name, STACK_BYTES);
        abort();
    }
}

void resume(Machine& m, u32 index) {
    Thread& t = m.threads[index];
    m.ready[index / 32] &= ~(1u << (index % 32));
    if (!t.stack) start(m, t);
    m.running = &t;
    here = &t.place;
#if EMU_ASM
    bitai_emu_switch(&m.scheduler, t.context);
#else
    swapcontext(&m.scheduler, &t.context);
#endif
    check_stack(m, t);
    if (t.state == State::Done) {
        t.copy_group++; // what it left under way lands all the same
        land(t, 0);
        m.stacks[m.stack_count++] = t.stack;
        t.stack = nullptr;
        after_end(index);
    }
}

// Runs the runnable lanes of a warp once; says whether there were any.
bool run_warp(Machine& m, u32 warp) {
    if (!m.ready[warp]) return false;
    Walk walk(m, 32, m.ascending);
    for (u32 i = 0; i < 32 && m.code == Ok; i++) {
        u32 l = static_cast<u32>(walk[i]);
        if (m.ready[warp] >> l & 1) resume(m, 32 * warp + l);
    }
    return m.code == Ok;
}

void say_deadlock(Machine& m) {
    static const char* const names[] = {"nothing", "a block barrier", "a warp barrier", "a shuffle",
                                        "a ballot", "mma_s8",          "mma_u8s8",       "ldmatrix"};
    m.code = Deadlock;
    int used = snprintf(message, sizeof message, "kernel %s, block (%u, %u, %u): threads wait for ever:", m.kernel->name,
                        m.threads[0].place.block.x, m.threads[0].place.block.y, m.threads[0].place.block.z);
    Op last = Op::None;
    for (u32 i = 0; i < m.block && used > 0 && used < 200; i++) {
        const Thread& t = m.threads[i];
        if (t.state != State::Waiting || t.op == last) continue;
        last = t.op;
        used += snprintf(message + used, sizeof message - static_cast<size_t>(used), " thread %u at %s (mask %08x);", i,
                         names[static_cast<u32>(t.op)], t.mask);
    }
}

void run_block(Machine& m, uint3 block, uint3 grid) {
    u32 warps = (m.block + 31) / 32;
    for (u32 i = 0; i < m.block; i++) {
        Thread& t = m.threads[i];
        t.place.thread = {i, 0, 0};
        t.place.block = block;
        t.place.block_dim = {m.block, 1, 1};
        t.place.grid_dim = grid;
        t.place.lane = i % 32;
        t.op = Op::None;
        t.mask = 0;
        t.copy_count = 0;
        t.copy_group = 1;
        make_ready(t);
        m.alive[i / 32] |= 1u << (i % 32);
    }
    m.live = m.block;
    m.at_barrier = 0;
    if (m.static_used > m.dirty) m.dirty = m.static_used;
    memset(m.static_shared, m.pattern, m.dirty);
    m.variable_count = m.static_used = 0;
    memset(m.dynamic_shared, m.pattern, m.dynamic_used);
    memset(m.dynamic_shared + m.dynamic_used, CANARY, CANARY_BYTES);
    // Either each warp as far as it gets, or all warps in step.
    bool far = m.ascending || (random(m) & 1);
    while (m.live && m.code == Ok) {
        bool any = false;
        Walk walk(m, warps, m.ascending);
        for (u32 i = 0; i < warps; i++) {
            u32 w = static_cast<u32>(walk[i]);
            while (run_warp(m, w)) {
                any = true;
                if (!far) break;
            }
        }
        if (!any && m.code == Ok) say_deadlock(m);
    }
    for (u32 i = 0; i < CANARY_BYTES && m.code == Ok; i++) {
        if (m.dynamic_shared[m.dynamic_used + i] == CANARY) continue;
        m.code = BadGeometry;
        snprintf(message, sizeof message, "kernel %s writes past its %u bytes of dynamic shared memory", m.kernel->name,
                 m.dynamic_used);
    }
}

// After a launch that failed: threads that never ended give their stacks back.
void clear(Machine& m) {
    for (u32 i = 0; i < m.block; i++) {
        Thread& t = m.threads[i];
        if (t.stack) m.stacks[m.stack_count++] = t.stack;
        t.stack = nullptr;
    }
    memset(m.ready, 0, sizeof m.ready);
    memset(m.waiting, 0, sizeof m.waiting);
    memset(m.alive, 0, sizeof m.alive);
}

Kernel** list_end() {
    Kernel** end = &kernels;
    while (*end) end = &(*end)->next;
    return end;
}

const Kernel* find(const char* name) {
    for (const Kernel* k = kernels; k; k = k->next) {
        if (strcmp(k->name, name) == 0) return k;
    }
    return nullptr;
}

} // namespace

// The list keeps the order of the sources.
Kernel::Kernel(const char* name, unsigned long args_len, u32 max_block, void (*run)(const void*))
    : name(name), args_len(args_len), max_block(max_block), run(run), next(nullptr) {
    *list_end() = this;
}

void* shared_variable(const void* key, unsigned long bytes) {
    Machine& m = *machine;
    for (u32 i = 0; i < m.variable_count; i++) {
        if (m.variables[i].key == key) return m.static_shared + m.variables[i].at;
    }
    u32 at = m.static_used, room = static_cast<u32>((bytes + 15) / 16 * 16);
    if (room > STATIC_SHARED - at || m.variable_count == MAX_VARIABLES) {
        fail(BadGeometry, "more than 48 KiB (or 64 variables) of static shared memory");
    }
    m.variables[m.variable_count++] = {key, at};
    m.static_used = at + room;
    if (m.static_used + m.dynamic_used > ALL_SHARED) fail(BadGeometry, "more than 227 KiB of shared memory");
    return m.static_shared + at;
}

void* dynamic_shared() { return machine->dynamic_shared; }

void barrier() {
    Machine& m = *machine;
    Thread& t = *m.running;
    t.state = State::Waiting;
    t.op = Op::Barrier;
    m.at_barrier++;
    try_barrier();
    to_scheduler(t);
}

void meet(Op op, u32 mask) {
    Machine& m = *machine;
    Thread& t = *m.running;
    u32 index = static_cast<u32>(&t - m.threads);
    t.state = State::Waiting;
    t.op = op;
    t.mask = mask;
    // A lane outside its own mask waits for ever, which is what the error says.
    m.waiting[index / 32] |= 1u << (index % 32);
    if (mask >> (index % 32) & 1) try_meet(index / 32, index % 32);
    to_scheduler(t);
}

void copy_start(void* to, const void* from, u32 bytes, bool valid) {
    Thread& t = *machine->running;
    if (t.copy_count == t.copy_room) {
        t.copy_room = t.copy_room ? 2 * t.copy_room : 16;
        t.copies = static_cast<Copy*>(realloc(t.copies, t.copy_room * sizeof(Copy)));
        if (!t.copies) abort();
    }
    t.copies[t.copy_count++] = {to, from, t.copy_group, bytes, valid};
    if (machine->copies_at_once) {
        t.copy_group += 1;
        land(t, 0);
        t.copy_group -= 1;
    }
}

void copy_commit() { machine->running->copy_group++; }

void copy_wait(u32 groups) { land(*machine->running, groups); }

} // namespace emu

#include "../module.cu"

#include "spec_abi.h"

using namespace emu;

// Where the module's kernels end on the list; behind them are those that test the emulator itself.
static Kernel* const* const module_end = list_end();

// The module's kernel numbered `index`, null past the last.
extern "C" const char* bitai_emu_kernel(size_t index) {
    const Kernel* k = kernels;
    for (const Kernel* end = *module_end; k != end && index; index--) k = k->next;
    return k == *module_end ? nullptr : k->name;
}

// Bytes of a kernel's arguments, 0 where there is no such kernel.
extern "C" size_t bitai_emu_args_len(const char* name) {
    const Kernel* k = find(name);
    return k ? k->args_len : 0;
}

// Why this OS thread's last launch failed, for people.
extern "C" const char* bitai_emu_error() { return message; }

// Runs a kernel to its end. 0 ok; 1 no such kernel; 2 wrong length of arguments; 3 bad geometry or shared memory; 4 deadlock.
extern "C" int32_t bitai_emu_launch(const char* name, const uint32_t grid[3], uint32_t block, uint32_t shared_bytes,
                                    const void* args, size_t args_len, uint64_t order) {
    message[0] = 0;
    const Kernel* k = find(name);
    if (!k) return snprintf(message, sizeof message, "no kernel %s", name), NoKernel;
    if (args_len != k->args_len) {
        return snprintf(message, sizeof message, "kernel %s takes %lu bytes of arguments", name, k->args_len), WrongArgs;
    }
    if (block == 0 || block > k->max_block || shared_bytes > ALL_SHARED || !grid[0] || !grid[1] || !grid[2] ||
        grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) {
        snprintf(message, sizeof message, "kernel %s: no grid (%u, %u, %u) of %u threads with %u bytes of shared memory", name,
                 grid[0], grid[1], grid[2], block, shared_bytes);
        return BadGeometry;
    }
    alignas(16) u8 copy[4096];
    if (args_len > sizeof copy) return WrongArgs;
    memcpy(copy, args, args_len);
    Machine* outer = machine;
    Machine& m = *(machine = take_machine());
    m.kernel = k;
    m.args = copy;
    m.block = block;
    m.dynamic_used = shared_bytes;
    m.code = Ok;
    m.random = order;
    m.ascending = order == 0;
    m.copies_at_once = !m.ascending && (random(m) & 1);
    m.pattern = static_cast<u8>(0xa5 ^ (m.ascending ? 0 : random(m) & 0x7f));
    // All of it for the first block, later what the blocks before have used.
    memset(m.static_shared, m.pattern, STATIC_SHARED);
    m.dirty = m.static_used = 0;
    u64 blocks = static_cast<u64>(grid[0]) * grid[1] * grid[2];
    Walk walk(m, blocks, m.ascending);
    for (u64 i = 0; i < blocks && m.code == Ok; i++) {
        u64 b = walk[i];
        uint3 at = {static_cast<u32>(b % grid[0]), static_cast<u32>(b / grid[0] % grid[1]),
                    static_cast<u32>(b / grid[0] / grid[1])};
        run_block(m, at, {grid[0], grid[1], grid[2]});
    }
    i32 code = m.code;
    if (code != Ok) clear(m);
    machine = outer;
    here = nullptr;
    give_machine(&m);
    return code;
}

#include "selftest.h"
