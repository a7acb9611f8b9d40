// Little-endian numbers in memory: read from published bytes, written into the inputs of steps.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./Blake3Node.sol";

/// Reads and writes numbers as rows and moves hold them.
library Bytes {
    /// `size` bytes at `spot` as a signed number.
    function signed(bytes memory data, uint256 spot, uint256 size) internal pure returns (int256 x) {
        for (uint256 i = size; i != 0; --i) {
            x = (x << 8) | int256(uint256(uint8(data[spot + i - 1])));
        }
        assembly ("memory-safe") {
            x := signextend(sub(size, 1), x)
        }
    }

    /// `size` bytes at `spot`.
    function unsigned(bytes memory data, uint256 spot, uint256 size) internal pure returns (uint256 x) {
        for (uint256 i = size; i != 0; --i) {
            x = (x << 8) | uint8(data[spot + i - 1]);
        }
    }

    /// The four bytes at `spot` as they are; zeros or what follows in memory behind the end.
    function four(bytes memory data, uint256 spot) internal pure returns (bytes4 out) {
        assembly ("memory-safe") {
            out := mload(add(add(data, 32), spot))
        }
    }

    /// Two bytes.
    function le16(uint256 x) internal pure returns (bytes2) {
        // Numbers of 16 bits; what is above them is an exponent's sign.
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes2(uint16(Blake3Node.swap(x & 0xffff) >> 16));
    }

    /// Four bytes.
    function le32(uint256 x) internal pure returns (bytes4) {
        // Four bytes stay four bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes4(uint32(Blake3Node.swap(x & 0xffffffff)));
    }

    /// Eight bytes.
    function le64(uint256 x) internal pure returns (bytes8) {
        return bytes8(bytes.concat(le32(x), le32(x >> 32)));
    }

    /// A part of the calldata behind `head`.
    function append(bytes memory head, uint256 spot, uint256 len) internal pure returns (bytes memory) {
        bytes memory body = new bytes(len);
        assembly ("memory-safe") {
            calldatacopy(add(body, 32), spot, len)
        }
        return bytes.concat(head, body);
    }

    /// Whether two strings of bytes are one.
    function same(bytes memory a, bytes memory b) internal pure returns (bool) {
        return keccak256(a) == keccak256(b);
    }
}
