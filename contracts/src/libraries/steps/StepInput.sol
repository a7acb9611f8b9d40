// Reads the fields of a step's input and writes its output: little-endian, nothing left over.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// The input's first byte names no step (or there is none).
error NoStep(uint256 kind);
/// The input is shorter or longer than its layout.
error StepLength(uint256 kind);
/// A field is outside of what its layout admits (docs/spec/poc.md, section 9).
error StepField(uint256 kind, string field);

/// What is still to be read: places in memory, and the step for errors.
struct Input {
    uint256 next;
    uint256 end;
    uint256 kind;
}

/// M * 2^E (rule N6).
struct Scale {
    uint256 m;
    int256 e;
}

/// A unit of keys or values (rule A3).
struct Unit {
    bool there;
    int256 e;
}

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
library StepInput {
    /// Behind the first byte.
    function open(bytes memory data) internal pure returns (Input memory r) {
        require(data.length > 0, NoStep(256));
        assembly ("memory-safe") {
            mstore(r, add(data, 0x21))
            mstore(add(r, 0x20), add(add(data, 0x20), mload(data)))
        }
        r.kind = uint8(data[0]);
    }

    /// Everything must be read.
    function close(Input memory r) internal pure {
        require(r.next == r.end, StepLength(r.kind));
    }

    /// Where the next `n` bytes are.
    function take(Input memory r, uint256 n) internal pure returns (uint256 place) {
        place = r.next;
        require(n <= r.end - place, StepLength(r.kind));
        unchecked {
            r.next = place + n;
        }
    }

    /// Up to 8 bytes of memory as a little-endian number.
    function le(uint256 place, uint256 n) internal pure returns (uint256 x) {
        unchecked {
            assembly ("memory-safe") {
                x := shr(192, mload(place))
            }
            x = ((x >> 8) & 0x00ff00ff00ff00ff) | ((x & 0x00ff00ff00ff00ff) << 8);
            x = ((x >> 16) & 0x0000ffff0000ffff) | ((x & 0x0000ffff0000ffff) << 16);
            x = (x >> 32) | ((x & 0xffffffff) << 32);
            return x & ((1 << (8 * n)) - 1);
        }
    }

    function i8At(uint256 place) internal pure returns (int256 x) {
        assembly ("memory-safe") {
            x := signextend(0, byte(0, mload(place)))
        }
    }

    function i16At(uint256 place) internal pure returns (int256) {
        return int16(uint16(le(place, 2)));
    }

    function i32At(uint256 place) internal pure returns (int256) {
        return int32(uint32(le(place, 4)));
    }

    function i64At(uint256 place) internal pure returns (int256) {
        return int64(uint64(le(place, 8)));
    }

    function u8(Input memory r) internal pure returns (uint256) {
        return le(take(r, 1), 1);
    }

    function u16(Input memory r) internal pure returns (uint256) {
        return le(take(r, 2), 2);
    }

    function u32(Input memory r) internal pure returns (uint256) {
        return le(take(r, 4), 4);
    }

    function u64(Input memory r) internal pure returns (uint256) {
        return le(take(r, 8), 8);
    }

    function i8(Input memory r) internal pure returns (int256) {
        return i8At(take(r, 1));
    }

    function i16(Input memory r) internal pure returns (int256) {
        return i16At(take(r, 2));
    }

    function i32(Input memory r) internal pure returns (int256) {
        return i32At(take(r, 4));
    }

    function i64(Input memory r) internal pure returns (int256) {
        return i64At(take(r, 8));
    }

    function scale(Input memory r) internal pure returns (Scale memory s) {
        s.m = u16(r);
        s.e = i16(r);
    }

    function unit(Input memory r) internal pure returns (Unit memory x) {
        x.there = flag(r, "unit");
        x.e = i16(r);
        require(x.there || x.e == 0, StepField(r.kind, "exponent of no unit"));
    }

    function flag(Input memory r, string memory name) internal pure returns (bool) {
        uint256 x = u8(r);
        require(x < 2, StepField(r.kind, name));
        return x == 1;
    }

    function planes(Input memory r) internal pure returns (uint256 x) {
        x = u8(r);
        require(x == 1 || x == 2, StepField(r.kind, "planes"));
    }

    function pBits(Input memory r) internal pure returns (uint256 x) {
        x = u8(r);
        require(x == 15 || x == 23, StepField(r.kind, "p_bits"));
    }

    /// A count in 1 ..= 256.
    function count(Input memory r) internal pure returns (uint256) {
        return _within(r, u16(r), 256, "count");
    }

    function headDim(Input memory r) internal pure returns (uint256) {
        return _within(r, u16(r), 1024, "head_dim");
    }

    /// Elements of a norm's group.
    function group(Input memory r) internal pure returns (uint256) {
        return _within(r, u32(r), 32768, "group");
    }

    function _within(Input memory r, uint256 x, uint256 most, string memory name)
        internal
        pure
        returns (uint256)
    {
        require(x > 0 && x <= most, StepField(r.kind, name));
        return x;
    }

    /// The lowest `n` bytes of a number, little-endian.
    function put(uint256 x, uint256 n) internal pure returns (bytes memory out) {
        out = new bytes(n);
        unchecked {
            for (uint256 i; i < n; ++i) {
                out[i] = bytes1(uint8(x >> (8 * i)));
            }
        }
    }

    /// The same of a signed number, two's complement.
    function put(int256 x, uint256 n) internal pure returns (bytes memory) {
        return put(uint256(x), n);
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
