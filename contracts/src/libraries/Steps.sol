// The integer steps that are cheap in plain Solidity; docs/spec/tensor.md names the rules.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Arithmetic of the tensor spec on elements in memory, little-endian as they are hashed.
library Steps {
    int256 private constant I64_MAX = type(int64).max;
    int256 private constant I64_MIN = type(int64).min;
    /// Largest int32 that rows hold (N2).
    int256 internal constant SAT32 = type(int32).max;
    /// Elements that share a multiplier.
    uint256 internal constant GROUP = 32;

    /// `x` in 64 bits.
    function clamp64(int256 x) internal pure returns (int256) {
        return x > I64_MAX ? I64_MAX : x < I64_MIN ? I64_MIN : x;
    }

    /// N2.
    function sat32(int256 x) internal pure returns (int256) {
        return x > SAT32 ? SAT32 : x < -SAT32 ? -SAT32 : x;
    }

    /// N1: rounding shift right; to the left where `s` is negative, clamped.
    function rsr(int256 x, int256 s) internal pure returns (int256) {
        if (s >= 63) return 0;
        // forge-lint: disable-next-item(unsafe-typecast)
        if (s > 0) return (x >> uint256(s)) + ((x >> uint256(s - 1)) & 1);
        if (s <= -64) return x == 0 ? x : x > 0 ? I64_MAX : I64_MIN;
        // forge-lint: disable-next-item(unsafe-typecast)
        return clamp64(x << uint256(-s));
    }

    /// `size` little-endian bytes at `at` as a signed number.
    function signed(bytes memory data, uint256 spot, uint256 size) internal pure returns (int256 x) {
        for (uint256 i = size; i != 0; --i) {
            x = (x << 8) | int256(uint256(uint8(data[spot + i - 1])));
        }
        assembly ("memory-safe") {
            x := signextend(sub(size, 1), x)
        }
    }

    /// `size` little-endian bytes at `at`.
    function unsigned(bytes memory data, uint256 spot, uint256 size) internal pure returns (uint256 x) {
        for (uint256 i = size; i != 0; --i) {
            x = (x << 8) | uint8(data[spot + i - 1]);
        }
    }

    /// L1: products of integers (`planes` bytes each), weights and the multiplier of every 32, from a group's start.
    function dot(bytes memory xs, uint256 planes, bytes memory ws, bytes memory mults)
        internal
        pure
        returns (int256 sum)
    {
        uint256 n = ws.length;
        bool grouped = mults.length != 0;
        assembly ("memory-safe") {
            let px := add(xs, 32)
            let pw := add(ws, 32)
            let group := 0
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let x
                switch planes
                case 1 { x := signextend(0, byte(0, mload(add(px, i)))) }
                default {
                    let two := mload(add(px, mul(i, 2)))
                    x := signextend(1, or(byte(0, two), shl(8, byte(1, two))))
                }
                let p := mul(x, signextend(0, byte(0, mload(add(pw, i)))))
                if grouped { p := mul(p, byte(0, mload(add(add(mults, 32), shr(5, i))))) }
                sum := add(sum, p)
            }
        }
    }

    /// A scale's mantissa and exponent: u16, i16.
    function scale(bytes memory data, uint256 spot) internal pure returns (int256 m, int256 e) {
        m = int256(unsigned(data, spot, 2));
        e = signed(data, spot + 2, 2);
    }

    /// L2, L3: one segment's sum in the output's format; `shift` is minus both exponents and the format's bits.
    function requant(int256 acc, uint256 planes, int256 mx, int256 mw, int256 shift)
        internal
        pure
        returns (int256)
    {
        if (planes == 1) return sat32(rsr(clamp64(acc * mx * mw), shift));
        return sat32(rsr(clamp64(rsr(clamp64(acc * mx), 16) * mw), shift - 16));
    }

    /// L4: a segment's share, clamped so that no order of adding overflows; `segments` is 1, 2, 4 or 8.
    function segmentShare(int256 sum, uint256 segments) internal pure returns (int256) {
        // At most 8.
        // forge-lint: disable-next-line(unsafe-typecast)
        int256 limit = SAT32 / int256(segments);
        return sum > limit ? limit : sum < -limit ? -limit : sum;
    }

    /// E1: one element of an embedding.
    function embedded(int256 w, uint256 mult, bytes memory factor, int256 fOut)
        internal
        pure
        returns (int256)
    {
        (int256 m, int256 e) = scale(factor, 0);
        // A byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        return sat32(rsr(w * int256(mult) * m, -(e + fOut)));
    }
}
