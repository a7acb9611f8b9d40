// Steps of a quantisation (rules Q1 to Q6, W1 to W3).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Numbers} from "../Numbers.sol";
import {Input, StepField, StepInput} from "./StepInput.sol";

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
library StepQuant {
    using StepInput for Input;

    int256 private constant WHT_MAX = (1 << 22) - 1;

    /// Q1, W1 to W3.
    function magnitude(Input memory r) internal pure returns (bytes memory) {
        (uint256 block_, uint256 index) = _block(r);
        return StepInput.put(Numbers.magnitude(_value(r, block_, index, r.u32())), 4);
    }

    /// Q2 to Q5.
    function scale(Input memory r) internal pure returns (bytes memory) {
        uint256 planes = r.planes();
        uint256 fIn = r.u8();
        bool transformed = r.flag("transformed");
        uint256 raw = r.u32();
        uint256 max = r.u32();
        if (max == 0) return new bytes(4);
        (int256 s, int256 a) = _shifted(max);
        int256 m = (a << 20) / _most(planes);
        int256 k = Numbers.bitlen(uint256(m)) - 16;
        m = Numbers.rsr(m, k);
        if (m == 1 << 16) (m, k) = (1 << 15, k + 1);
        int256 e = k - 20 + s + (transformed ? _whtShift(raw) : int256(0)) - int256(fIn);
        return bytes.concat(StepInput.put(m, 2), StepInput.put(e, 2));
    }

    /// Q6.
    function element(Input memory r) internal pure returns (bytes memory) {
        uint256 planes = r.planes();
        (uint256 block_, uint256 index) = _block(r);
        uint256 raw = r.u32();
        uint256 max = r.u32();
        int256 v = _value(r, block_, index, raw);
        if (max == 0) return new bytes(planes);
        int256 most = _most(planes);
        (int256 s, int256 a) = _shifted(max);
        int256 c = (most << 40) / a;
        int256 out = Numbers.rsr(Numbers.smul(Numbers.rsr(v, s), c), 40);
        return StepInput.put(Numbers.clamp(out, -most, most), planes);
    }

    function _most(uint256 planes) private pure returns (int256) {
        return planes == 1 ? int256(127) : int256(32639);
    }

    /// Q2.
    function _shifted(uint256 max) private pure returns (int256 s, int256 a) {
        s = Numbers.bitlen(max) - 24;
        a = Numbers.rsr(int256(max), s);
    }

    /// W1.
    function _whtShift(uint256 max) private pure returns (int256) {
        int256 s = Numbers.bitlen(max) - 22;
        return s > 0 ? s : int256(0);
    }

    function _block(Input memory r) private pure returns (uint256 block_, uint256 index) {
        block_ = r.u16();
        index = r.u16();
        bool good = block_ == 0 || (block_ >= 2 && block_ <= 512 && block_ & (block_ - 1) == 0);
        require(good, StepField(r.kind, "block"));
        require(index < (block_ == 0 ? 1 : block_), StepField(r.kind, "index"));
    }

    /// The value that is quantised: as it is, or after W2 and W3.
    function _value(Input memory r, uint256 block_, uint256 index, uint256 raw)
        private
        pure
        returns (int256 sum)
    {
        if (block_ == 0) return r.i32();
        int256 s = _whtShift(raw);
        uint256 place = r.take(4 * block_);
        unchecked {
            for (uint256 j; j < block_; ++j) {
                int256 v = Numbers.clamp(Numbers.rsr(StepInput.i32At(place + 4 * j), s), -WHT_MAX, WHT_MAX);
                // The parity of the common bits is the sign.
                uint256 x = index & j;
                x ^= x >> 8;
                x ^= x >> 4;
                x ^= x >> 2;
                x ^= x >> 1;
                sum += x & 1 == 0 ? v : -v;
            }
        }
        return Numbers.sat32(sum);
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
