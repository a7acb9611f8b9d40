// The book of programs: keeps what the model root binds, and refuses what no dispute could go through.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Branches, Dims, IProgramBook, Model} from "../src/interfaces/IProgramBook.sol";
import {IWorkerHub} from "../src/interfaces/IWorkerHub.sol";
import {GameBase} from "./GameBase.sol";

contract ProgramBookTest is GameBase {
    bytes32 private root;
    Dims private dims;
    Branches private branches;
    bytes private records;

    function setUp() public override {
        super.setUp();
        root = _root(".models[1]");
        dims = _dims(".models[1]");
        branches = _branches(".models[1]");
        records = vm.parseJsonBytes(json, ".models[1].records");
    }

    /// The records with word `word` of site `site` replaced.
    function _with(uint256 site, uint256 word, uint32 value) private view returns (bytes memory out) {
        out = records;
        for (uint256 i = 0; i < 4; ++i) {
            out[site * 104 + word * 4 + i] = bytes1(uint8(value >> (8 * i)));
        }
    }

    function _refuse(bytes4 why, bytes memory sites) private {
        vm.expectPartialRevert(why);
        book.keep(root, dims, branches, sites);
    }

    function test_KeepsAProgramForEver() public {
        book.keep(root, dims, branches, records);
        Model memory m = book.model(root);
        assertEq(m.layers, 2, "layers");
        assertEq(m.siteCount, records.length / 104, "sites");
        assertEq(m.firstLayerSite, 1, "the embedding alone comes before the layers");
        assertEq(m.epilogue, m.siteCount - 4, "norm, quantisation, head, sample");
        assertEq(m.tensorCount, branches.tensorCount, "tensors");
        assertEq(m.rowBytes, 1280, "320 elements inside a layer; there are 300 logits");
        _refuse(IProgramBook.ProgramKnown.selector, records);
    }

    function test_rejects_another_program_or_branch() public {
        // A norm's gain_f: no rule is broken, but the root is another.
        _refuse(IProgramBook.WrongModelRoot.selector, _with(1, 10, 20));
        branches.tensorCount += 1;
        _refuse(IProgramBook.WrongModelRoot.selector, records);
        branches.tensorCount -= 1;
        dims.stride += 1;
        _refuse(IProgramBook.WrongModelRoot.selector, records);
    }

    function test_rejects_records_that_are_none() public {
        _refuse(IProgramBook.BadRecords.selector, "");
        _refuse(IProgramBook.BadRecords.selector, hex"00");
        _refuse(IProgramBook.BadRecords.selector, new bytes(65_537 * 104));
    }

    function test_rejects_sites_that_read_later_ones_or_other_shapes() public {
        _refuse(IProgramBook.BadInput.selector, _with(1, 2, 1));
        _refuse(IProgramBook.BadInput.selector, _with(1, 2, type(uint32).max));
        // A linear that reads the norm, not its quantisation; one of another K; a quantisation of no plane.
        _refuse(IProgramBook.BadShape.selector, _with(3, 2, 1));
        _refuse(IProgramBook.BadShape.selector, _with(3, 11, 63));
        _refuse(IProgramBook.BadShape.selector, _with(2, 10, 0));
    }

    function test_rejects_layers_out_of_order_and_without_a_cached_row() public {
        _refuse(IProgramBook.BadLayer.selector, _with(1, 1, 1));
        _refuse(IProgramBook.BadLayer.selector, _with(2, 1, 2));
        dims.layers = 3;
        _refuse(IProgramBook.BadLayer.selector, records);
        dims.layers = 257;
        _refuse(IProgramBook.ProgramTooLarge.selector, records);
        dims.layers = 2;
        // Op 7 caches, 13 has no gate, 11 is an out row. The cached row becomes a sum of its inputs, which are quantised.
        bytes memory sound = records;
        records = _with(11, 0, 10);
        records = _with(11, 10, 0);
        _refuse(IProgramBook.BadShape.selector, _with(11, 11, 0));
        records = sound;
        // The last layer's out row, which no site reads, becomes a second cached row, or none.
        uint256 out = records.length / 104 - 5;
        _refuse(IProgramBook.BadOut.selector, _with(out, 0, 13));
        records = _with(out, 0, 7);
        records = _with(out, 2, 9);
        records = _with(out, 3, 10);
        records = _with(out, 10, 2);
        _refuse(IProgramBook.BadCache.selector, _with(out, 11, 16));
    }

    function test_rejects_what_is_cached_or_committed_outside_of_a_layer_and_what_samples_inside() public {
        uint32 none = type(uint32).max;
        uint256 last = records.length / 104 - 1;
        // Behind the layers the norm becomes an out row; then sampling and all before it is of the last layer.
        bytes memory sound = records;
        records = _with(last - 3, 0, 11);
        records = _with(last - 3, 6, none);
        for (uint256 word = 10; word < 16; ++word) {
            records = _with(last - 3, word, 0);
        }
        _refuse(IProgramBook.BadLayer.selector, records);
        records = sound;
        for (uint256 i = last - 3; i < last; ++i) {
            records = _with(i, 1, 1);
        }
        _refuse(IProgramBook.BadLayer.selector, _with(last, 1, 1));
    }

    function test_rejects_words_that_an_op_does_not_use() public {
        // An input and a tensor too many, a parameter behind the last, a bias of an embedding, 31 fraction bits.
        _refuse(IProgramBook.BadRecord.selector, _with(1, 3, 0));
        _refuse(IProgramBook.BadRecord.selector, _with(1, 7, 0));
        _refuse(IProgramBook.BadRecord.selector, _with(1, 16, 1));
        _refuse(IProgramBook.BadRecord.selector, _with(0, 9, 0));
        _refuse(IProgramBook.BadRecord.selector, _with(0, 10, 31));
    }

    function test_rejects_tensors_that_the_pack_lacks_and_ops_without_a_dispute() public {
        _refuse(IProgramBook.NoSuchTensor.selector, _with(0, 6, branches.tensorCount));
        _refuse(IProgramBook.NoDisputeFor.selector, _with(1, 0, 15));
        _refuse(IProgramBook.NoDisputeFor.selector, _with(12, 17, 0));
    }

    function test_rejects_parameters_that_no_step_takes() public {
        uint32 sites = uint32(records.length / 104);
        for (uint32 i = 0; i < sites; ++i) {
            uint32 op = uint32(uint8(records[i * 104]));
            // A style of pairs, an activation, bits of probabilities, a norm's group.
            if (op == 6) _refuse(IProgramBook.BadShape.selector, _with(i, 11, 2));
            if (op == 9) _refuse(IProgramBook.BadShape.selector, _with(i, 10, 3));
            if (op == 8) _refuse(IProgramBook.BadShape.selector, _with(i, 15, 16));
            if (op == 2) _refuse(IProgramBook.BadShape.selector, _with(i, 13, 32_769));
        }
    }

    function test_rejects_numbers_outside_of_the_tensor_spec() public {
        Dims memory sound = dims;
        dims.dModel = 32_769;
        _refuse(IProgramBook.BadDims.selector, records);
        dims = sound;
        dims.vocab = (1 << 20) + 1;
        _refuse(IProgramBook.BadDims.selector, records);
        dims = sound;
        dims.context = 0;
        _refuse(IProgramBook.BadDims.selector, records);
        dims = sound;
        dims.headDim = 1_025;
        _refuse(IProgramBook.BadDims.selector, records);
        dims = sound;
        dims.kvHeads = 0;
        _refuse(IProgramBook.BadDims.selector, records);
        dims = sound;
        dims.stride = 0;
        _refuse(IProgramBook.BadDims.selector, records);
    }

    function test_rejects_sites_that_no_step_executes() public {
        uint32 none = type(uint32).max;
        // The table, the first norm's gains, a linear's scales: not named.
        _refuse(IProgramBook.NoSuchTensor.selector, _with(0, 6, none));
        _refuse(IProgramBook.NoSuchTensor.selector, _with(1, 6, none));
        _refuse(IProgramBook.NoSuchTensor.selector, _with(3, 7, none));
        // An attention of other weights than 15 or 23 bits, a rotation of no style, an activation that there is not.
        _refuse(IProgramBook.BadShape.selector, _with(12, 15, 16));
        _refuse(IProgramBook.BadShape.selector, _with(6, 11, 2));
        _refuse(IProgramBook.BadShape.selector, _with(20, 10, 3));
        // A norm by the mean reads a bias, too.
        _refuse(IProgramBook.NoSuchTensor.selector, _with(1, 0, 3));
        // A linear with more columns than any.
        _refuse(IProgramBook.BadShape.selector, _with(3, 10, (1 << 20) + 1));
    }

    function test_rejects_a_program_that_samples_nothing() public {
        bytes memory cut = new bytes(records.length - 104);
        for (uint256 i = 0; i < cut.length; ++i) {
            cut[i] = records[i];
        }
        _refuse(IProgramBook.NoAnswer.selector, cut);
    }

    // --- the hub -------------------------------------------------------------------------------

    function _offer(uint32 spec, uint32 vocab, uint32 context, uint32 words) private returns (bytes32 id) {
        id = registry.register{value: 1 ether}(root, spec, vocab, context, words, "u", 0);
        vm.deal(_neuron(0), 100 ether);
        vm.prank(_neuron(0));
        hub.stake{value: 20 ether}();
    }

    function _refuseOffer(bytes32 id) private {
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NoProgram.selector, id, root));
        vm.prank(_neuron(0));
        hub.serve(id, 0, 0, 0, type(uint96).max);
    }

    function _offers(bytes32 id) private {
        vm.prank(_neuron(0));
        hub.serve(id, 0, 0, 0, type(uint96).max);
        assertEq(hub.offers(id).length, 1, "on the list");
    }

    function test_rejects_offers_of_a_model_whose_program_is_not_in_the_book() public {
        bytes32 id = _offer(0, dims.vocab, dims.context, 0);
        _refuseOffer(id);
        book.keep(root, dims, branches, records);
        _offers(id);
    }

    function test_rejects_offers_of_a_model_registered_with_other_numbers_than_its_program() public {
        book.keep(root, dims, branches, records);
        _refuseOffer(_offer(0, dims.vocab + 1, dims.context, 0));
        _refuseOffer(_offer(0, dims.vocab, dims.context + 1, 0));
        _refuseOffer(_offer(1, dims.vocab, dims.context, 0));
        _offers(_offer(0, dims.vocab, dims.context - 1, 0));
    }

    function test_AnEncoderIsOfferedWithoutAProgramWhileItHasNoDispute() public {
        _offers(_offer(0, dims.vocab, dims.context, 384));
    }

    function test_rejects_offers_before_the_verifier_is_there() public {
        bytes32 id = _offer(0, dims.vocab, dims.context, 0);
        book.keep(root, dims, branches, records);
        bytes memory code = address(poc).code;
        vm.etch(address(poc), "");
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NoVerifier.selector, address(poc)));
        vm.prank(_neuron(0));
        hub.serve(id, 0, 0, 0, type(uint96).max);
        vm.etch(address(poc), code);
        _offers(id);
    }

    function test_AHubThatNamesNoVerifierTakesEveryModel() public {
        verifier = address(0);
        hub = _deployHub(registry, _params());
        _offers(_offer(0, dims.vocab, dims.context, 0));
    }
}
