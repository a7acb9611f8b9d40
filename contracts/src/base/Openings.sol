// Openings in accusations: inputs under published units, tensors under the model root.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Answers} from "./Answers.sol";
import {Commitment, Dispute} from "./Published.sol";
import {Blake3Node} from "../libraries/Blake3Node.sol";
import {Merkle} from "../libraries/Merkle.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Slices} from "../libraries/Slices.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Type and shape of a tensor, and the elements that are opened.
struct Want {
    uint32 id;
    uint256 dtype;
    uint256 rows;
    uint256 cols;
    uint256 start;
    uint256 end;
}

/// Elements of one side of a row.
struct Part {
    uint32 site;
    uint32 side;
    uint256 start;
    uint256 end;
}

/// Elements of a row of a site's weight.
struct WeightPart {
    uint256 n;
    uint256 k;
    uint256 row;
    uint256 start;
    uint256 end;
}

/// Readers of openings.
abstract contract Openings is Answers {
    using Sites for Site;
    using Wire for Reader;

    bytes16 private constant TENSOR_TAG = "bitai/tens/v0";

    uint256 internal constant I8 = 0;
    uint256 internal constant U8 = 1;
    uint256 internal constant I16 = 2;
    uint256 internal constant I32 = 3;
    uint256 internal constant SCALE = 4;

    /// Branches of a model root, and the tensors' place among them.
    uint256 private constant BRANCHES = 4;
    uint256 private constant TENSORS = 2;

    /// Refuses an accusation that rests on another answer than the published one.
    function _restsOn(Dispute memory d, bytes32 to, bytes20 words) internal view {
        bytes32 published = _nodes[d.id][words].id;
        require(published != 0, NotPublished(words));
        require(published == to, OtherAnswer(to, published));
    }

    /// A site's commitment: as it is published, else as it is opened under its unit's published root.
    function _opened(Dispute memory d, uint256 pos, uint32 site, Site memory s, Reader memory r)
        internal
        view
        returns (Commitment memory c)
    {
        c.kind = r.u8();
        uint256 len = _commitLength(c.kind) - 1;
        uint256 spot = r.skip(len);
        bool path = r.flag();
        if (_isPublished(d.id, _words(UNIT, pos, s.unit, 0, 0))) {
            if (path) r.skip(r.u8() * 32);
            return _commit(d, pos, site, s);
        }
        bytes32 root = _unitRoot(d, pos, s.unit);
        require(path, PathMissing(site));
        bytes32 leaf = _siteLeaf(site, c.kind, spot, len);
        require(Merkle.climb(r, s.unitSites, site - s.unitFirst, leaf) == root, WrongInput(site));
        require(c.kind == s.kind, InputKind(site, c.kind));
        c.data = Wire.wordAt(spot);
        if (c.kind == Sites.KIND_QUANT) c.scales = Wire.wordAt(spot + 32);
    }

    /// Elements of a row with this commitment.
    function _row(Dispute memory d, Site memory s, Commitment memory c, Part memory p, Reader memory r)
        internal
        view
        returns (bytes memory)
    {
        (uint256 total, uint256 size) = _rowLength(d, p.site, s, p.side);
        return Slices.range(r, _sideHash(c, p.site, p.side), total, p.start * size, p.end * size);
    }

    /// Elements of an input, with its commitment before them.
    function _input(Dispute memory d, uint256 pos, Part memory p, Reader memory r)
        internal
        view
        returns (bytes memory)
    {
        Site memory s = _site(d, p.site);
        Commitment memory c = _opened(d, pos, p.site, s, r);
        return _row(d, s, c, p, r);
    }

    /// Elements of a tensor, all the way from the model root.
    function _tensor(Dispute memory d, Want memory want, Reader memory r)
        internal
        view
        returns (bytes memory)
    {
        uint256 size = want.dtype <= U8 ? 1 : want.dtype == I16 ? 2 : 4;
        bytes32 hash = _line(d, want, r);
        return Slices.range(r, hash, want.rows * want.cols * size, want.start * size, want.end * size);
    }

    /// A tensor's line, which must be of the wanted type and shape; gives its hash.
    function _line(Dispute memory d, Want memory want, Reader memory r) private view returns (bytes32 hash) {
        uint256 spot;
        (hash, spot) = _lineOf(d, want.id, r);
        require(_fits(want, spot), TensorShape(want.id));
    }

    /// A tensor's line, whatever it says: its hash, and where in calldata type and shape are.
    function _lineOf(Dispute memory d, uint32 id, Reader memory r)
        internal
        view
        returns (bytes32 hash, uint256 spot)
    {
        hash = r.hash();
        spot = r.skip(17);
        uint256 nameLength = r.u16();
        uint256 name = r.skip(nameLength);
        bytes32 leaf = _tensorLeaf(id, hash, spot, name, nameLength);
        bytes32 tensors = Merkle.climb(r, d.model.tensorCount, id, leaf);
        require(Merkle.climb(r, BRANCHES, TENSORS, tensors) == d.claim.modelRoot, WrongTensor(id));
    }

    /// Whether the type and shape at a place in calldata are the wanted ones.
    function _fits(Want memory want, uint256 spot) internal pure returns (bool) {
        return uint256(Wire.wordAt(spot)) >> 248 == want.dtype && Wire.u64At(spot + 1) == want.rows
            && Wire.u64At(spot + 9) == want.cols;
    }

    /// H(tag, index, dtype, rows, cols, hash, name); type and shape are the 17 bytes of calldata at `at`.
    function _tensorLeaf(uint32 id, bytes32 hash, uint256 spot, uint256 name, uint256 nameLength)
        private
        view
        returns (bytes32)
    {
        uint256 head = uint256(bytes32(TENSOR_TAG)) | Blake3Node.swap(id) << 96;
        uint256 p;
        assembly ("memory-safe") {
            p := mload(0x40)
            mstore(p, head)
            calldatacopy(add(p, 20), spot, 17)
            mstore(add(p, 37), hash)
            calldatacopy(add(p, 69), name, nameLength)
        }
        return Blake3Node.hashAt(p, 69 + nameLength);
    }

    /// Weights of a site, and the multipliers of their groups.
    function _weights(Dispute memory d, uint32 site, Site memory s, WeightPart memory p, Reader memory r)
        internal
        view
        returns (bytes memory q, bytes memory mults)
    {
        uint256 first = p.row * p.k;
        q = _tensor(d, Want(s.tensor(0), I8, p.n, p.k, first + p.start, first + p.end), r);
        uint32 mult = s.tensor(2);
        require(r.flag() == (mult != Sites.NONE), OpeningPresence(site));
        if (mult == Sites.NONE) return (q, mults);
        first = p.row * (p.k / 32);
        mults = _tensor(d, Want(mult, U8, p.n, p.k / 32, first + p.start / 32, first + (p.end + 31) / 32), r);
    }
}
