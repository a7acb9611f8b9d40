// Programs that disputes are about: checked against the model root once a model, kept as code, read by every move.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./libraries/Blake3Node.sol";
import {Branches, Dims, IProgramBook, Model} from "./interfaces/IProgramBook.sol";
import {LongBlob} from "./libraries/LongBlob.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Records} from "./libraries/Records.sol";
import {Sites} from "./libraries/Sites.sol";

/// The book. Nothing in it can be changed or taken out.
contract ProgramBook is IProgramBook {
    /// Most layers: a token's answer holds all of them.
    uint256 public constant LAYERS_MAX = 256;
    /// Most sites of a unit.
    uint256 public constant UNIT_SITES_MAX = 256;
    /// Most sites of a program (rule V1); one transaction brings about 3,700.
    uint256 public constant SITES_MAX = 65_536;
    /// Most elements of a norm's group (rule V8).
    uint256 private constant WIDTH_MAX = 32_768;
    /// Most elements of a linear's row, of a quantisation's group and of all heads (rules V6, V7, V10).
    uint256 private constant K_MAX = 65_536;
    /// Elements that share a multiplier (rule V7).
    uint256 private constant GROUP = 32;
    /// Most elements of a head (rules V1, V9).
    uint256 private constant HEAD_DIM_MAX = 1_024;
    /// Activations that there are.
    uint256 private constant ACTIVATIONS = 3;

    bytes16 private constant SITE_TAG = "bitai/site/v0";
    bytes16 private constant PROGRAM_TAG = "bitai/prog/v0";

    mapping(bytes32 modelRoot => Model) private _models;

    /// What the walk over the sites knows so far.
    struct Walk {
        bytes kept;
        bytes32[] leaves;
        uint256 count;
        /// Layer of the site before; NONE before the layers.
        uint32 last;
        /// Whether the layers are over.
        bool over;
        /// Cached rows of the layer so far.
        uint256 caches;
        /// Out rows of the layer so far.
        uint256 outs;
        /// First site of the unit.
        uint256 unitFirst;
        /// The unit.
        uint256 unit;
        uint256 firstLayerSite;
        /// Bytes of the longest row of int32 so far.
        uint256 rowBytes;
        uint256 epilogue;
    }

    /// @inheritdoc IProgramBook
    function model(bytes32 modelRoot) external view returns (Model memory) {
        return _models[modelRoot];
    }

    /// @inheritdoc IProgramBook
    function keep(bytes32 modelRoot, Dims calldata dims, Branches calldata branches, bytes calldata records)
        external
    {
        require(_models[modelRoot].sites == address(0), ProgramKnown(modelRoot));
        uint256 count = records.length / Sites.RECORD;
        require(
            records.length % Sites.RECORD == 0 && count != 0 && count <= SITES_MAX, BadRecords(records.length)
        );
        require(dims.layers != 0 && dims.layers <= LAYERS_MAX, ProgramTooLarge(dims.layers, 0));
        _checkDims(dims);

        Walk memory w;
        w.kept = new bytes(count * Sites.KEPT);
        w.leaves = new bytes32[](count + 1);
        w.leaves[0] = _dimsLeaf(dims, count);
        w.count = count;
        w.last = Sites.NONE;
        for (uint256 i = 0; i < count; ++i) {
            _site(w, dims, branches.tensorCount, records, i);
        }
        _closeUnit(w, count);
        if (!w.over) w.epilogue = count;
        require(w.last == dims.layers - 1, BadLayer(count, w.last));
        // Without it nothing could be asked for, nor judged.
        uint32 end = Sites.word(records[(count - 1) * Sites.RECORD:], 0);
        require(end == Sites.SAMPLE, NoAnswer(end));
        bytes32 got = _root(w.leaves, branches);
        require(got == modelRoot, WrongModelRoot(got, modelRoot));

        // V1: 32,768 heads and 1,024 elements at most.
        // forge-lint: disable-next-item(unsafe-typecast)
        _models[modelRoot] = Model({
            sites: LongBlob.put(w.kept),
            layers: dims.layers,
            stride: dims.stride,
            vocab: dims.vocab,
            dModel: dims.dModel,
            context: dims.context,
            kvHeads: uint16(dims.kvHeads),
            headDim: uint16(dims.headDim),
            tensorCount: branches.tensorCount,
            siteCount: _u32(count),
            firstLayerSite: _u32(w.firstLayerSite),
            epilogue: _u32(w.epilogue),
            rowBytes: _u32(w.rowBytes)
        });
        emit ProgramKept(modelRoot, _u32(count));
    }

    /// V1, with fewer layers: what steps and moves are made for.
    function _checkDims(Dims calldata d) private pure {
        bool good = d.dModel != 0 && d.dModel <= 32_768 && d.vocab != 0 && d.vocab <= 1 << 20
            && d.context != 0 && d.context <= 131_072;
        good = good && d.kvHeads != 0 && d.kvHeads <= 32_768 && d.headDim != 0 && d.headDim <= 1_024;
        require(good && d.stride != 0, BadDims());
    }

    /// Copies one site, hashes its leaf and derives what it puts out.
    function _site(Walk memory w, Dims calldata dims, uint32 tensors, bytes calldata records, uint256 i)
        private
        view
    {
        bytes memory record = records[i * Sites.RECORD:(i + 1) * Sites.RECORD];
        w.leaves[i + 1] = Blake3Node.hash(abi.encodePacked(SITE_TAG, uint32(Blake3Node.swap(i)), record));
        Records.check(record, i);
        _layer(w, Sites.word(record, 1), dims.layers, i);
        _inLayer(w, Sites.word(record, 0), Sites.word(record, 1), i);
        for (uint256 t = 6; t < 10; ++t) {
            uint32 id = Sites.word(record, t);
            require(id == Sites.NONE || id < tensors, NoSuchTensor(i, id));
        }
        uint256 shape = _shape(w, dims, record, i);
        uint256 row = shape >> 248 == Sites.KIND_ACTS ? ((shape >> 208) & 0xffffffff) * 4 : 0;
        if (row > w.rowBytes) w.rowBytes = row;
        uint256 units = w.unit << 160 | w.unitFirst << 144;
        bytes memory kept = w.kept;
        uint256 spot = i * Sites.KEPT;
        assembly ("memory-safe") {
            let to := add(add(kept, 32), spot)
            mcopy(to, add(record, 32), 104)
            let rest := add(to, 104)
            mstore(rest, or(or(shape, units), and(mload(rest), sub(shl(128, 1), 1))))
        }
    }

    /// Follows the units: sites before the layers, of each layer in turn, after them.
    function _layer(Walk memory w, uint32 layer, uint32 layers, uint256 i) private pure {
        if (layer == w.last && !w.over) return;
        if (layer == Sites.NONE) {
            if (w.over) return;
            _closeUnit(w, i);
            w.over = true;
            w.epilogue = i;
            w.unit = uint256(layers) + 1;
            return;
        }
        uint32 next = w.last == Sites.NONE ? 0 : w.last + 1;
        require(!w.over && layer == next && layer < layers, BadLayer(i, layer));
        _closeUnit(w, i);
        if (layer == 0) w.firstLayerSite = i;
        w.last = layer;
        w.unit = uint256(layer) + 1;
    }

    /// V3, V4: what is cached, seen or committed has a layer, what samples has none.
    function _inLayer(Walk memory w, uint32 op, uint32 layer, uint256 i) private pure {
        if (op == Sites.KV_APPEND) ++w.caches;
        if (op == Sites.OUT) ++w.outs;
        bool inside = op == Sites.KV_APPEND || op == Sites.ATTENTION || op == Sites.OUT;
        require(!inside || layer != Sites.NONE, BadLayer(i, layer));
        require(op != Sites.SAMPLE || layer == Sites.NONE, BadLayer(i, layer));
    }

    /// Writes the number of its sites into every site of the unit that ends before `end`.
    function _closeUnit(Walk memory w, uint256 end) private pure {
        uint256 n = end - w.unitFirst;
        require(n <= UNIT_SITES_MAX, ProgramTooLarge(0, n));
        if (w.last != Sites.NONE && !w.over) {
            require(w.caches == 1, BadCache(w.last));
            require(w.outs == 1, BadOut(w.last));
            (w.caches, w.outs) = (0, 0);
        }
        bytes memory kept = w.kept;
        for (uint256 i = w.unitFirst; i < end; ++i) {
            uint256 spot = i * Sites.KEPT + Sites.RECORD + 14;
            assembly ("memory-safe") {
                mstore8(add(add(kept, 32), spot), shr(8, n))
                mstore8(add(add(kept, 33), spot), n)
            }
        }
        w.unitFirst = end;
    }

    /// What a site puts out, as it is kept: kind, planes, cols, group from the highest byte down.
    function _shape(Walk memory w, Dims calldata dims, bytes memory r, uint256 i)
        private
        pure
        returns (uint256)
    {
        uint32 op = Sites.word(r, 0);
        if (op == Sites.EMBED || op == Sites.POS_EMBED) {
            require(Sites.word(r, 8) == Sites.NONE || dims.dModel % GROUP == 0, BadShape(i));
            return _acts(dims.dModel);
        }
        if (op == Sites.RMS_NORM || op == Sites.LAYER_NORM || op == Sites.ROPE) {
            uint256 group = Sites.word(r, op == Sites.ROPE ? 10 : 13);
            uint256 cols = _inputActs(w, r, i, 0);
            uint256 most = op == Sites.ROPE ? HEAD_DIM_MAX : WIDTH_MAX;
            require(group != 0 && group <= most && cols % group == 0, BadShape(i));
            // V9: pairs, of neighbours or of halves.
            require(op != Sites.ROPE || (group % 2 == 0 && Sites.word(r, 11) < 2), BadShape(i));
            return _acts(cols);
        }
        if (op == Sites.ACT) {
            require(Sites.word(r, 10) < ACTIVATIONS, BadShape(i));
            return _acts(_inputActs(w, r, i, 0));
        }
        if (op == Sites.OUT) {
            require(_inputActs(w, r, i, 0) == dims.dModel, BadShape(i));
            return _acts(dims.dModel);
        }
        if (op == Sites.GLU || op == Sites.ADD) {
            uint256 cols = _inputActs(w, r, i, 0);
            require(_inputActs(w, r, i, 1) == cols, BadShape(i));
            require(op == Sites.ADD || Sites.word(r, 10) < ACTIVATIONS, BadShape(i));
            return _acts(cols);
        }
        if (op == Sites.QUANT) return _quant(w, r, i);
        if (op == Sites.LINEAR) return _linear(w, r, i);
        if (op == Sites.KV_APPEND) {
            uint256 cols = uint256(dims.kvHeads) * dims.headDim;
            require(Sites.word(r, 10) == dims.kvHeads && Sites.word(r, 11) == dims.headDim, BadShape(i));
            require(dims.headDim <= HEAD_DIM_MAX && dims.kvHeads <= type(uint16).max, BadShape(i));
            _heads(w, r, i, 0, cols, dims.headDim);
            _heads(w, r, i, 1, cols, dims.headDim);
            return Sites.KIND_KV << 248;
        }
        if (op == Sites.ATTENTION) {
            uint256 heads = Sites.word(r, 10);
            uint256 cols = heads * dims.headDim;
            require(
                heads != 0 && Sites.word(r, 11) == dims.kvHeads && dims.kvHeads != 0
                    && heads % dims.kvHeads == 0 && Sites.word(r, 12) == dims.headDim,
                BadShape(i)
            );
            // V11.
            require(Sites.word(r, 15) == 15 || Sites.word(r, 15) == 23, BadShape(i));
            // An encoder's attention: its trace has another order.
            require(Sites.word(r, 17) == 1, NoDisputeFor(i, op));
            _heads(w, r, i, 0, cols, dims.headDim);
            // Its own layer's row.
            require(_input(w, r, i, 1) >> 248 == Sites.KIND_KV, BadShape(i));
            require(_layerOf(w, Sites.word(r, 3)) == Sites.word(r, 1), BadShape(i));
            return _acts(cols);
        }
        require(op == Sites.SAMPLE, NoDisputeFor(i, op));
        require(i + 1 == w.count && _inputActs(w, r, i, 0) == dims.vocab, BadShape(i));
        return Sites.KIND_TOKEN << 248;
    }

    function _quant(Walk memory w, bytes memory r, uint256 i) private pure returns (uint256) {
        uint256 planes = Sites.word(r, 10);
        uint256 wht = Sites.word(r, 11);
        uint256 group = Sites.word(r, 12);
        uint256 cols = _inputActs(w, r, i, 0);
        require(
            (planes == 1 || planes == 2) && group != 0 && group <= K_MAX && cols % group == 0, BadShape(i)
        );
        require(wht <= 512 && wht & (wht - (wht == 0 ? 0 : 1)) == 0 && wht != 1, BadShape(i));
        require(wht == 0 || group % wht == 0, BadShape(i));
        return Sites.KIND_QUANT << 248 | planes << 240 | cols << 208 | group << 176;
    }

    function _linear(Walk memory w, bytes memory r, uint256 i) private pure returns (uint256) {
        uint256 x = _input(w, r, i, 0);
        uint256 n = Sites.word(r, 10);
        uint256 k = Sites.word(r, 11);
        uint256 segments = Sites.word(r, 12);
        // V7.
        require(k <= K_MAX && n <= 1 << 20, BadShape(i));
        require(x >> 248 == Sites.KIND_QUANT && n != 0 && (x >> 208) & 0xffffffff == k, BadShape(i));
        require(segments == 1 || segments == 2 || segments == 4 || segments == 8, BadShape(i));
        require(((x >> 176) & 0xffffffff) * segments == k, BadShape(i));
        require(Sites.word(r, 8) == Sites.NONE || (k / segments) % GROUP == 0, BadShape(i));
        return _acts(n);
    }

    /// Refuses an input that is not int8 heads with a scale each.
    function _heads(Walk memory w, bytes memory r, uint256 i, uint256 input, uint256 cols, uint256 dim)
        private
        pure
    {
        require(cols <= K_MAX, BadShape(i));
        uint256 want = Sites.KIND_QUANT << 248 | 1 << 240 | cols << 208 | dim << 176;
        require(dim != 0 && _input(w, r, i, input) >> 176 == want >> 176, BadShape(i));
    }

    /// Layer of an earlier site.
    function _layerOf(Walk memory w, uint256 id) private pure returns (uint32) {
        bytes memory kept = w.kept;
        uint256 size = Sites.KEPT;
        uint256 x;
        assembly ("memory-safe") {
            x := mload(add(add(kept, 36), mul(id, size)))
        }
        // Four bytes stay four bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(Blake3Node.swap(x >> 224));
    }

    function _acts(uint256 cols) private pure returns (uint256) {
        return Sites.KIND_ACTS << 248 | cols << 208;
    }

    /// Elements of an int32 input.
    function _inputActs(Walk memory w, bytes memory r, uint256 i, uint256 input)
        private
        pure
        returns (uint256)
    {
        uint256 x = _input(w, r, i, input);
        require(x >> 248 == Sites.KIND_ACTS, BadShape(i));
        return (x >> 208) & 0xffffffff;
    }

    /// What an earlier site puts out.
    function _input(Walk memory w, bytes memory r, uint256 i, uint256 input)
        private
        pure
        returns (uint256 x)
    {
        uint32 id = Sites.word(r, 2 + input);
        require(id < i, BadInput(i, id));
        bytes memory kept = w.kept;
        uint256 spot = uint256(id) * Sites.KEPT + Sites.RECORD;
        assembly ("memory-safe") {
            x := mload(add(add(kept, 32), spot))
        }
    }

    /// First leaf of the program's branch.
    function _dimsLeaf(Dims calldata d, uint256 sites) private view returns (bytes32) {
        uint32[8] memory x =
            [d.layers, d.dModel, d.vocab, d.context, d.kvHeads, d.headDim, d.stride, _u32(sites)];
        uint256 packed;
        for (uint256 i = 0; i < 8; ++i) {
            packed = packed << 32 | x[i];
        }
        return Blake3Node.hash(abi.encodePacked(PROGRAM_TAG, Blake3Node.lanes(packed)));
    }

    /// The model root of four branches.
    function _root(bytes32[] memory leaves, Branches calldata b) private view returns (bytes32) {
        require(b.tensorCount > 1, NoSuchTensor(0, b.tensorCount));
        bytes32[] memory four = new bytes32[](4);
        four[0] = b.info;
        four[1] = Merkle.root(leaves);
        four[2] = Merkle.node(Merkle.height(b.tensorCount), b.tensorCount, b.tensorsLeft, b.tensorsRight);
        four[3] = b.tokenizer;
        return Merkle.root(four);
    }

    /// `x` as 32 bits; the caller knows that it fits.
    function _u32(uint256 x) private pure returns (uint32) {
        // Numbers of sites, at most SITES_MAX, and of bytes of a row, at most 2^22 (V7).
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(x);
    }
}
