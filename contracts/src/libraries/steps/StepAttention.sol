// Steps of attention (rules A2 to A9).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Numbers} from "../Numbers.sol";
import {Input, Scale, StepField, StepInput, Unit} from "./StepInput.sol";

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
library StepAttention {
    using StepInput for Input;

    /// A key that was scored, and what its value needs.
    struct Key {
        int256 score;
        /// The query's fraction bits.
        uint256 f;
        uint256 values;
        Scale v;
    }

    /// A3: the exponent that counts.
    function unit(Input memory r) internal pure returns (bytes memory) {
        Scale memory s = r.scale();
        return bytes.concat(StepInput.put(s.m == 0 ? 0 : 1, 1), StepInput.put(s.m == 0 ? int256(0) : s.e, 2));
    }

    /// A2 to A4.
    function score(Input memory r) internal pure returns (bytes memory) {
        uint256 d = r.headDim();
        Scale memory c = r.scale();
        return StepInput.put(_key(r, d, c, r.unit()).score, 4);
    }

    /// A2 to A6.
    function share(Input memory r) internal pure returns (bytes memory) {
        uint256 d = r.headDim();
        uint256 element = r.u16();
        uint256 pBits = r.pBits();
        Scale memory c = r.scale();
        Unit memory k = r.unit();
        Unit memory v = r.unit();
        int256 max = r.i32();
        uint256 position = r.u32();
        require(element < d, StepField(r.kind, "element"));
        Key memory key = _key(r, d, c, k);
        // A5.
        uint256 e = Numbers.exp2(key.score < max ? uint256(max - key.score) : 0, key.f);
        // A6.
        uint256 fine = (e * _inUnit(key.v, pBits - 7, v) >> 32) + ((position * 159) & 255);
        uint256 weight = fine >> 8;
        if (weight >> pBits > 0) weight = (1 << pBits) - 1;
        return bytes.concat(
            StepInput.put(e, 4),
            StepInput.put(weight, 4),
            StepInput.put(StepInput.i8At(key.values + element), 1)
        );
    }

    /// A5, A7: sums over published keys.
    function sums(Input memory r) internal pure returns (bytes memory) {
        uint256 n = r.u16();
        require(n > 0 && n <= 512, StepField(r.kind, "count"));
        uint256 place = r.take(9 * n);
        int256 acc;
        uint256 z;
        unchecked {
            for (uint256 end = place + 9 * n; place < end; place += 9) {
                z += StepInput.le(place, 4);
                acc += int256(StepInput.le(place + 4, 4)) * StepInput.i8At(place + 8);
            }
        }
        return bytes.concat(StepInput.put(acc, 8), StepInput.put(z, 8));
    }

    /// A8, A9.
    function finish(Input memory r) internal pure returns (bytes memory) {
        uint256 pBits = r.pBits();
        uint256 fOut = r.u8();
        Unit memory v = r.unit();
        uint256 n = r.count();
        uint256 place = r.take(16 * n);
        int256 acc;
        uint256 z;
        for (uint256 i; i < n; ++i) {
            acc += StepInput.i64At(place + 16 * i);
            z += StepInput.le(place + 16 * i + 8, 8);
        }
        if (!v.there) return StepInput.put(uint256(0), 4);
        if (z == 0) z = 1;
        if (z > uint256(Numbers.I64_MAX)) z = uint256(Numbers.I64_MAX);
        int256 b = Numbers.bitlen(z);
        int256 zs = Numbers.rsr(int256(z), b - 31);
        int256 rc = Numbers.rsr((1 << 62) / zs, 16);
        int256 shift = int256(pBits) + b - 32 - v.e - int256(fOut);
        return StepInput.put(Numbers.sat32(Numbers.rsr(Numbers.smul(Numbers.clamp64(acc), rc), shift)), 4);
    }

    /// Opens a query head and a key's record, and scores the key.
    function _key(Input memory r, uint256 d, Scale memory c, Unit memory u)
        private
        pure
        returns (Key memory key)
    {
        Scale memory q = r.scale();
        uint256 query = r.take(d);
        uint256 record = r.take(d);
        int256 dot;
        unchecked {
            for (uint256 i; i < d; ++i) {
                dot += StepInput.i8At(query + i) * StepInput.i8At(record + i);
            }
        }
        Scale memory k = r.scale();
        key.values = r.take(d);
        key.v = r.scale();
        int256 a = 17 - Numbers.bitlen(d - 1);
        int256 y = (Numbers.sat32(dot << uint256(a)) * int256(_inUnit(k, 15, u))) >> 32;
        // The query's factor: 31 bits, less where scores are so small that their fraction bits would pass 31.
        uint256 m = q.m * c.m;
        int256 b = Numbers.bitlen(m);
        int256 f = a - 18 - b - (q.e + c.e + u.e);
        m = (m << uint256(32 - b)) >> 1 >> uint256(Numbers.clamp(f - 31, 0, 31));
        key.f = uint256(Numbers.clamp(f, 1, 31));
        key.score = -((y * -int256(m)) >> 32);
    }

    /// A3: mantissa * 2^shift, cut to the unit.
    function _inUnit(Scale memory s, uint256 shift, Unit memory u) private pure returns (uint256) {
        return (s.m << shift) >> uint256(Numbers.clamp(u.e - s.e, 0, 31));
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
