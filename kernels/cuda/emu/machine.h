// The state of a launch on the emulated GPU: threads, shared memory, the order that its seed picks; and how threads,
// which are fibers with stacks of their own, switch to the scheduler and back.
#pragma once
#include "emu.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__ELF__) && !defined(EMU_UCONTEXT)
#define EMU_ASM 1
#else
#define EMU_ASM 0
#include <ucontext.h>
#endif

namespace emu {

thread_local Place* here = nullptr;

namespace {

constexpr u32 MAX_THREADS = 1024;
constexpr u32 STACK_BYTES = 64 << 10;
constexpr u32 CANARY_BYTES = 64;
constexpr u32 STATIC_SHARED = 48 << 10;
constexpr u32 ALL_SHARED = 227 << 10;
constexpr u32 MAX_VARIABLES = 64;
constexpr u8 CANARY = 0xc5;

enum Code : i32 { Ok = 0, NoKernel = 1, WrongArgs = 2, BadGeometry = 3, Deadlock = 4 };
enum class State : u32 { Ready, Waiting, Done };

#if EMU_ASM
// Saves what a call must preserve on the running stack, leaves its pointer in *save and goes on where `to` was left.
extern "C" void bitai_emu_switch(void** save, void* to);
__asm__(".text\n.globl bitai_emu_switch\n.hidden bitai_emu_switch\n.type bitai_emu_switch,@function\n"
        "bitai_emu_switch:\n"
        "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
        // Not ret: the processor would predict the return of another thread's call.
        "  pop %rcx\n  jmp *%rcx\n"
        ".size bitai_emu_switch,.-bitai_emu_switch\n");
typedef void* Context;
#else
typedef ucontext_t Context;
#endif

struct Copy {
    void* to;
    const void* from;
    u32 group;
    u32 bytes; // 8 or 16
    bool valid;
};

struct Thread {
    Place place;
    State state;
    Op op;
    u32 mask;
    u8* stack; // null: not started
    Context context;
    Copy* copies;
    u32 copy_count, copy_room, copy_group;
};

struct Variable {
    const void* key;
    u32 at;
};

// All that one launch needs; kept for the next one.
struct Machine {
    Thread threads[MAX_THREADS];
    // Lanes of each warp: runnable; waiting in a warp operation; not ended.
    u32 ready[MAX_THREADS / 32], waiting[MAX_THREADS / 32], alive[MAX_THREADS / 32];
    u8* stacks[MAX_THREADS];
    u32 stack_count; // free ones
    alignas(16) u8 static_shared[STATIC_SHARED];
    u8* dynamic_shared; // ALL_SHARED bytes and a canary
    Variable variables[MAX_VARIABLES];
    u32 variable_count, static_used, dynamic_used;
    u32 dirty; // bytes of static shared memory that the launch's blocks have used
    u8 pattern;
    const Kernel* kernel;
    const void* args;
    u32 block, live, at_barrier;
    u64 random;
    bool ascending, copies_at_once;
    Context scheduler;
    Thread* running;
    i32 code;
    Machine* next;
};

Kernel* kernels = nullptr;
Machine* idle = nullptr;
volatile char idle_lock = 0;
thread_local Machine* machine = nullptr;
thread_local char message[256];

// splitmix64.
u64 random(Machine& m) {
    u64 z = (m.random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

u64 common_divisor(u64 a, u64 b) {
    while (b) {
        u64 r = a % b;
        a = b;
        b = r;
    }
    return a;
}

// A walk through 0 .. n in an order that the seed picks: i -> first + i * step modulo n.
struct Walk {
    u64 n, first, step;
    Walk(Machine& m, u64 n, bool ascending) : n(n), first(0), step(1) {
        if (ascending || n < 2) return;
        first = random(m) % n;
        do {
            step = 1 + random(m) % (n - 1);
        } while (common_divisor(step, n) != 1);
    }
    u64 operator[](u64 i) const {
        if (step == 1 && first == 0) return i;
        if (n >> 32 == 0) return (i * step + first) % n;
        return static_cast<u64>((static_cast<unsigned __int128>(i) * step + first) % n);
    }
};

void to_scheduler(Thread& t) {
#if EMU_ASM
    bitai_emu_switch(&t.context, machine->scheduler);
#else
    swapcontext(&t.context, &machine->scheduler);
#endif
}

// Ends the launch from inside a thread.
void fail(Code code, const char* why) {
    Machine& m = *machine;
    m.code = code;
    snprintf(message, sizeof message, "kernel %s: %s", m.kernel->name, why);
    to_scheduler(*m.running);
    abort(); // nobody comes back here
}

void make_ready(Thread& t) {
    t.state = State::Ready;
    u32 i = static_cast<u32>(&t - machine->threads);
    machine->ready[i / 32] |= 1u << (i % 32);
    machine->waiting[i / 32] &= ~(1u << (i % 32));
}

void thread_body() {
    Machine& m = *machine;
    m.kernel->run(m.args);
    m.running->state = State::Done;
    to_scheduler(*m.running);
    abort(); // nobody comes back here
}

void start(Machine& m, Thread& t) {
    if (m.stack_count == 0) {
        u8* fresh = static_cast<u8*>(aligned_alloc(64, STACK_BYTES));
        if (!fresh) abort();
        memset(fresh, CANARY, CANARY_BYTES);
        m.stacks[m.stack_count++] = fresh;
    }
    t.stack = m.stacks[--m.stack_count];
#if EMU_ASM
    // Six registers, the entry, and a return address that leaves the stack as a call would.
    void** sp = reinterpret_cast<void**>(t.stack + STACK_BYTES) - 8;
    memset(sp, 0, 8 * sizeof(void*));
    sp[6] = reinterpret_cast<void*>(thread_body);
    t.context = sp;
#else
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack;
    t.context.uc_stack.ss_size = STACK_BYTES;
    t.context.uc_link = nullptr;
    makecontext(&t.context, thread_body, 0);
#endif
}

} // namespace
} // namespace emu
