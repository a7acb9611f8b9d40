// Token ids and words as the chain carries them: little-endian, four bytes each.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Checks of lists in calldata.
library Ids {
    /// Most ids or words of an answer: their four bytes each must fit the one transaction that reveals them. A node takes
    /// transactions of up to 394,000 bytes, of which a reveal needs about 400 beside the list.
    uint32 internal constant MAX_OUTPUTS = 98_304;

    /// Thrown when the bytes are no list of little-endian u32 ids (length not a multiple of 4).
    error BadIdBytes(uint256 length);
    /// Thrown when an id is not below the model's vocabulary.
    error IdOutOfRange(uint256 position, uint32 id, uint32 vocab);
    /// Thrown when an output goes on after a stop id.
    error IdAfterStop(uint256 position, uint32 stopId);
    /// Thrown when an output ends neither with a stop id nor at max_new, is empty or too long.
    error BadEnd(uint256 length, uint32 maxNew);
    /// Thrown when the output of an embedding job is not exactly the model's words, four bytes each.
    error BadWords(uint256 length, uint32 words);
    /// Thrown when a model puts out, or a job asks for, more words or tokens than one transaction can reveal.
    error TooManyOutputs(uint32 outputs, uint32 max);

    /// Number of ids in `data`.
    function count(bytes calldata data) internal pure returns (uint256) {
        require(data.length % 4 == 0, BadIdBytes(data.length));
        return data.length / 4;
    }

    /// Refuses ids that are not below `vocab`.
    function checkRange(bytes calldata data, uint32 vocab) internal pure {
        uint256 n = count(data);
        for (uint256 i = 0; i < n; ++i) {
            uint32 id = _at(data, i);
            require(id < vocab, IdOutOfRange(i, id, vocab));
        }
    }

    /// Refuses an output that may not answer the job: each id below `vocab`; the last one a stop id or the
    /// `maxNew`-th; no stop id earlier.
    function checkOutput(bytes calldata data, bytes memory stops, uint32 maxNew, uint32 vocab) internal pure {
        uint256 n = count(data);
        require(n != 0 && n <= maxNew, BadEnd(n, maxNew));
        uint256 mask = _mask(stops);
        for (uint256 i = 0; i < n; ++i) {
            uint32 id = _at(data, i);
            require(id < vocab, IdOutOfRange(i, id, vocab));
            // One bit test spares most ids the search.
            bool stop = (mask >> (id & 255)) & 1 == 1 && _contains(stops, id);
            if (i + 1 < n) require(!stop, IdAfterStop(i, id));
            else require(stop || n == maxNew, BadEnd(n, maxNew));
        }
    }

    /// Refuses an output that may not answer an embedding job: exactly `words` words, of any value.
    function checkWords(bytes calldata data, uint32 words) internal pure {
        require(data.length == uint256(words) * 4, BadWords(data.length, words));
    }

    /// Id number `i`; the caller knows that it exists.
    function _at(bytes calldata data, uint256 i) private pure returns (uint32) {
        uint256 word;
        // Reads past the end give other calldata or zeros; only the first four bytes count.
        assembly ("memory-safe") {
            word := calldataload(add(data.offset, mul(i, 4)))
        }
        return _swap(word >> 224);
    }

    /// Bit `id & 255` set for every stop id.
    function _mask(bytes memory stops) private pure returns (uint256 mask) {
        for (uint256 i = 0; i < stops.length; i += 4) {
            mask |= uint256(1) << uint8(stops[i]);
        }
    }

    /// Whether the list holds the id.
    function _contains(bytes memory stops, uint32 id) private pure returns (bool) {
        for (uint256 i = 0; i < stops.length; i += 4) {
            uint256 word;
            assembly ("memory-safe") {
                word := mload(add(add(stops, 32), i))
            }
            if (_swap(word >> 224) == id) return true;
        }
        return false;
    }

    /// Four bytes, the other way round.
    function _swap(uint256 x) private pure returns (uint32) {
        return uint32((x >> 24) | ((x >> 8) & 0xff00) | ((x << 8) & 0xff0000) | ((x << 24) & 0xff000000));
    }
}
