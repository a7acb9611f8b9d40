// Norms: where the numbers of a group are published, and the answer that publishes them. Rules R1 to R9.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Draws} from "./Draws.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Checks of the answer to `Norm`: number of plain sums, these, largest magnitude and its index, sums of squares.
abstract contract Norms is Draws {
    using Sites for Site;
    using Wire for Reader;

    /// Elements of a part of a group.
    uint256 internal constant NORM_PART = 256;

    /// Refuses numbers of another group.
    function _checkNorm(Site memory s, uint256 group, Reader memory r) internal pure {
        uint256 parts = _normParts(s);
        bool layer = s.op() == Sites.LAYER_NORM;
        uint256 sums = r.u16();
        require(sums == (layer ? parts : 0), ItemCount(sums, layer ? parts : 0));
        r.skip(8 * sums);
        uint64 most = r.u64();
        require(layer || most <= type(uint32).max, MagnitudeTooLarge(most));
        uint32 index = r.u32();
        require(index / s.param(3) == group, MaximumOutside(index));
        uint256 squares = r.rest(8);
        require(squares == parts, ItemCount(squares, parts));
        r.skip(8 * squares);
    }

    /// Parts of a norm's group.
    function _normParts(Site memory s) internal pure returns (uint256) {
        return (uint256(s.param(3)) + NORM_PART - 1) / NORM_PART;
    }

    /// Whether a site is a norm.
    function _isNorm(Site memory s) internal pure returns (bool) {
        return s.op() == Sites.RMS_NORM || s.op() == Sites.LAYER_NORM;
    }
}
