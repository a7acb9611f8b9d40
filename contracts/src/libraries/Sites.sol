// A kept program read site by site: the record that the model root binds, and what the book derived from it.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./Blake3Node.sol";
import {LongBlob} from "./LongBlob.sol";

/// One site.
struct Site {
    /// Its record, 104 bytes.
    bytes record;
    /// What it puts out: KIND_ACTS to KIND_TOKEN.
    uint256 kind;
    /// Bytes an element of a quantised row.
    uint256 planes;
    /// Elements a row.
    uint256 cols;
    /// Elements a scale.
    uint256 group;
    /// Unit that it lies in.
    uint256 unit;
    /// First site of that unit.
    uint256 unitFirst;
    /// Sites of that unit.
    uint256 unitSites;
}

/// Reads sites. A kept site is its record, then kind, planes (1 byte each), cols, group (4), unit, first, sites (2).
library Sites {
    /// Thrown when a site outside the program is named.
    error NoSuchSite(uint256 site, uint256 count);

    /// Bytes of a record.
    uint256 internal constant RECORD = 104;
    /// Bytes of a kept site.
    uint256 internal constant KEPT = RECORD + 16;
    /// No layer, input or tensor.
    uint32 internal constant NONE = type(uint32).max;

    uint256 internal constant KIND_ACTS = 0;
    uint256 internal constant KIND_QUANT = 1;
    uint256 internal constant KIND_KV = 2;
    uint256 internal constant KIND_TOKEN = 3;

    uint32 internal constant EMBED = 1;
    uint32 internal constant RMS_NORM = 2;
    uint32 internal constant LAYER_NORM = 3;
    uint32 internal constant QUANT = 4;
    uint32 internal constant LINEAR = 5;
    uint32 internal constant ROPE = 6;
    uint32 internal constant KV_APPEND = 7;
    uint32 internal constant ATTENTION = 8;
    uint32 internal constant GLU = 9;
    uint32 internal constant ADD = 10;
    uint32 internal constant OUT = 11;
    uint32 internal constant SAMPLE = 12;
    uint32 internal constant ACT = 13;
    uint32 internal constant POS_EMBED = 14;

    /// Site `i` of `count`.
    function load(address where, uint256 count, uint256 i) internal view returns (Site memory s) {
        require(i < count, NoSuchSite(i, count));
        bytes memory kept = LongBlob.read(where, count * KEPT, i * KEPT, KEPT);
        s.record = kept;
        uint256 x;
        assembly ("memory-safe") {
            x := mload(add(kept, 136))
        }
        s.kind = x >> 248;
        s.planes = (x >> 240) & 0xff;
        s.cols = (x >> 208) & 0xffffffff;
        s.group = (x >> 176) & 0xffffffff;
        s.unit = (x >> 160) & 0xffff;
        s.unitFirst = (x >> 144) & 0xffff;
        s.unitSites = (x >> 128) & 0xffff;
    }

    /// Word `i` of a record.
    function word(bytes memory record, uint256 i) internal pure returns (uint32) {
        uint256 x;
        assembly ("memory-safe") {
            x := mload(add(add(record, 32), mul(i, 4)))
        }
        // Four bytes stay four bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(Blake3Node.swap(x >> 224));
    }

    /// The op.
    function op(Site memory s) internal pure returns (uint32) {
        return word(s.record, 0);
    }

    /// The layer.
    function layer(Site memory s) internal pure returns (uint32) {
        return word(s.record, 1);
    }

    /// Input `i`.
    function input(Site memory s, uint256 i) internal pure returns (uint32) {
        return word(s.record, 2 + i);
    }

    /// Tensor `i`: weight, scale, multiplier, bias; or the one that the op names.
    function tensor(Site memory s, uint256 i) internal pure returns (uint32) {
        return word(s.record, 6 + i);
    }

    /// Parameter `i`.
    function param(Site memory s, uint256 i) internal pure returns (uint32) {
        return word(s.record, 10 + i);
    }
}
