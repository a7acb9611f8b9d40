// Slices of bytes under a plain BLAKE3: pieces, the values of all pieces, ranges as the 1 KiB chunks that hold them.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./Blake3Node.sol";
import {Reader, Wire} from "./Wire.sol";

/// Lengths and totals are the caller's: they follow from public shapes.
library Slices {
    using Wire for Reader;

    /// Thrown when a range outside the hashed bytes is opened.
    error RangeOutside(uint256 end, uint256 total);
    /// Thrown when a range is opened with another number of chunks than hold it.
    error ChunkCount(uint256 got, uint256 expected);
    /// Thrown when a chunk has another length than its place asks for.
    error ChunkLength(uint256 got, uint256 expected);
    /// Thrown when a chunk comes with another number of chaining values than its place asks for.
    error ChunkPath(uint256 got, uint256 expected);
    /// Thrown when a chunk does not lead to the hash that it is opened under.
    error WrongChunk(uint256 chunk);
    /// Thrown when a row is published with another number of pieces than it has.
    error PieceCount(uint256 got, uint256 expected);

    /// Bytes of a BLAKE3 chunk.
    uint256 internal constant CHUNK = 1024;
    /// Most pieces of a row.
    uint256 internal constant PIECES_MAX = 256;

    /// Bytes a piece such that `total` bytes have at most 256.
    function pieceLength(uint256 total) internal pure returns (uint256 piece) {
        piece = CHUNK;
        while (piece * PIECES_MAX < total) piece *= 2;
    }

    /// Pieces in `total` bytes; at least one.
    function pieces(uint256 total, uint256 piece) internal pure returns (uint256 n) {
        n = (total + piece - 1) / piece;
        if (n == 0) n = 1;
    }

    /// Bytes of the left part of BLAKE3's tree over `len` > 1024 bytes.
    function leftLength(uint256 len) internal pure returns (uint256 l) {
        l = CHUNK;
        while (l * 2 < len) l *= 2;
    }

    /// The hash of `total` bytes from the chaining values of all their pieces.
    function join(bytes32[] memory values, uint256 total, uint256 piece) internal view returns (bytes32) {
        uint256 n = pieces(total, piece);
        require(values.length == n, PieceCount(values.length, n));
        return _join(values, 0, total, piece, true);
    }

    function _join(bytes32[] memory values, uint256 first, uint256 len, uint256 piece, bool top)
        private
        view
        returns (bytes32)
    {
        if (len <= piece) return values[first];
        uint256 l = leftLength(len);
        bytes32 left = _join(values, first, l, piece, false);
        bytes32 right = _join(values, first + l / piece, len - l, piece, false);
        return Blake3Node.parent(left, right, top);
    }

    /// Checks chunk `index` of `total` bytes with this hash (length, bytes, number of siblings, siblings from the lowest
    /// up); tells where its bytes lie in calldata, and how many there are.
    function chunk(Reader memory r, bytes32 hash, uint256 total, uint256 index)
        internal
        view
        returns (uint256 spot, uint256 len)
    {
        uint256 expected = total - index * CHUNK;
        if (expected > CHUNK) expected = CHUNK;
        len = r.u16();
        require(len == expected, ChunkLength(len, expected));
        spot = r.skip(len);
        // From the root down: bit d is set where the chunk lies in the right part.
        (uint256 turns, uint256 depth) = _turns(total, index * CHUNK);
        uint256 got = r.u8();
        require(got == depth, ChunkPath(got, depth));
        bytes32 value =
            depth == 0 ? Blake3Node.hashCalldata(spot, len) : Blake3Node.chainingValue(index, spot, len);
        for (uint256 d = depth; d != 0; --d) {
            bytes32 sibling = r.hash();
            value = (turns >> (d - 1)) & 1 == 0
                ? Blake3Node.parent(value, sibling, d == 1)
                : Blake3Node.parent(sibling, value, d == 1);
        }
        require(value == hash, WrongChunk(index));
    }

    /// The way from the root of `len` bytes down to the chunk at byte `at`.
    function _turns(uint256 len, uint256 spot) private pure returns (uint256 turns, uint256 depth) {
        uint256 start;
        while (len > CHUNK) {
            uint256 l = leftLength(len);
            if (spot < start + l) {
                len = l;
            } else {
                turns |= uint256(1) << depth;
                start += l;
                len -= l;
            }
            ++depth;
        }
    }

    /// Checks the chunks that hold bytes `start` to `end` of `total` with this hash; gives those bytes.
    function range(Reader memory r, bytes32 hash, uint256 total, uint256 start, uint256 end)
        internal
        view
        returns (bytes memory out)
    {
        require(start <= end && end <= total, RangeOutside(end, total));
        uint256 first = start / CHUNK;
        uint256 last = (end > start ? end - 1 : start) / CHUNK;
        uint256 got = r.u16();
        require(got == last - first + 1, ChunkCount(got, last - first + 1));
        out = new bytes(end - start);
        for (uint256 i = first; i <= last; ++i) {
            (uint256 spot, uint256 len) = chunk(r, hash, total, i);
            uint256 from = i == first ? start - first * CHUNK : 0;
            uint256 to = i == last ? end - last * CHUNK : len;
            uint256 behind = i * CHUNK + from - start;
            assembly ("memory-safe") {
                calldatacopy(add(add(out, 32), behind), add(spot, from), sub(to, from))
            }
        }
    }
}
