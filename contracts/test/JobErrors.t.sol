// Every refusal in the life of a job.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts} from "../src/interfaces/IPayouts.sol";
import {IWorkerHub, JobSpec, JobStatus, Params, Slot} from "../src/interfaces/IWorkerHub.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {Beacon} from "../src/libraries/Beacon.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {Base} from "./Base.sol";

contract JobErrorsTest is Base {
    function _refused(JobSpec memory spec, bytes memory why) private {
        vm.expectRevert(why);
        vm.prank(payer);
        hub.infer{value: FEE}(spec, 1, 0);
    }

    function test_RefusesAnUnknownModel() public {
        JobSpec memory s = _spec();
        s.modelRoot = "other";
        _refused(s, _unknown(s));
    }

    function test_RefusesNumbersThatAreNotTheModels() public {
        JobSpec memory s = _spec();
        s.specVersion = 1;
        _refused(s, _unknown(s));
        s = _spec();
        s.vocab += 1;
        _refused(s, _unknown(s));
        s = _spec();
        s.context += 1;
        _refused(s, _unknown(s));
        s = _spec();
        s.words = 1;
        _refused(s, _unknown(s));
    }

    function _unknown(JobSpec memory s) private view returns (bytes memory) {
        bytes32 id = registry.modelIdOf(s.modelRoot, s.specVersion, s.vocab, s.context, s.words);
        return abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, id);
    }

    function test_RefusesAnEmptyPrompt() public {
        JobSpec memory s = _spec();
        s.inputIds = "";
        _refused(s, abi.encodeWithSelector(IWorkerHub.EmptyInput.selector));
    }

    function test_RefusesToGenerateNothing() public {
        JobSpec memory s = _spec();
        s.maxNew = 0;
        _refused(s, abi.encodeWithSelector(IWorkerHub.NothingAsked.selector));
    }

    function test_RefusesMoreThanTheContext() public {
        JobSpec memory s = _spec();
        s.maxNew = 61;
        vm.prank(payer);
        hub.infer{value: FEE}(s, 1, 0);
        s.maxNew = 62;
        _refused(s, abi.encodeWithSelector(IWorkerHub.ContextOverflow.selector, 3, 62, 64));
        s.maxNew = type(uint32).max;
        _refused(s, abi.encodeWithSelector(IWorkerHub.ContextOverflow.selector, 3, type(uint32).max, 64));
    }

    function test_RefusesToGenerateMoreThanATransactionReveals() public {
        registry.register{value: 1 ether}("long", 0, VOCAB, 131_072, 0, "u", 0);
        JobSpec memory s = _spec();
        s.modelRoot = "long";
        s.context = 131_072;
        s.maxNew = 98_305;
        _refused(s, abi.encodeWithSelector(Ids.TooManyOutputs.selector, 98_305, 98_304));
        s.maxNew = 98_304;
        vm.prank(payer);
        hub.infer{value: FEE}(s, 1, 0);
    }

    function test_RefusesIdsOutsideTheVocabulary() public {
        JobSpec memory s = _spec();
        s.inputIds = hex"01000000e8030000";
        _refused(s, abi.encodeWithSelector(Ids.IdOutOfRange.selector, 1, 1000, 1000));
        s = _spec();
        s.stopIds = hex"ffffffff";
        _refused(s, abi.encodeWithSelector(Ids.IdOutOfRange.selector, 0, type(uint32).max, 1000));
    }

    function test_RefusesBytesThatAreNoIds() public {
        JobSpec memory s = _spec();
        s.inputIds = hex"010000";
        _refused(s, abi.encodeWithSelector(Ids.BadIdBytes.selector, 3));
        s = _spec();
        s.stopIds = hex"0100000001";
        _refused(s, abi.encodeWithSelector(Ids.BadIdBytes.selector, 5));
    }

    function test_RefusesTooManyStopIds() public {
        JobSpec memory s = _spec();
        s.stopIds = new bytes(68);
        _refused(s, abi.encodeWithSelector(IWorkerHub.TooManyStops.selector, 17));
    }

    function test_RefusesSamplersThatContradictThemselves() public {
        JobSpec memory s = _spec();
        s.topK = 1;
        _refused(s, abi.encodeWithSelector(IWorkerHub.BadSampler.selector, 0, 1, 0));
        s = _spec();
        s.topPQ16 = 1;
        _refused(s, abi.encodeWithSelector(IWorkerHub.BadSampler.selector, 0, 0, 1));
        s = _spec();
        s.temperatureQ16 = 1;
        _refused(s, abi.encodeWithSelector(IWorkerHub.BadSampler.selector, 1, 0, 0));
        s.topPQ16 = 65537;
        _refused(s, abi.encodeWithSelector(IWorkerHub.BadSampler.selector, 1, 0, 65537));
        s.topPQ16 = 65536;
        vm.prank(payer);
        hub.infer{value: FEE}(s, 1, 0);
    }

    function test_RefusesABadK() public {
        JobSpec memory s = _spec();
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.BadK.selector, 0, 8));
        hub.infer(s, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.BadK.selector, 9, 8));
        hub.infer(s, 9, 0);
    }

    function test_RefusesAFeeBeyond96Bits() public {
        vm.deal(payer, 2 ** 96);
        JobSpec memory s = _spec();
        vm.expectRevert(abi.encodeWithSelector(IPayouts.AmountTooLarge.selector, 2 ** 96));
        vm.prank(payer);
        hub.infer{value: 2 ** 96}(s, 1, 0);
    }

    function test_RefusesAJobThatDoesNotExist() public {
        bytes memory unknown = abi.encodeWithSelector(IWorkerHub.UnknownJob.selector, 7);
        vm.expectRevert(unknown);
        hub.job(7);
        vm.expectRevert(unknown);
        hub.drawn(7);
        vm.expectRevert(unknown);
        hub.assign(7);
        vm.expectRevert(unknown);
        hub.commit(7, 0, 0);
        vm.expectRevert(unknown);
        hub.reveal(7, 0, 0, "");
        vm.expectRevert(unknown);
        hub.finalise(7);
        vm.expectRevert(unknown);
        hub.timeout(7);
        vm.expectRevert(unknown);
        vm.prank(verifier);
        hub.openDispute(7);
    }

    function test_RefusesADrawBeforeItsBeacon() public {
        _seat(1);
        uint256 id = _post(1);
        _skip(1);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.BeaconNotDue.selector, 101, 102));
        hub.assign(id);
    }

    function test_RefusesADrawWithoutAHeader() public {
        _seat(1);
        uint256 id = _post(1);
        _skip(2);
        vm.etch(Beacon.HEADER_HASHES, "");
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.BeaconMissing.selector, 102));
        hub.assign(id);
    }

    function test_RefusesADrawOfTooFew() public {
        _seat(2);
        uint256 id = _post(3);
        _skip(2);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotEnoughNeurons.selector, 2, 3));
        hub.assign(id);
    }

    function test_RefusesASecondDraw() public {
        _seat(1);
        uint256 id = _post(1);
        _assign(id);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, id, JobStatus.Committing));
        hub.assign(id);
    }

    function test_RefusesCommitsOfWhoWasNotDrawn() public {
        _seat(2);
        uint256 id = _post(1);
        Slot[] memory s = _assign(id);
        address other = s[0].neuron == _neuron(0) ? _neuron(1) : _neuron(0);
        bytes32 jobHash = hub.job(id).jobHash;
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotAssigned.selector, id, other));
        vm.prank(other);
        hub.commit(id, jobHash, "c");
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotAssigned.selector, id, other));
        vm.prank(other);
        hub.reveal(id, SALT, ROOT, "");
    }

    function test_RefusesACommitToAnotherJob() public {
        _seat(1);
        uint256 id = _post(1);
        _assign(id);
        bytes32 jobHash = hub.job(id).jobHash;
        vm.expectRevert(
            abi.encodeWithSelector(IWorkerHub.WrongJobHash.selector, id, bytes32("other"), jobHash)
        );
        vm.prank(_neuron(0));
        hub.commit(id, "other", "c");
    }

    function test_RefusesAnEmptyCommitment() public {
        _seat(1);
        uint256 id = _post(1);
        _assign(id);
        bytes32 jobHash = hub.job(id).jobHash;
        _expect(IWorkerHub.EmptyCommitment.selector);
        vm.prank(_neuron(0));
        hub.commit(id, jobHash, 0);
    }

    function test_RefusesASecondCommit() public {
        _seat(2);
        uint256 id = _post(2);
        _assign(id);
        bytes32 jobHash = hub.job(id).jobHash;
        vm.prank(_neuron(0));
        hub.commit(id, jobHash, "c");
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.AlreadyCommitted.selector, id, _neuron(0)));
        vm.prank(_neuron(0));
        hub.commit(id, jobHash, "c");
    }

    function test_RefusesALateCommit() public {
        _seat(1);
        uint256 id = _post(1);
        _assign(id);
        bytes32 jobHash = hub.job(id).jobHash;
        uint256 deadline = hub.job(id).deadline;
        vm.roll(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowClosed.selector, deadline + 1, deadline));
        vm.prank(_neuron(0));
        hub.commit(id, jobHash, "c");
        vm.roll(deadline);
        vm.prank(_neuron(0));
        hub.commit(id, jobHash, "c");
    }

    function test_RefusesARevealBeforeAllHaveCommitted() public {
        _seat(2);
        uint256 id = _post(2);
        _assign(id);
        _commit(id, _neuron(0), ROOT, _out());
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, id, JobStatus.Committing));
        vm.prank(_neuron(0));
        hub.reveal(id, SALT, ROOT, _out());
    }

    function test_RefusesALateReveal() public {
        _seat(1);
        uint256 id = _post(1);
        _assign(id);
        _commit(id, _neuron(0), ROOT, _out());
        uint256 deadline = hub.job(id).deadline;
        vm.roll(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowClosed.selector, deadline + 1, deadline));
        vm.prank(_neuron(0));
        hub.reveal(id, SALT, ROOT, _out());
        vm.roll(deadline);
        _reveal(id, _neuron(0), ROOT, _out());
    }

    function test_RefusesASecondReveal() public {
        _seat(2);
        uint256 id = _post(2);
        _assign(id);
        _commit(id, _neuron(0), ROOT, _out());
        _commit(id, _neuron(1), ROOT, _out());
        _reveal(id, _neuron(0), ROOT, _out());
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.AlreadyRevealed.selector, id, _neuron(0)));
        vm.prank(_neuron(0));
        hub.reveal(id, SALT, ROOT, _out());
    }

    function test_RefusesARevealOfSomethingElse() public {
        _seat(2);
        uint256 id = _post(2);
        _assign(id);
        _commit(id, _neuron(0), ROOT, _out());
        _commit(id, _neuron(1), ROOT, _out());
        bytes32 bound_ = hub.slot(id, _neuron(0)).commitment;
        _wrong(id, "other salt", ROOT, _out(), bound_);
        _wrong(id, SALT, "other root", _out(), bound_);
        _wrong(id, SALT, ROOT, hex"02000000", bound_);
        // A copied commitment is bound to who made it.
        assertTrue(
            hub.hashCommit(id, _neuron(1), SALT, ROOT, keccak256(_out())) != bound_, "bound to its sender"
        );
        _expect(IWorkerHub.EmptyTraceRoot.selector);
        vm.prank(_neuron(0));
        hub.reveal(id, SALT, 0, _out());
    }

    function _wrong(uint256 id, bytes32 salt, bytes32 root, bytes memory out, bytes32 bound_) private {
        bytes32 got = hub.hashCommit(id, _neuron(0), salt, root, keccak256(out));
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WrongReveal.selector, got, bound_));
        vm.prank(_neuron(0));
        hub.reveal(id, salt, root, out);
    }

    function test_RefusesOutputsThatCannotAnswer() public {
        _seat(1);
        _badOutput("", abi.encodeWithSelector(Ids.BadEnd.selector, 0, 4));
        _badOutput(hex"05000000", abi.encodeWithSelector(Ids.BadEnd.selector, 1, 4));
        _badOutput(new bytes(20), abi.encodeWithSelector(Ids.BadEnd.selector, 5, 4));
        _badOutput(hex"050000", abi.encodeWithSelector(Ids.BadIdBytes.selector, 3));
        _badOutput(hex"0200000005000000", abi.encodeWithSelector(Ids.IdAfterStop.selector, 0, 2));
        _badOutput(hex"e803000002000000", abi.encodeWithSelector(Ids.IdOutOfRange.selector, 0, 1000, 1000));
    }

    function _badOutput(bytes memory out, bytes memory why) private {
        uint256 id = _post(1);
        _assign(id);
        _commit(id, _neuron(0), ROOT, out);
        vm.expectRevert(why);
        vm.prank(_neuron(0));
        hub.reveal(id, SALT, ROOT, out);
    }

    function test_RefusesToFinaliseTooEarlyOrTwice() public {
        _seat(1);
        (uint256 id,) = _answered(1);
        vm.expectRevert(
            abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, block.number, block.number + 4)
        );
        hub.finalise(id);
        _pastDeadline(id);
        hub.finalise(id);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, id, JobStatus.Settled));
        hub.finalise(id);
    }

    function test_RefusesATimeoutTooEarlyOrOfAnAnsweredJob() public {
        _seat(1);
        uint256 id = _post(1);
        _assign(id);
        _skip(20);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, block.number, block.number));
        hub.timeout(id);
        _commit(id, _neuron(0), ROOT, _out());
        _reveal(id, _neuron(0), ROOT, _out());
        _pastDeadline(id);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, id, JobStatus.Challenge));
        hub.timeout(id);
    }

    function test_RefusesPlainTransfers() public {
        vm.deal(payer, 1 ether);
        vm.prank(payer);
        (bool ok,) = address(hub).call{value: 1}("");
        assertTrue(!ok, "nobody's coins do not enter");
    }
}
