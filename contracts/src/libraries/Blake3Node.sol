// BLAKE3 by the chain's precompiles: whole inputs, chunks and nodes above them, from memory and calldata.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Hashes; `Blake3` is the same without precompiles.
library Blake3Node {
    /// Thrown when a BLAKE3 precompile does not answer with a hash.
    error NoBlake3(address precompile);

    /// Precompile: BLAKE3 of the input.
    address internal constant HASH = 0x00000000000000000000000000000000B17A0101;
    /// Precompile: BLAKE3 keyed with the first 32 bytes of what follows them.
    address internal constant KEYED = 0x00000000000000000000000000000000b17a0102;
    /// Precompile: chaining value of a subtree; its first chunk's number (8 bytes, little-endian), then its bytes.
    address internal constant CV = 0x00000000000000000000000000000000B17a0103;

    /// Precompile: the node above two chaining values; a flag in front tells whether it is the root.
    address internal constant PARENT = 0x00000000000000000000000000000000b17a0106;

    /// BLAKE3 of `len` bytes of memory at `at`.
    function hashAt(uint256 spot, uint256 len) internal view returns (bytes32 out) {
        bool ok;
        assembly ("memory-safe") {
            ok := staticcall(gas(), HASH, spot, len, 0, 32)
            ok := and(ok, eq(returndatasize(), 32))
            out := mload(0)
        }
        require(ok, NoBlake3(HASH));
    }

    /// BLAKE3 of bytes.
    function hash(bytes memory data) internal view returns (bytes32) {
        uint256 spot;
        assembly ("memory-safe") {
            spot := add(data, 32)
        }
        return hashAt(spot, data.length);
    }

    /// BLAKE3 of a 16-byte tag and a part of the calldata.
    function hashTagged(bytes16 tag, uint256 spot, uint256 len) internal view returns (bytes32) {
        uint256 p;
        assembly ("memory-safe") {
            p := mload(0x40)
            mstore(p, tag)
            calldatacopy(add(p, 16), spot, len)
        }
        return hashAt(p, 16 + len);
    }

    /// BLAKE3 of a part of the calldata.
    function hashCalldata(uint256 spot, uint256 len) internal view returns (bytes32) {
        uint256 p;
        assembly ("memory-safe") {
            p := mload(0x40)
            calldatacopy(p, spot, len)
        }
        return hashAt(p, len);
    }

    /// BLAKE3 of a part of the calldata, keyed.
    function keyed(bytes32 key, uint256 spot, uint256 len) internal view returns (bytes32 out) {
        bool ok;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, key)
            calldatacopy(add(p, 32), spot, len)
            ok := staticcall(gas(), KEYED, p, add(len, 32), 0, 32)
            ok := and(ok, eq(returndatasize(), 32))
            out := mload(0)
        }
        require(ok, NoBlake3(KEYED));
    }

    /// Chaining value of a part of the calldata that starts with chunk `chunk` of a longer input.
    function chainingValue(uint256 chunk, uint256 spot, uint256 len) internal view returns (bytes32 out) {
        bool ok;
        // Little-endian, in the highest 8 bytes.
        uint256 first = swap(chunk & 0xffffffff) << 224 | swap(chunk >> 32 & 0xffffffff) << 192;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, first)
            calldatacopy(add(p, 8), spot, len)
            ok := staticcall(gas(), CV, p, add(len, 8), 0, 32)
            ok := and(ok, eq(returndatasize(), 32))
            out := mload(0)
        }
        require(ok, NoBlake3(CV));
    }

    /// The node above two subtrees: their input's hash where it is the `root`, else a chaining value.
    function parent(bytes32 left, bytes32 right, bool root) internal view returns (bytes32 out) {
        bool ok;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore8(p, root)
            mstore(add(p, 1), left)
            mstore(add(p, 33), right)
            ok := staticcall(gas(), PARENT, p, 65, 0, 32)
            ok := and(ok, eq(returndatasize(), 32))
            out := mload(0)
        }
        require(ok, NoBlake3(PARENT));
    }

    /// The four bytes of each 32-bit lane, the other way round.
    function lanes(uint256 x) internal pure returns (uint256) {
        uint256 odd = 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
        uint256 high = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
        x = ((x >> 8) & odd) | ((x & odd) << 8);
        return ((x >> 16) & high) | ((x & high) << 16);
    }

    /// Four bytes, the other way round.
    function swap(uint256 x) internal pure returns (uint256) {
        return (x >> 24) | ((x >> 8) & 0xff00) | ((x << 8) & 0xff0000) | ((x << 24) & 0xff000000);
    }
}
