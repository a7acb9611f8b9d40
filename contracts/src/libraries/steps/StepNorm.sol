// Steps of the norms (rules R1 to R9) and of pooling (O1).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Numbers} from "../Numbers.sol";
import {Input, StepField, StepInput} from "./StepInput.sol";

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
library StepNorm {
    using StepInput for Input;

    /// What an element is multiplied by (R5), and the formats around it.
    struct Group {
        uint256 d;
        uint256 eps;
        int256 gainF;
        int256 fOut;
        int256 shift;
        int256 iv;
        int256 e;
    }

    /// R1, R2.
    function squares(Input memory r) internal pure returns (bytes memory) {
        int256 s = _shift(r.u32());
        uint256 n = r.count();
        uint256 place = r.take(4 * n);
        uint256 sum;
        unchecked {
            for (uint256 i; i < n; ++i) {
                uint256 x = Numbers.magnitude(Numbers.rsr(StepInput.i32At(place + 4 * i), s));
                sum += x * x;
            }
        }
        return StepInput.put(Numbers.clampU64(sum), 8);
    }

    /// R3 to R6.
    function rmsElement(Input memory r) internal pure returns (bytes memory) {
        Group memory g = _group(r);
        g.shift = _shift(r.u32());
        uint256 n = r.count();
        int256 h = r.i32();
        int256 gain = r.i32();
        _multiplier(g, _total(r, n), g.d * g.eps);
        return StepInput.put(Numbers.sat32(_scaled(g, h, gain)), 4);
    }

    /// R7, O1.
    function sum_(Input memory r) internal pure returns (bytes memory) {
        uint256 n = r.count();
        uint256 place = r.take(4 * n);
        int256 sum;
        for (uint256 i; i < n; ++i) {
            sum += StepInput.i32At(place + 4 * i);
        }
        return StepInput.put(sum, 8);
    }

    /// R7.
    function centred(Input memory r) internal pure returns (bytes memory) {
        uint256 d = r.group();
        int256 sum = r.i64();
        return StepInput.put(Numbers.magnitude(_centred(r.i32(), d, sum)), 8);
    }

    /// R8.
    function centredSquares(Input memory r) internal pure returns (bytes memory) {
        uint256 d = r.group();
        int256 sum = r.i64();
        int256 s = _shift(r.u64());
        uint256 n = r.count();
        uint256 place = r.take(4 * n);
        uint256 total;
        for (uint256 i; i < n; ++i) {
            int256 z = _centred(StepInput.i32At(place + 4 * i), d, sum);
            uint256 x = Numbers.magnitude(Numbers.rsr(z, s));
            total += x * x;
        }
        return StepInput.put(Numbers.clampU64(total), 8);
    }

    /// R8, R9.
    function layerElement(Input memory r) internal pure returns (bytes memory) {
        Group memory g = _group(r);
        int256 sum = r.i64();
        g.shift = _shift(r.u64());
        uint256 n = r.count();
        int256 h = r.i32();
        int256 gain = r.i32();
        int256 bias = r.i32();
        _multiplier(g, _total(r, n), g.d ** 3 * g.eps);
        return StepInput.put(Numbers.sat32(_scaled(g, _centred(h, g.d, sum), gain) + bias), 4);
    }

    /// O1.
    function poolMean(Input memory r) internal pure returns (bytes memory) {
        uint256 rows = r.u32();
        require(rows > 0, StepField(r.kind, "rows"));
        return StepInput.put(Numbers.sat32(Numbers.rsr(r.i64(), Numbers.bitlen(rows - 1))), 4);
    }

    function _group(Input memory r) private pure returns (Group memory g) {
        g.d = r.group();
        g.eps = r.u64();
        g.gainF = r.i8();
        g.fOut = int256(r.u8());
    }

    /// R1, R7: what brings the largest magnitude to 23 bits.
    function _shift(uint256 max) private pure returns (int256) {
        int256 s = Numbers.bitlen(max) - 23;
        return s > 0 ? s : int256(0);
    }

    /// R7.
    function _centred(int256 h, uint256 d, int256 sum) private pure returns (int256) {
        return Numbers.clamp64(int256(d) * h - sum);
    }

    /// Published sums of squares together.
    function _total(Input memory r, uint256 n) private pure returns (uint256 sum) {
        uint256 place = r.take(8 * n);
        for (uint256 i; i < n; ++i) {
            sum += StepInput.le(place + 8 * i, 8);
        }
        return Numbers.clampU64(sum);
    }

    /// R3 to R5, `eps` that of all elements together.
    function _multiplier(Group memory g, uint256 sum, uint256 eps) private pure {
        eps >>= 2 * uint256(g.shift);
        uint256 ss = Numbers.clampU64(sum + (eps < 1 << 62 ? eps : 1 << 62));
        if (ss == 0) ss = 1;
        int256 u = 62 - Numbers.bitlen(ss);
        u -= u & 1;
        uint256 n = u >= 0 ? ss << uint256(u) : ss >> uint256(-u);
        uint256 p = (1 << 61) / Numbers.isqrt(n) * Numbers.isqrt(g.d << 46);
        int256 k = Numbers.bitlen(p) - 31;
        g.iv = Numbers.rsr(int256(p), k);
        g.e = k - 84 + u / 2;
    }

    /// R6, R9: an element before its bias.
    function _scaled(Group memory g, int256 x, int256 gain) private pure returns (int256) {
        int256 y = Numbers.rsr(Numbers.smul(Numbers.rsr(x, g.shift), g.iv), 23);
        return Numbers.rsr(Numbers.smul(y, gain), g.gainF - g.fOut - g.e - 23);
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
