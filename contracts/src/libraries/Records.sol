// A site's record against what its op has: inputs, tensors, parameters. docs/spec/tensor.md, rules C1 to C4, V2, V5.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IProgramBook} from "../interfaces/IProgramBook.sol";
import {Sites} from "./Sites.sol";

/// Every site has one record; what an op does not have is NONE, or 0 where it is a parameter.
library Records {
    /// Most fraction bits (rule V5).
    uint256 private constant FRACTION_MAX = 30;
    /// Parameters of a record.
    uint256 private constant PARAMS = 16;

    /// Refuses a record that no site of its op has. Inputs that are there, and shapes, are the caller's.
    function check(bytes memory r, uint256 i) internal pure {
        uint32 op = Sites.word(r, 0);
        (uint256 inputs, uint256 needs, uint256 may, uint256 params, uint256 fractions) = _has(op);
        for (uint256 k = inputs; k < 4; ++k) {
            require(Sites.word(r, 2 + k) == Sites.NONE, IProgramBook.BadRecord(i));
        }
        for (uint256 t = 0; t < 4; ++t) {
            bool there = Sites.word(r, 6 + t) != Sites.NONE;
            require(there || (needs >> t) & 1 == 0, IProgramBook.NoSuchTensor(i, Sites.NONE));
            require(!there || ((needs | may) >> t) & 1 == 1, IProgramBook.BadRecord(i));
        }
        for (uint256 p = 0; p < PARAMS; ++p) {
            uint256 x = Sites.word(r, 10 + p);
            require(p < params || x == 0, IProgramBook.BadRecord(i));
            require((fractions >> p) & 1 == 0 || x <= FRACTION_MAX, IProgramBook.BadRecord(i));
        }
        if (op == Sites.RMS_NORM || op == Sites.LAYER_NORM) {
            require(_signed(Sites.word(r, 10), 8), IProgramBook.BadRecord(i));
        }
        if (op == Sites.ATTENTION) {
            bool fits = Sites.word(r, 13) <= type(uint16).max && _signed(Sites.word(r, 14), 16);
            require(fits, IProgramBook.BadRecord(i));
        }
    }

    /// Whether a word is a sign-extended number of `bits` bits.
    function _signed(uint256 x, uint256 bits) private pure returns (bool) {
        unchecked {
            // Up by half of the range, the numbers are those from 0 to its end.
            return (x + (uint256(1) << (bits - 1))) & 0xffffffff < uint256(1) << bits;
        }
    }

    /// What an op has: inputs, tensors that it needs and may have (a bit each), parameters, which of them are fraction
    /// bits (a bit each). The caller refuses ops that are not here.
    function _has(uint32 op)
        private
        pure
        returns (uint256 inputs, uint256 needs, uint256 may, uint256 params, uint256 fractions)
    {
        if (op == Sites.EMBED || op == Sites.POS_EMBED) return (0, 3, 4, 1, 1);
        if (op == Sites.RMS_NORM) return (1, 1, 0, 6, 48);
        if (op == Sites.LAYER_NORM) return (1, 9, 0, 6, 48);
        if (op == Sites.QUANT) return (1, 0, 0, 4, 8);
        if (op == Sites.LINEAR) return (1, 3, 12, 4, 8);
        if (op == Sites.ROPE) return (1, 1, 0, 2, 0);
        if (op == Sites.KV_APPEND) return (2, 0, 0, 2, 0);
        if (op == Sites.ATTENTION) return (2, 0, 0, 9, 256);
        if (op == Sites.GLU) return (2, 0, 0, 2, 2);
        if (op == Sites.ACT) return (1, 0, 0, 2, 2);
        if (op == Sites.ADD) return (2, 0, 0, 0, 0);
        if (op == Sites.OUT) return (1, 0, 0, 0, 0);
        if (op == Sites.SAMPLE) return (1, 0, 0, 1, 1);
        return (4, 0, 15, PARAMS, 0);
    }
}
