// Embedding (E1, E2): rows of an int8 table by token id, or by position, as int32 in the residual's format.
//
// Bytes: cols read, 4 * cols written a row; a shift and two multiplications an element. Launch: grid (rows), any block;
// a thread takes four neighbouring elements at a time.
#include "args.h"
#include "gpu.h"
#include "row4.h"
#include "spec.h"

KERNEL(embed, EmbedArgs) {
    u32 id = a.ids[blockIdx.x];
    const i8* q = a.q + static_cast<u64>(id) * a.cols;
    const u8* mult = a.mult ? a.mult + static_cast<u64>(id) * (a.cols / 32) : nullptr;
    i32* out = a.out + static_cast<u64>(blockIdx.x) * a.cols;
    u32 scale = a.scales[id];
    i32 f_out = static_cast<i32>(a.f_out);
    bool aligned = fours(out, a.cols) && reinterpret_cast<u64>(a.q) % 4 == 0;
    for (u32 i = 4 * threadIdx.x; i < a.cols; i += 4 * blockDim.x) {
        u32 m = mult ? mult[i / 32] : 1;
        u32 four = 0;
        if (aligned) {
            four = *reinterpret_cast<const u32*>(q + i);
        } else {
            for (u32 j = 0; j < 4 && i + j < a.cols; j++) four |= static_cast<u32>(static_cast<u8>(q[i + j])) << (8 * j);
        }
        int4 v = make_int4(embed_element(static_cast<i8>(four), m, scale, f_out),
                           embed_element(static_cast<i8>(four >> 8), m, scale, f_out),
                           embed_element(static_cast<i8>(four >> 16), m, scale, f_out),
                           embed_element(static_cast<i8>(four >> 24), m, scale, f_out));
        store4(out, i, a.cols, aligned, v);
    }
}
