// Jobs that embed: their whole life, and every refusal that is theirs alone.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Job, JobSpec, JobStatus} from "../src/interfaces/IWorkerHub.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {Base} from "./Base.sol";

contract EmbeddingTest is Base {
    address internal n = _neuron(0);

    function setUp() public override {
        super.setUp();
        vm.deal(n, 20 ether);
        vm.prank(n);
        hub.stake{value: 20 ether}();
        vm.prank(n);
        hub.serve(ENCODER, 0, 0, 0, type(uint96).max);
    }

    function _postEmbedding() private returns (uint256) {
        vm.prank(payer);
        return hub.infer{value: FEE}(_embedding(), 1, 0);
    }

    function _refused(JobSpec memory spec, bytes memory why) private {
        vm.expectRevert(why);
        vm.prank(payer);
        hub.infer{value: FEE}(spec, 1, 0);
    }

    function test_AnEmbeddingIsAnsweredAndPaid() public {
        uint256 id = _postEmbedding();
        Job memory j = hub.job(id);
        assertEq(j.modelId, ENCODER, "model");
        assertEq(j.words, WORDS, "words");
        assertEq(j.maxNew, 0, "no tokens");
        assertEq(j.inputs, 2, "ids");
        _assign(id);
        _commit(id, n, ROOT, _words());
        _reveal(id, n, ROOT, _words());
        _status(id, JobStatus.Challenge);
        _pastDeadline(id);
        hub.finalise(id);
        _status(id, JobStatus.Settled);
        assertEq(n.balance, 0.95 ether, "paid");
        _conserved();
    }

    /// The words follow from the root, so the hash of a job does not hold them.
    function test_TheWordsAreNoPartOfTheJobHash() public view {
        JobSpec memory s = _embedding();
        bytes32 hash = hub.hashJob(s);
        s.words += 1;
        assertEq(hub.hashJob(s), hash, "the same question");
    }

    function test_TheWholeContextMayBeEmbedded() public {
        JobSpec memory s = _embedding();
        s.inputIds = new bytes(uint256(CONTEXT) * 4);
        vm.prank(payer);
        hub.infer{value: FEE}(s, 1, 0);
        s.inputIds = new bytes(uint256(CONTEXT) * 4 + 4);
        _refused(s, abi.encodeWithSelector(IWorkerHub.ContextOverflow.selector, CONTEXT + 1, 0, CONTEXT));
    }

    function test_RefusesAnEmptyText() public {
        JobSpec memory s = _embedding();
        s.inputIds = "";
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmptyInput.selector));
    }

    function test_RefusesTokensOfAnEncoder() public {
        JobSpec memory s = _embedding();
        s.maxNew = 1;
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmbeddingGenerates.selector, 1));
    }

    function test_RefusesStopIdsOfAnEncoder() public {
        JobSpec memory s = _embedding();
        s.stopIds = hex"0200000003000000";
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmbeddingStops.selector, 2));
        s.stopIds = hex"020000";
        _refused(s, abi.encodeWithSelector(Ids.BadIdBytes.selector, 3));
    }

    function test_RefusesASamplerOfAnEncoder() public {
        JobSpec memory s = _embedding();
        s.temperatureQ16 = 65536;
        s.topPQ16 = 65536;
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmbeddingSamples.selector, 65536, 0, 65536));
        s = _embedding();
        s.topK = 1;
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmbeddingSamples.selector, 0, 1, 0));
        s = _embedding();
        s.topPQ16 = 1;
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmbeddingSamples.selector, 0, 0, 1));
    }

    function test_RefusesASeedOfAnEncoder() public {
        JobSpec memory s = _embedding();
        s.seed = 9;
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmbeddingSeeded.selector, 9));
    }

    function test_RefusesIdsOutsideTheVocabulary() public {
        JobSpec memory s = _embedding();
        s.inputIds = hex"01000000e8030000";
        _refused(s, abi.encodeWithSelector(Ids.IdOutOfRange.selector, 1, 1000, 1000));
        s.inputIds = hex"01000000e80300";
        _refused(s, abi.encodeWithSelector(Ids.BadIdBytes.selector, 7));
    }

    function test_RefusesToGenerateNothingWithAModelThatGenerates() public {
        JobSpec memory s = _spec();
        s.maxNew = 0;
        s.stopIds = "";
        _refused(s, abi.encodeWithSelector(IWorkerHub.NothingAsked.selector));
    }

    function test_RefusesOutputsOfAnotherLength() public {
        _badWords("");
        _badWords(hex"0700000008000000");
        _badWords(hex"0700000008000000090000");
        _badWords(hex"070000000800000009000000aa");
        _badWords(hex"07000000080000000900000000000000");
    }

    function _badWords(bytes memory out) private {
        uint256 id = _postEmbedding();
        _assign(id);
        _commit(id, n, ROOT, out);
        vm.expectRevert(abi.encodeWithSelector(Ids.BadWords.selector, out.length, WORDS));
        vm.prank(n);
        hub.reveal(id, SALT, ROOT, out);
    }
}
