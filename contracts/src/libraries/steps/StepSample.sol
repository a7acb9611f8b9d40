// Steps of sampling (rules S1 to S7).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3} from "../Blake3.sol";
import {Numbers} from "../Numbers.sol";
import {Input, StepInput} from "./StepInput.sol";

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
library StepSample {
    using StepInput for Input;

    struct Threshold {
        uint256 p;
        uint256 id;
    }

    struct Sums {
        uint256 kCount;
        uint256 kMass;
        uint256 count;
        uint256 mass;
        uint256 below;
    }

    /// What a probability needs besides its logit.
    struct Row {
        uint256 shift;
        uint256 inverse;
        int256 max;
    }

    /// S2, S3.
    function probability(Input memory r) internal pure returns (bytes memory) {
        Row memory row = _row(r);
        return StepInput.put(_probability(row, r.i32()), 4);
    }

    /// S3 to S5.
    function idSums(Input memory r) internal pure returns (bytes memory) {
        Row memory row = _row(r);
        Threshold memory k = _threshold(r);
        Threshold memory cut = _threshold(r);
        uint256 token = r.u32();
        uint256 id = r.u32();
        uint256 n = r.count();
        Sums memory s;
        for (uint256 i; i < n; ++i) {
            uint256 p = _probability(row, r.i32());
            if (_keeps(k, p, id)) {
                s.kCount += 1;
                s.kMass += p;
            }
            if (_keeps(cut, p, id)) {
                s.count += 1;
                s.mass += p;
                if (id < token) s.below += p;
            }
            if (id < type(uint32).max) ++id;
        }
        return _put(s);
    }

    /// S5.
    function idTotal(Input memory r) internal pure returns (bytes memory) {
        uint256 n = r.count();
        Sums memory s;
        for (uint256 i; i < n; ++i) {
            Sums memory x = _sums(r);
            s.kCount += x.kCount;
            s.kMass += x.kMass;
            s.count += x.count;
            s.mass += x.mass;
            s.below += x.below;
        }
        uint256 most = type(uint32).max;
        if (s.kCount > most) s.kCount = most;
        if (s.count > most) s.count = most;
        s.kMass = Numbers.clampU64(s.kMass);
        s.mass = Numbers.clampU64(s.mass);
        s.below = Numbers.clampU64(s.below);
        return _put(s);
    }

    /// S4 to S7.
    function draw(Input memory r) internal pure returns (bytes memory) {
        uint256 vocab = r.u32();
        uint256 topK = r.u32();
        uint256 topP = r.u32();
        uint256 uniform = _draw(r);
        Threshold memory k = _threshold(r);
        Threshold memory cut = _threshold(r);
        uint256 p = r.u32();
        uint256 token = r.u32();
        Sums memory s = _sums(r);
        uint256 want = topK < vocab ? topK : vocab;
        bool kHolds = topK == 0 ? k.p == 0 && k.id == type(uint32).max : s.kCount == want;
        return StepInput.put(kHolds && _shortest(s, topP, cut) ? _interval(s, cut, p, token, uniform) : 1, 1);
    }

    /// S1.
    function greedy(Input memory r) internal pure returns (bytes memory) {
        int256 mine = r.i32();
        uint256 token = r.u32();
        int256 other = r.i32();
        uint256 id = r.u32();
        return StepInput.put(other > mine || (other == mine && id < token) ? 1 : 0, 1);
    }

    /// S5: the kept set is the shortest that reaches top_p of top-k's mass.
    function _shortest(Sums memory s, uint256 topP, Threshold memory cut) private pure returns (bool) {
        uint256 need = s.kMass * (topP < 65536 ? topP : 65536);
        if (s.mass << 16 < need) return false;
        return s.count == 1 || (s.mass >= cut.p && (s.mass - cut.p) << 16 < need);
    }

    /// S6, S7: 0 where the draw falls on the id, else 2.
    function _interval(Sums memory s, Threshold memory cut, uint256 p, uint256 token, uint256 uniform)
        private
        pure
        returns (uint256)
    {
        uint256 point = uniform * s.mass >> 64;
        return _keeps(cut, p, token) && s.below <= point && point - s.below < p ? 0 : 2;
    }

    /// S6: reads seed and position.
    function _draw(Input memory r) private pure returns (uint256) {
        bytes memory message = new bytes(28);
        uint256 place = r.take(12);
        assembly ("memory-safe") {
            // 12 bytes behind the tag's 16, in one word: the message is not 32 bytes long.
            let fields := shl(160, shr(160, mload(place)))
            mstore(add(message, 0x20), or("bitai/sample/v0", shr(128, fields)))
        }
        return _low64(Blake3.hash(message));
    }

    /// The first 8 bytes, little-endian.
    function _low64(bytes32 h) private pure returns (uint256) {
        uint256 place;
        assembly ("memory-safe") {
            mstore(0, h)
        }
        return StepInput.le(place, 8);
    }

    function _row(Input memory r) private pure returns (Row memory row) {
        uint256 f = r.u8();
        uint256 t = r.u32();
        row.shift = 16 + (f < 30 ? f : 30);
        row.inverse = (uint256(94548) << 32) / (t == 0 ? 1 : t);
        row.max = r.i32();
    }

    function _probability(Row memory row, int256 logit) private pure returns (uint256) {
        uint256 below = logit < row.max ? uint256(row.max - logit) : 0;
        uint256 z = below * row.inverse >> row.shift;
        return Numbers.exp2(z < 1 << 32 ? z : 1 << 32, 16);
    }

    function _keeps(Threshold memory t, uint256 p, uint256 id) private pure returns (bool) {
        return p > t.p || (p == t.p && id <= t.id);
    }

    function _threshold(Input memory r) private pure returns (Threshold memory t) {
        t.p = r.u32();
        t.id = r.u32();
    }

    function _sums(Input memory r) private pure returns (Sums memory s) {
        s.kCount = r.u32();
        s.kMass = r.u64();
        s.count = r.u32();
        s.mass = r.u64();
        s.below = r.u64();
    }

    function _put(Sums memory s) private pure returns (bytes memory) {
        return bytes.concat(
            StepInput.put(s.kCount, 4),
            StepInput.put(s.kMass, 8),
            StepInput.put(s.count, 4),
            StepInput.put(s.mass, 8),
            StepInput.put(s.below, 8)
        );
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
