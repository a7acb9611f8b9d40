// Four consecutive int32 of a row at a time: one 16-byte access where the row is aligned and long enough, single words else.
#pragma once
#include "gpu.h"

// Whether every row of `cols` elements from `p` on is aligned to 16 bytes.
DEVICE bool fours(const void* p, u32 cols) { return cols % 4 == 0 && reinterpret_cast<u64>(p) % 16 == 0; }

// Elements i .. i + 4 of a row of n; zeros past its end. i is a multiple of 4.
DEVICE int4 load4(const i32* row, u32 i, u32 n, bool aligned) {
    if (aligned && i < n) return *reinterpret_cast<const int4*>(row + i);
    return make_int4(i < n ? row[i] : 0, i + 1 < n ? row[i + 1] : 0, i + 2 < n ? row[i + 2] : 0, i + 3 < n ? row[i + 3] : 0);
}

DEVICE void store4(i32* row, u32 i, u32 n, bool aligned, int4 v) {
    if (aligned && i < n) {
        *reinterpret_cast<int4*>(row + i) = v;
        return;
    }
    if (i < n) row[i] = v.x;
    if (i + 1 < n) row[i + 1] = v.y;
    if (i + 2 < n) row[i + 2] = v.z;
    if (i + 3 < n) row[i + 3] = v.w;
}

// The same for bytes; `aligned` is to 4 bytes, n then being a multiple of 4.
DEVICE void store_bytes4(i8* row, u32 i, u32 n, bool aligned, int4 v) {
    if (aligned && i < n) {
        u32 low = (static_cast<u32>(v.x) & 255) | (static_cast<u32>(v.y) & 255) << 8;
        *reinterpret_cast<u32*>(row + i) = low | (static_cast<u32>(v.z) & 255) << 16 | static_cast<u32>(v.w) << 24;
        return;
    }
    if (i < n) row[i] = static_cast<i8>(v.x);
    if (i + 1 < n) row[i + 1] = static_cast<i8>(v.y);
    if (i + 2 < n) row[i + 2] = static_cast<i8>(v.z);
    if (i + 3 < n) row[i + 3] = static_cast<i8>(v.w);
}
