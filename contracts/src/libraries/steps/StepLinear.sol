// Steps of a linear (rules L1 to L5), and the bounds of its weights (T2, T3).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Numbers} from "../Numbers.sol";
import {Input, Scale, StepField, StepInput} from "./StepInput.sol";

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
library StepLinear {
    using StepInput for Input;

    /// L1.
    function part(Input memory r) internal pure returns (bytes memory) {
        uint256 planes = r.planes();
        bool grouped = r.flag("grouped");
        uint256 n = r.count();
        uint256 x = r.take(n * planes);
        uint256 w = r.take(n);
        uint256 mult = grouped ? r.take((n + 31) / 32) : 0;
        int256 acc;
        unchecked {
            for (uint256 from; from < n; from += 32) {
                uint256 to = from + 32 < n ? from + 32 : n;
                int256 sum;
                for (uint256 i = from; i < to; ++i) {
                    int256 v = planes == 1 ? StepInput.i8At(x + i) : StepInput.i16At(x + 2 * i);
                    sum += v * StepInput.i8At(w + i);
                }
                acc += grouped ? sum * int256(StepInput.le(mult + from / 32, 1)) : sum;
            }
        }
        return StepInput.put(acc, 8);
    }

    /// What all segments of an element share.
    struct End {
        uint256 planes;
        uint256 fOut;
        Scale w;
    }

    /// L2 to L5.
    function finish(Input memory r) internal pure returns (bytes memory) {
        End memory end;
        end.planes = r.planes();
        end.fOut = r.u8();
        uint256 segments = r.u8();
        bool good = segments == 1 || segments == 2 || segments == 4 || segments == 8;
        require(good, StepField(r.kind, "segments"));
        uint256 n = r.count();
        end.w = r.scale();
        int256 sum = r.i32();
        uint256 scales = r.take(4 * segments);
        // (2^31 - 1) >> log2(segments)
        int256 limit = int256(2147483647 / segments);
        for (uint256 s; s < segments; ++s) {
            Scale memory x = Scale(StepInput.le(scales, 2), StepInput.i16At(scales + 2));
            sum += Numbers.clamp(requant(_acc(r, n), end, x), -limit, limit);
            scales += 4;
        }
        return StepInput.put(Numbers.sat32(sum), 4);
    }

    /// The parts of a segment together.
    function _acc(Input memory r, uint256 n) private pure returns (int256 acc) {
        uint256 place = r.take(8 * n);
        for (uint256 i; i < n; ++i) {
            acc += StepInput.i64At(place + 8 * i);
        }
        return Numbers.clamp64(acc);
    }

    /// L2 and L3.
    function requant(int256 acc, End memory end, Scale memory x) internal pure returns (int256) {
        int256 shift = -(x.e + end.w.e + int256(end.fOut));
        if (end.planes == 1) {
            return Numbers.sat32(Numbers.rsr(Numbers.smul(acc, int256(x.m * end.w.m)), shift));
        }
        int256 first = Numbers.rsr(Numbers.smul(acc, int256(x.m)), 16);
        return Numbers.sat32(Numbers.rsr(Numbers.smul(first, int256(end.w.m)), shift - 16));
    }

    /// T2, T3.
    function bounds(Input memory r) internal pure returns (bytes memory) {
        bool grouped = r.flag("grouped");
        uint256 n = r.u32();
        require(n > 0 && n <= 65536, StepField(r.kind, "count"));
        uint256 w = r.take(n);
        uint256 mult = grouped ? r.take((n + 31) / 32) : 0;
        uint256 sum;
        uint256 fault;
        unchecked {
            for (uint256 from; from < n; from += 32) {
                uint256 to = from + 32 < n ? from + 32 : n;
                uint256 size;
                for (uint256 i = from; i < to; ++i) {
                    int256 v = StepInput.i8At(w + i);
                    if (v == -128) fault = 1;
                    size += Numbers.magnitude(v);
                }
                if (grouped) {
                    uint256 m = StepInput.le(mult + from / 32, 1);
                    // A weight's fault comes before a multiplier's.
                    if (fault == 0 && (m == 0 || m > 15)) fault = 2;
                    size *= m;
                }
                sum += size;
            }
        }
        if (fault == 0 && sum >= 1 << 24) fault = 3;
        return bytes.concat(bytes1(uint8(fault)), StepInput.put(sum, 8));
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
