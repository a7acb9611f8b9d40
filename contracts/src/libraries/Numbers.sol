// The tensor spec's integer primitives (docs/spec/tensor.md, rules N1 to N7 and X1).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
/// Rules N and X. Where Rust has int64 and saturates, an int256 here holds the exact number and is clamped.
library Numbers {
    int256 internal constant I64_MAX = int256(type(int64).max);
    int256 internal constant I64_MIN = int256(type(int64).min);
    uint256 internal constant U64_MAX = type(uint64).max;

    /// N1, `x` an int64.
    function rsr(int256 x, int256 s) internal pure returns (int256) {
        if (s >= 63) return 0;
        unchecked {
            if (s > 0) return (x >> uint256(s)) + ((x >> uint256(s - 1)) & 1);
            if (x == 0) return 0;
            return s <= -64 ? (x > 0 ? I64_MAX : I64_MIN) : clamp64(x << uint256(-s));
        }
    }

    /// N2.
    function sat32(int256 x) internal pure returns (int256) {
        return clamp(x, -2147483647, 2147483647);
    }

    /// N3, below 2^256.
    function bitlen(uint256 x) internal pure returns (int256 n) {
        unchecked {
            for (uint256 step = 128; step > 0; step >>= 1) {
                if (x >> step > 0) {
                    x >>= step;
                    n += int256(step);
                }
            }
            return n + int256(x);
        }
    }

    /// N4.
    function isqrt(uint256 x) internal pure returns (uint256 root) {
        if (x == 0) return 0;
        unchecked {
            // From above, Newton's steps fall until they reach the floor.
            root = 1 << uint256((bitlen(x) + 1) / 2);
            while (true) {
                uint256 next = (root + x / root) >> 1;
                if (next >= root) return root;
                root = next;
            }
        }
    }

    /// N7.
    function smul(int256 a, int256 b) internal pure returns (int256) {
        unchecked {
            return clamp64(a * b);
        }
    }

    /// Into [low, high].
    function clamp(int256 x, int256 low, int256 high) internal pure returns (int256) {
        return x < low ? low : x > high ? high : x;
    }

    /// Into an int64.
    function clamp64(int256 x) internal pure returns (int256) {
        return clamp(x, I64_MIN, I64_MAX);
    }

    /// Into a uint64.
    function clampU64(uint256 x) internal pure returns (uint256) {
        return x > U64_MAX ? U64_MAX : x;
    }

    /// |x|.
    function magnitude(int256 x) internal pure returns (uint256) {
        return uint256(x < 0 ? -x : x);
    }

    /// X1: 2^-z in Q31 for z with f fraction bits, f at most 31.
    function exp2(uint256 z, uint256 f) internal pure returns (uint256) {
        unchecked {
            uint256 whole = (z + (1 << f) - 1) >> f;
            if (whole > 31) return 0;
            uint256 g = ((whole << f) - z) << (32 - f);
            uint256 p = 29109857;
            p = 111735252 + (p * g >> 32);
            p = 518343275 + (p * g >> 32);
            p = 1488229728 + (p * g >> 32);
            p = 2147418112 + (p * g >> 32);
            return p >> whole;
        }
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
