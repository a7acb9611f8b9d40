// What the lanes of a warp do together: shuffles, votes, products of matrices, matrices out of shared memory.
#pragma once
#include "machine.h"

namespace emu {
namespace {

// d += a * b in the fragment layout of mma.m16n8k32; b by columns.
template <class A>
void multiply(Thread* lanes) {
    i16 a[16][32], b[8][32];
    for (u32 l = 0; l < 32; l++) {
        const Slot& s = lanes[l].place.slot;
        u32 g = l / 4, t = l % 4;
        for (u32 r = 0; r < 4; r++) {
            for (u32 i = 0; i < 4; i++) a[g + 8 * (r & 1)][16 * (r / 2) + 4 * t + i] = static_cast<i16>(static_cast<A>(s.a[r] >> (8 * i)));
        }
        for (u32 r = 0; r < 2; r++) {
            for (u32 i = 0; i < 4; i++) b[g][16 * r + 4 * t + i] = static_cast<i8>(s.b[r] >> (8 * i));
        }
    }
    for (u32 l = 0; l < 32; l++) {
        Slot& s = lanes[l].place.slot;
        for (u32 r = 0; r < 4; r++) {
            u32 row = l / 4 + 8 * (r / 2), col = 2 * (l % 4) + (r & 1);
            i32 sum = 0; // at most 2^5 * 2^15
            for (u32 k = 0; k < 32; k++) sum += a[row][k] * b[col][k];
            s.d[r] = static_cast<i32>(static_cast<u32>(s.d[r]) + static_cast<u32>(sum));
        }
    }
}

void read_matrices(Thread* lanes) {
    u32 count = lanes[0].place.slot.from;
    for (u32 l = 0; l < 32; l++) {
        for (u32 m = 0; m < count; m++) {
            const u8* row = static_cast<const u8*>(lanes[8 * m + l / 4].place.slot.row);
            if (reinterpret_cast<uintptr_t>(row) % 16) fail(BadGeometry, "ldmatrix of a row that is not 16-byte aligned");
            memcpy(&lanes[l].place.slot.a[m], row + 4 * (l % 4), 4);
        }
    }
}

// Does the operation of lane `l` if all that it waits for are there.
void try_meet(u32 warp, u32 l) {
    Machine& m = *machine;
    Thread* lanes = m.threads + 32 * warp;
    Op op = lanes[l].op;
    u32 mask = lanes[l].mask, there = mask & m.alive[warp];
    if (there & ~m.waiting[warp]) return;
    for (u32 rest = there; rest; rest &= rest - 1) {
        const Thread& t = lanes[__builtin_ctz(rest)];
        if (t.op != op || t.mask != mask) return;
    }
    bool whole = op == Op::Mma || op == Op::MmaUnsigned || op == Op::Matrix;
    if (whole && there != 0xffffffffu) return; // these need a whole warp: a deadlock
    u64 votes = 0;
    switch (op) {
    case Op::Mma: multiply<i8>(lanes); break;
    case Op::MmaUnsigned: multiply<u8>(lanes); break;
    case Op::Matrix: read_matrices(lanes); break;
    case Op::Ballot:
        for (u32 rest = there; rest; rest &= rest - 1) {
            u32 i = static_cast<u32>(__builtin_ctz(rest));
            votes |= lanes[i].place.slot.value << i;
        }
        break;
    default: break;
    }
    for (u32 rest = there; rest; rest &= rest - 1) {
        u32 i = static_cast<u32>(__builtin_ctz(rest));
        Slot& s = lanes[i].place.slot;
        if (op == Op::Shuffle) {
            // What a lane that does not take part holds is undefined on hardware: a pattern here.
            s.result = (there >> s.from & 1) ? lanes[s.from].place.slot.value : 0xdeadbeefdeadbeefull;
        } else if (op == Op::Ballot) {
            s.result = votes;
        }
        lanes[i].op = Op::None;
        make_ready(lanes[i]);
    }
}

} // namespace
} // namespace emu
