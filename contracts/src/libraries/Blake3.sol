// BLAKE3 without a precompile (hash, keyed hash, chaining value of a subtree): the reference for contracts, and
// what stands in for the precompiles on a chain that has none.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// A subtree that no input can have: no bytes, more than a subtree at this chunk holds, or beyond 2^64 bytes.
error NoSubtree(uint256 chunk, uint256 length);

/// BLAKE3 (the paper's sections 2.1 to 2.6), 32 bytes of output. The state is 4 rows of 4 words; a row is one
/// uint256, word i in the low half of its bits 64 i .. 64 i + 63, so one operation serves a whole row.
library Blake3 {
    uint256 private constant CHUNK = 1024;
    uint256 private constant BLOCK = 64;
    uint256 private constant CHUNK_START = 1;
    uint256 private constant CHUNK_END = 2;
    uint256 private constant PARENT = 4;
    uint256 private constant ROOT = 8;
    uint256 private constant KEYED_HASH = 16;

    uint256 private constant LANES = 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;
    /// Words 0 to 3 and 4 to 7 of the initial value, those of SHA-256.
    uint256 private constant IV0 = 0x00000000a54ff53a000000003c6ef37200000000bb67ae85000000006a09e667;
    uint256 private constant IV1 = 0x000000005be0cd19000000001f83d9ab000000009b05688c00000000510e527f;

    /// What a subtree is hashed under.
    struct Key {
        uint256 low;
        uint256 high;
        uint256 flags;
    }

    /// Hash of `data`.
    function hash(bytes memory data) internal pure returns (bytes32) {
        return _tree(data, Key(IV0, IV1, 0), 0, ROOT);
    }

    /// Keyed hash of `data`.
    function keyed(bytes32 key, bytes memory data) internal pure returns (bytes32) {
        (uint256 low, uint256 high) = _words(key);
        return _tree(data, Key(low, high, KEYED_HASH), 0, ROOT);
    }

    /// Chaining value (not the root) of the subtree `data` whose first chunk has number `chunk`. Reverts with
    /// NoSubtree for what no subtree can be.
    function chainingValue(uint256 chunk, bytes memory data) internal pure returns (bytes32) {
        uint256 length = data.length;
        unchecked {
            // The largest subtree at a chunk: as many chunks as the lowest set bit of its number says.
            bool fits = chunk == 0
                || (chunk < 1 << 54
                    && length <= (chunk & (~chunk + 1)) * CHUNK
                    && chunk * CHUNK + length < 1 << 64);
            require(length > 0 && fits, NoSubtree(chunk, length));
        }
        return _tree(data, Key(IV0, IV1, 0), chunk, 0);
    }

    /// Chaining value of the parent of two subtrees; with `root` the hash of the input that they make up.
    function parent(bytes32 left, bytes32 right, bool root) internal pure returns (bytes32) {
        return _parent(left, right, Key(IV0, IV1, 0), root ? ROOT : 0);
    }

    function _tree(bytes memory data, Key memory key, uint256 chunk, uint256 root)
        private
        pure
        returns (bytes32)
    {
        uint256 start;
        assembly ("memory-safe") {
            start := add(data, 0x20)
        }
        return _subtree(start, data.length, key, chunk, root);
    }

    /// `length` bytes of memory from `start`.
    function _subtree(uint256 start, uint256 length, Key memory key, uint256 chunk, uint256 root)
        private
        pure
        returns (bytes32)
    {
        if (length <= CHUNK) return _chunk(start, length, key, chunk, root);
        unchecked {
            // The left child is the largest power of two of chunks that leaves something to the right.
            uint256 left = CHUNK;
            while (left * 2 < length) left *= 2;
            bytes32 a = _subtree(start, left, key, chunk, 0);
            bytes32 b = _subtree(start + left, length - left, key, chunk + left / CHUNK, 0);
            return _parent(a, b, key, root);
        }
    }

    function _parent(bytes32 left, bytes32 right, Key memory key, uint256 root)
        private
        pure
        returns (bytes32)
    {
        uint256[16] memory message;
        _load(message, left, 0);
        _load(message, right, 256);
        uint256 row = (BLOCK << 128) | ((key.flags | PARENT | root) << 192);
        (uint256 low, uint256 high) = _compress(key.low, key.high, row, message);
        return _bytes(low, high);
    }

    function _chunk(uint256 start, uint256 length, Key memory key, uint256 chunk, uint256 root)
        private
        pure
        returns (bytes32)
    {
        uint256[16] memory message;
        (uint256 low, uint256 high) = (key.low, key.high);
        uint256 flags = key.flags | CHUNK_START;
        unchecked {
            while (true) {
                uint256 size = length < BLOCK ? length : BLOCK;
                length -= size;
                if (length == 0) flags |= CHUNK_END | root;
                _load(message, _bytesAt(start, size), 0);
                _load(message, _bytesAt(start + 32, size < 32 ? 0 : size - 32), 256);
                // The counter's two words, the block's length, the flags.
                uint256 row = (chunk & 0xffffffff) | (chunk >> 32 << 64) | (size << 128) | (flags << 192);
                (low, high) = _compress(low, high, row, message);
                if (length == 0) return _bytes(low, high);
                flags = key.flags;
                start += BLOCK;
            }
        }
        return 0;
    }

    /// Up to 32 bytes of memory, zeros behind them.
    function _bytesAt(uint256 from, uint256 size) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := mload(from)
            if lt(size, 32) { word := and(word, not(shr(shl(3, size), not(0)))) }
        }
    }

    /// 8 little-endian words into the message, at byte `offset` of it.
    function _load(uint256[16] memory message, bytes32 raw, uint256 offset) private pure {
        uint256 x = _swap(uint256(raw));
        assembly ("memory-safe") {
            let m := add(message, offset)
            mstore(m, shr(224, x))
            mstore(add(m, 0x20), and(shr(192, x), 0xffffffff))
            mstore(add(m, 0x40), and(shr(160, x), 0xffffffff))
            mstore(add(m, 0x60), and(shr(128, x), 0xffffffff))
            mstore(add(m, 0x80), and(shr(96, x), 0xffffffff))
            mstore(add(m, 0xa0), and(shr(64, x), 0xffffffff))
            mstore(add(m, 0xc0), and(shr(32, x), 0xffffffff))
            mstore(add(m, 0xe0), and(x, 0xffffffff))
        }
    }

    /// Reverses the bytes of every 32-bit word.
    function _swap(uint256 x) private pure returns (uint256) {
        uint256 odd = 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
        uint256 low = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
        x = ((x >> 8) & odd) | ((x & odd) << 8);
        return ((x >> 16) & low) | ((x & low) << 16);
    }

    /// 32 bytes as two rows.
    function _words(bytes32 raw) private pure returns (uint256 low, uint256 high) {
        uint256 x = _swap(uint256(raw));
        low = (x >> 224) | ((x >> 192 & 0xffffffff) << 64) | ((x >> 160 & 0xffffffff) << 128)
            | ((x >> 128 & 0xffffffff) << 192);
        high = (x >> 96 & 0xffffffff) | ((x >> 64 & 0xffffffff) << 64) | ((x >> 32 & 0xffffffff) << 128)
            | ((x & 0xffffffff) << 192);
    }

    /// Two rows as 32 bytes.
    function _bytes(uint256 low, uint256 high) private pure returns (bytes32) {
        uint256 x = ((low & 0xffffffff) << 224) | ((low >> 64 & 0xffffffff) << 192)
            | ((low >> 128 & 0xffffffff) << 160) | (low >> 192 << 128);
        x |= ((high & 0xffffffff) << 96) | ((high >> 64 & 0xffffffff) << 64)
            | ((high >> 128 & 0xffffffff) << 32) | (high >> 192);
        return bytes32(_swap(x));
    }

    /// The compression function: 7 rounds of 4 columns at once, then 4 diagonals, the message's words permuted from
    /// one round to the next. A round is 16 digits of `first`, and when its 4 are used up of `rest`: the words of the
    /// columns' first and second additions, then of the diagonals'. A digit times 32 is its word's place.
    function _compress(uint256 a, uint256 b, uint256 d, uint256[16] memory m)
        private
        pure
        returns (uint256, uint256)
    {
        uint256 c = IV0;
        uint256 first = 0xaced793f4b5102863ad74c2e69b850f123746a0d1c9fb5e8024613578ace9bdf;
        uint256 rest = 0xb518f096e237ac4d9b8fe5c1d0243a67c9fedba875062314;
        assembly ("memory-safe") {
            // The scratch space is cheaper to read than a 32-byte constant is to push or to compute.
            mstore(0, LANES)
            for { let round := 0 } lt(round, 7) { round := add(round, 1) } {
                let x := mload(add(m, and(shr(55, first), 0x1e0)))
                x := or(x, shl(64, mload(add(m, and(shr(51, first), 0x1e0)))))
                x := or(x, shl(128, mload(add(m, and(shr(47, first), 0x1e0)))))
                x := or(x, shl(192, mload(add(m, and(shr(43, first), 0x1e0)))))
                a := and(add(add(a, b), x), mload(0))
                d := xor(d, a)
                d := and(or(shr(16, d), shl(16, d)), mload(0))
                c := and(add(c, d), mload(0))
                b := xor(b, c)
                b := and(or(shr(12, b), shl(20, b)), mload(0))
                x := mload(add(m, and(shr(39, first), 0x1e0)))
                x := or(x, shl(64, mload(add(m, and(shr(35, first), 0x1e0)))))
                x := or(x, shl(128, mload(add(m, and(shr(31, first), 0x1e0)))))
                x := or(x, shl(192, mload(add(m, and(shr(27, first), 0x1e0)))))
                a := and(add(add(a, b), x), mload(0))
                d := xor(d, a)
                d := and(or(shr(8, d), shl(24, d)), mload(0))
                c := and(add(c, d), mload(0))
                b := xor(b, c)
                b := and(or(shr(7, b), shl(25, b)), mload(0))
                // Rows shifted against each other, so that a column is a diagonal.
                b := or(shr(64, b), shl(192, b))
                c := or(shr(128, c), shl(128, c))
                d := or(shr(192, d), shl(64, d))
                x := mload(add(m, and(shr(23, first), 0x1e0)))
                x := or(x, shl(64, mload(add(m, and(shr(19, first), 0x1e0)))))
                x := or(x, shl(128, mload(add(m, and(shr(15, first), 0x1e0)))))
                x := or(x, shl(192, mload(add(m, and(shr(11, first), 0x1e0)))))
                a := and(add(add(a, b), x), mload(0))
                d := xor(d, a)
                d := and(or(shr(16, d), shl(16, d)), mload(0))
                c := and(add(c, d), mload(0))
                b := xor(b, c)
                b := and(or(shr(12, b), shl(20, b)), mload(0))
                x := mload(add(m, and(shr(7, first), 0x1e0)))
                x := or(x, shl(64, mload(add(m, and(shr(3, first), 0x1e0)))))
                x := or(x, shl(128, mload(add(m, and(shl(1, first), 0x1e0)))))
                x := or(x, shl(192, mload(add(m, and(shl(5, first), 0x1e0)))))
                a := and(add(add(a, b), x), mload(0))
                d := xor(d, a)
                d := and(or(shr(8, d), shl(24, d)), mload(0))
                c := and(add(c, d), mload(0))
                b := xor(b, c)
                b := and(or(shr(7, b), shl(25, b)), mload(0))
                b := or(shr(192, b), shl(64, b))
                c := or(shr(128, c), shl(128, c))
                d := or(shr(64, d), shl(192, d))
                first := or(shr(64, first), shl(192, rest))
                rest := shr(64, rest)
            }
        }
        return (a ^ c, b ^ d);
    }
}
