// The residual sum (D1). Bytes: 12 an element, three instructions. Launch: grid-stride over count elements, any block; a thread takes four
// neighbours where the arrays are aligned. out may be a or b.
#include "args.h"
#include "gpu.h"
#include "row4.h"
#include "spec.h"

KERNEL(add, AddArgs) {
    u64 threads = static_cast<u64>(gridDim.x) * blockDim.x, thread = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    bool aligned = (reinterpret_cast<u64>(a.a) | reinterpret_cast<u64>(a.b) | reinterpret_cast<u64>(a.out)) % 16 == 0;
    u64 whole = aligned ? a.count / 4 : 0;
    for (u64 i = thread; i < whole; i += threads) {
        int4 x = reinterpret_cast<const int4*>(a.a)[i], y = reinterpret_cast<const int4*>(a.b)[i];
        reinterpret_cast<int4*>(a.out)[i] =
            make_int4(add_element(x.x, y.x), add_element(x.y, y.y), add_element(x.z, y.z), add_element(x.w, y.w));
    }
    for (u64 i = 4 * whole + thread; i < a.count; i += threads) a.out[i] = add_element(a.a[i], a.b[i]);
}
