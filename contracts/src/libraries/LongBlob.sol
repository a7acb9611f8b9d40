// Bytes longer than one account's code: parts of it, found through an index. What fits one account takes one.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blob} from "./Blob.sol";

/// Written once, read item by item. Readers know the total: it decides whether there is an index.
library LongBlob {
    /// Bytes of a part: what one account's code holds (131,072 with STOP), cut down to whole items of 120 and of 4 bytes.
    uint256 internal constant PART = 131_040;
    /// Bytes of an address in the index.
    uint256 private constant PLACE = 20;

    /// Keeps `data` of any length.
    function put(bytes memory data) internal returns (address where) {
        uint256 total = data.length;
        if (total <= PART) return Blob.put(data);
        bytes memory index;
        for (uint256 start = 0; start < total; start += PART) {
            uint256 len = total - start < PART ? total - start : PART;
            bytes memory part = new bytes(len);
            assembly ("memory-safe") {
                mcopy(add(part, 32), add(add(data, 32), start), len)
            }
            index = abi.encodePacked(index, Blob.put(part));
        }
        return Blob.put(index);
    }

    /// `len` bytes from `spot` of `total`; the caller knows that they lie in one part, as every item of 120 or 4 bytes does.
    function read(address where, uint256 total, uint256 spot, uint256 len)
        internal
        view
        returns (bytes memory)
    {
        if (total <= PART) return Blob.read(where, spot, len);
        address part = address(bytes20(Blob.word(where, spot / PART * PLACE)));
        return Blob.read(part, spot % PART, len);
    }
}
