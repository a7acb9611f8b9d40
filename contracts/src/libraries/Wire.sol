// Reads the canonical bytes of moves in calldata: little-endian integers, exact lengths, each refusal its own.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./Blake3Node.sol";

/// A place in calldata and where the move ends.
struct Reader {
    /// Next byte.
    uint256 spot;
    /// Behind the last byte.
    uint256 end;
}

/// The reader.
library Wire {
    /// Thrown when a move ends inside a field of `need` bytes.
    error MoveTooShort(uint256 left, uint256 need);
    /// Thrown when bytes follow the end of a move.
    error MoveTooLong(uint256 extra);
    /// Thrown when a flag is neither 0 nor 1.
    error BadFlag(uint256 got);
    /// Thrown when a list that takes the rest of a move is no whole number of items.
    error RaggedList(uint256 left, uint256 item);

    /// A reader over a move.
    function open(bytes calldata move) internal pure returns (Reader memory r) {
        uint256 spot;
        assembly ("memory-safe") {
            spot := move.offset
        }
        r = Reader(spot, spot + move.length);
    }

    /// Steps over `need` bytes and tells where they start.
    function skip(Reader memory r, uint256 need) internal pure returns (uint256 spot) {
        spot = r.spot;
        require(need <= r.end - spot, MoveTooShort(r.end - spot, need));
        r.spot = spot + need;
    }

    /// Bytes that are left.
    function left(Reader memory r) internal pure returns (uint256) {
        return r.end - r.spot;
    }

    /// Refuses what follows the end.
    function done(Reader memory r) internal pure {
        require(r.spot == r.end, MoveTooLong(r.end - r.spot));
    }

    /// Items of `item` bytes up to the end: how many.
    function rest(Reader memory r, uint256 item) internal pure returns (uint256) {
        uint256 n = r.end - r.spot;
        require(n % item == 0, RaggedList(n, item));
        return n / item;
    }

    /// 32 bytes of calldata.
    function wordAt(uint256 spot) internal pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := calldataload(spot)
        }
    }

    /// A hash.
    function hash(Reader memory r) internal pure returns (bytes32) {
        return wordAt(skip(r, 32));
    }

    /// A byte.
    function u8(Reader memory r) internal pure returns (uint256) {
        return uint256(wordAt(skip(r, 1))) >> 248;
    }

    /// Two bytes.
    function u16(Reader memory r) internal pure returns (uint256) {
        uint256 x = uint256(wordAt(skip(r, 2))) >> 240;
        return (x >> 8) | ((x & 0xff) << 8);
    }

    /// Four bytes.
    function u32(Reader memory r) internal pure returns (uint32) {
        // Four bytes stay four bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(Blake3Node.swap(uint256(wordAt(skip(r, 4))) >> 224));
    }

    /// Eight bytes.
    function u64(Reader memory r) internal pure returns (uint64) {
        return u64At(skip(r, 8));
    }

    /// Eight bytes at a place.
    function u64At(uint256 spot) internal pure returns (uint64) {
        uint256 x = uint256(wordAt(spot)) >> 192;
        // Eight bytes stay eight bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint64(Blake3Node.swap(x >> 32) | (Blake3Node.swap(x & 0xffffffff) << 32));
    }

    /// A flag.
    function flag(Reader memory r) internal pure returns (bool) {
        uint256 x = u8(r);
        require(x < 2, BadFlag(x));
        return x == 1;
    }
}
