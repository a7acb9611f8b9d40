// What of a claim is published, and how a move finds it: answers by the ask's five words, kept as code.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "../libraries/Blake3Node.sol";
import {Blob} from "../libraries/Blob.sol";
import {Bytes} from "../libraries/Bytes.sol";
import {Claim, IPocVerifier, Node, OpenAsk} from "../interfaces/IPocVerifier.sol";
import {IProgramBook, Model} from "../interfaces/IProgramBook.sol";
import {Levels} from "../libraries/Levels.sol";
import {Merkle} from "../libraries/Merkle.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Slices} from "../libraries/Slices.sol";
import {Trace} from "../libraries/Trace.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// A claim and its model, as a move sees them.
struct Dispute {
    bytes32 id;
    Claim claim;
    Model model;
}

/// A site's commitment.
struct Commitment {
    uint256 kind;
    bytes32 data;
    bytes32 scales;
    uint32 token;
}

/// Storage of claims and answers, and its readers.
abstract contract Published is IPocVerifier {
    using Sites for Site;
    using Wire for Reader;

    /// @inheritdoc IPocVerifier
    IProgramBook public immutable BOOK;

    bytes16 internal constant ASK_TAG = "bitai/ask/v0";
    bytes16 internal constant ANSWER_TAG = "bitai/answer/v0";
    bytes16 private constant SITE_TAG = "bitai/inner/v0";

    uint32 internal constant TOKENS = 0;
    uint32 internal constant TOKEN = 1;
    uint32 internal constant UNIT = 2;
    uint32 internal constant ROW = 3;
    uint32 internal constant PIECE = 4;
    uint32 internal constant SUM = 5;
    uint32 internal constant KEYS = 6;
    uint32 internal constant KEY_PART = 7;
    uint32 internal constant GROUP = 8;
    uint32 internal constant DRAW = 9;
    uint32 internal constant DRAW_PART = 10;
    uint32 internal constant NORM = 11;

    mapping(bytes32 claim => Claim) internal _claims;
    mapping(bytes32 claim => mapping(bytes20 words => Node)) internal _nodes;
    mapping(bytes32 ask => OpenAsk) internal _asks;

    /// The claim and its model.
    function _dispute(bytes32 id) internal view returns (Dispute memory d) {
        d.id = id;
        d.claim = _claims[id];
        d.model = BOOK.model(d.claim.modelRoot);
    }

    /// The words of an ask.
    function _words(uint256 kind, uint256 a, uint256 b, uint256 c, uint256 e)
        internal
        pure
        returns (bytes20)
    {
        uint256 x = Blake3Node.swap(kind) << 128 | Blake3Node.swap(a) << 96 | Blake3Node.swap(b) << 64
            | Blake3Node.swap(c) << 32 | Blake3Node.swap(e);
        // Five words of 32 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes20(uint160(x));
    }

    /// Word `i` of an ask.
    function _word(bytes20 words, uint256 i) internal pure returns (uint32) {
        // Four bytes stay four bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(Blake3Node.swap((uint160(words) >> (128 - 32 * i)) & 0xffffffff));
    }

    /// Where the content of a published answer is kept.
    function _content(bytes32 claim, bytes20 words) internal view returns (address where) {
        where = _nodes[claim][words].content;
        require(where != address(0), NotPublished(words));
    }

    /// Whether an answer is published.
    function _isPublished(bytes32 claim, bytes20 words) internal view returns (bool) {
        return _nodes[claim][words].content != address(0);
    }

    /// Whether position `pos` samples.
    function _samples(Claim memory c, uint256 pos) internal pure returns (bool) {
        return pos + 1 >= c.prompt;
    }

    /// The site, if the program has it.
    function _site(Dispute memory d, uint256 site) internal view returns (Site memory) {
        return Sites.load(d.model.sites, d.model.siteCount, site);
    }

    /// The ask that a node of the token tree comes from; zero for the root.
    function _tokensAsk(Dispute memory d, uint256 height, uint256 index) internal pure returns (bytes20) {
        uint256 top = Merkle.height(d.claim.positions);
        if (height == top) return 0;
        uint256 up = Levels.above(height, top);
        return _words(TOKENS, up, index >> (up - height), 0, 0);
    }

    /// Refuses a node of the token tree that is not the published one, or not the claimed root.
    function _checkTreeNode(Dispute memory d, uint256 height, uint256 index, bytes32 node) internal view {
        bytes20 from = _tokensAsk(d, height, index);
        if (from == 0) {
            bytes32 root = Trace.root(d.claim.header, d.claim.positions, node);
            require(root == d.claim.traceRoot, OtherTree(root));
            return;
        }
        uint256 up = _word(from, 1);
        uint256 place = index - ((index >> (up - height)) << (up - height));
        require(Blob.word(_content(d.id, from), place * 32) == node, OtherTree(node));
    }

    /// The keys that an attention's query at `pos` sees: from, and behind the last.
    function _visible(Site memory s, uint256 pos) internal pure returns (uint256 lo, uint256 n) {
        n = pos + 1;
        uint256 window = s.param(6);
        lo = window == 0 || window >= n ? 0 : n - window;
    }

    /// Length of equal parts of `count` things such that there are at most 256: a power of two.
    function _partLength(uint256 count) internal pure returns (uint256 len) {
        len = 1;
        while (len * 256 < count) len *= 2;
    }

    /// The parts of the ids that a draw's sums are cut into: how many, and ids in each.
    function _idParts(Dispute memory d) internal pure returns (uint256 parts, uint256 len) {
        len = _partLength(d.model.vocab);
        parts = (d.model.vocab + len - 1) / len;
    }

    /// The site that samples, which is the last one.
    function _sampleSite(Dispute memory d) internal view returns (Site memory s) {
        uint32 site = d.model.siteCount - 1;
        s = _site(d, site);
        require(s.op() == Sites.SAMPLE, WrongOp(site, s.op()));
    }

    /// Place of the unit roots in a token's answer, and of its layers.
    function _tokenLayout(Dispute memory d, uint256 pos)
        internal
        pure
        returns (uint256 layers, uint256 units)
    {
        layers = 32 + 1 + (_samples(d.claim, pos) ? 4 : 0) + 2;
        uint256 outs = d.model.layers / d.model.stride;
        units = layers + 33 * uint256(d.model.layers) + 32 * outs;
    }

    /// The id that a published token sampled.
    function _sampled(Dispute memory d, uint256 pos) internal view returns (uint32) {
        bytes memory four = Blob.read(_content(d.id, _words(TOKEN, pos, 0, 0, 0)), 33, 4);
        // Four bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(Bytes.unsigned(four, 0, 4));
    }

    /// The root of a unit of a published token.
    function _unitRoot(Dispute memory d, uint256 pos, uint256 unit) internal view returns (bytes32) {
        (, uint256 units) = _tokenLayout(d, pos);
        return Blob.word(_content(d.id, _words(TOKEN, pos, 0, 0, 0)), units + 32 * unit);
    }

    /// Bytes of a commitment of this kind, its kind included.
    function _commitLength(uint256 kind) internal pure returns (uint256) {
        if (kind == Sites.KIND_QUANT) return 65;
        if (kind == Sites.KIND_TOKEN) return 5;
        require(kind == Sites.KIND_ACTS || kind == Sites.KIND_KV, BadCommitment(kind));
        return 33;
    }

    /// A site's commitment in its published unit.
    function _commit(Dispute memory d, uint256 pos, uint256 site, Site memory s)
        internal
        view
        returns (Commitment memory c)
    {
        bytes20 words = _words(UNIT, pos, s.unit, 0, 0);
        address where = _content(d.id, words);
        bytes memory all = Blob.read(where, 0, Blob.size(where));
        uint256 spot;
        for (uint256 i = s.unitFirst; i < site; ++i) {
            spot += _commitLength(uint8(all[spot]));
        }
        c.kind = uint8(all[spot]);
        if (c.kind == Sites.KIND_TOKEN) {
            // Four bytes.
            // forge-lint: disable-next-line(unsafe-typecast)
            c.token = uint32(Bytes.unsigned(all, spot + 1, 4));
            return c;
        }
        bytes32 data;
        bytes32 scales;
        assembly ("memory-safe") {
            data := mload(add(add(all, 33), spot))
            scales := mload(add(add(all, 65), spot))
        }
        c.data = data;
        if (c.kind == Sites.KIND_QUANT) c.scales = scales;
    }

    /// The hash of one side of a row: its data (0) or its scales (1).
    function _sideHash(Commitment memory c, uint32 site, uint32 side) internal pure returns (bytes32) {
        if (side == 0 && c.kind != Sites.KIND_TOKEN) return c.data;
        require(side == 1 && c.kind == Sites.KIND_QUANT, NoSuchSide(site, side));
        return c.scales;
    }

    /// Bytes of one side of a site's row, and of one element of it.
    function _rowLength(Dispute memory d, uint32 site, Site memory s, uint32 side)
        internal
        pure
        returns (uint256 total, uint256 element)
    {
        if (s.kind == Sites.KIND_ACTS && side == 0) return (s.cols * 4, 4);
        if (s.kind == Sites.KIND_QUANT && side == 0) return (s.cols * s.planes, s.planes);
        if (s.kind == Sites.KIND_QUANT && side == 1) return (s.cols / s.group * 4, 4);
        require(s.kind == Sites.KIND_KV && side == 0, NoSuchSide(site, side));
        return (Trace.kvLength(d.model), 1);
    }

    /// The ask for the piece that holds an element, and where in it the element starts.
    function _pieceAsk(
        Dispute memory d,
        uint256 pos,
        uint32 site,
        Site memory s,
        uint32 side,
        uint256 element
    ) internal pure returns (bytes20 words, uint256 spot, uint256 size) {
        uint256 total;
        (total, size) = _rowLength(d, site, s, side);
        require(element * size < total, OutsideRange(element, total / size));
        uint256 piece = Slices.pieceLength(total);
        words = _words(PIECE, pos, site, side, element * size / piece);
        spot = element * size % piece;
    }

    /// A published element's bytes.
    function _element(Dispute memory d, uint256 pos, uint32 site, Site memory s, uint32 side, uint256 element)
        internal
        view
        returns (bytes memory)
    {
        (bytes20 words, uint256 spot, uint256 size) = _pieceAsk(d, pos, site, s, side, element);
        return Blob.read(_content(d.id, words), spot, size);
    }

    /// A leaf of a unit's tree: H(tag, site, kind, content).
    function _siteLeaf(uint256 site, uint256 kind, uint256 spot, uint256 len)
        internal
        view
        returns (bytes32)
    {
        uint256 head = uint256(bytes32(SITE_TAG)) | Blake3Node.swap(site) << 96 | Blake3Node.swap(kind) << 64;
        uint256 p;
        assembly ("memory-safe") {
            p := mload(0x40)
            mstore(p, head)
            calldatacopy(add(p, 24), spot, len)
        }
        return Blake3Node.hashAt(p, 24 + len);
    }
}
