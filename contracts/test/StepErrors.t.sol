// Accusations and set-ups that do not count, each refused for its own reason.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPocVerifier, JobFields} from "../src/interfaces/IPocVerifier.sol";
import {IWorkerHub} from "../src/interfaces/IWorkerHub.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Slices} from "../src/libraries/Slices.sol";
import {Wire} from "../src/libraries/Wire.sol";
import {GameStage} from "./GameStage.sol";

contract StepErrorsTest is GameStage {
    // --- accusations ---------------------------------------------------------------------------

    function test_rejects_steps_that_there_are_not() public {
        _stage(SUM_GAME, 10);
        bytes memory move = _move(g, 10);
        move[32] = 0x63;
        _refuseAccusation(IPocVerifier.NoSuchStep.selector, move);
        _goesOn(10);
    }

    function test_rejects_accusations_that_rest_on_another_answer() public {
        _stage(SUM_GAME, 10);
        _refuseAccusation(IPocVerifier.OtherAnswer.selector, _naming(_move(g, 10), claim));
        _refuseAccusation(IPocVerifier.NotPublished.selector, _flip(_move(g, 10), 41));
        _refuseAccusation(IPocVerifier.WrongOp.selector, _flip(_move(g, 10), 37));
        _goesOn(10);
    }

    function test_rejects_a_part_that_a_sum_does_not_have() public {
        _stage(SUM_GAME, 10);
        bytes memory move = _move(g, 10);
        move[45] = 0x02;
        _refuseAccusation(IPocVerifier.OutsideRange.selector, move);
        _goesOn(10);
    }

    function test_rejects_input_bytes_that_are_not_the_committed_ones() public {
        _stage(SUM_GAME, 10);
        _refuseAccusation(Slices.WrongChunk.selector, _flip(_move(g, 10), CHUNK_BYTES));
        _refuseAccusation(Slices.ChunkCount.selector, _flip(_move(g, 10), CHUNKS));
        _refuseAccusation(Slices.ChunkLength.selector, _flip(_move(g, 10), CHUNK_LENGTH));
        _refuseAccusation(Slices.ChunkPath.selector, _flip(_move(g, 10), CHUNK_SIBLINGS));
        bytes memory flag = _move(g, 10);
        flag[PATH_FLAG] = 0x05;
        _refuseAccusation(Wire.BadFlag.selector, flag);
        _goesOn(10);
    }

    function test_rejects_weights_that_are_not_the_models() public {
        _stage(SUM_GAME, 10);
        bytes memory move = _move(g, 10);
        uint256 name = TENSOR + 51;
        uint256 path = name + uint8(move[TENSOR + 49]);
        // The hash, the type, the rows and the name are in the leaf.
        _refuseAccusation(IPocVerifier.WrongTensor.selector, _flip(_move(g, 10), TENSOR));
        _refuseAccusation(IPocVerifier.WrongTensor.selector, _flip(_move(g, 10), TENSOR + 32));
        _refuseAccusation(IPocVerifier.WrongTensor.selector, _flip(_move(g, 10), TENSOR + 33));
        _refuseAccusation(IPocVerifier.WrongTensor.selector, _flip(_move(g, 10), name));
        _refuseAccusation(Merkle.PathLength.selector, _flip(_move(g, 10), path));
        _refuseAccusation(IPocVerifier.WrongTensor.selector, _flip(_move(g, 10), path + 1));
        uint256 siblings = uint8(move[path]);
        uint256 branch = path + 1 + siblings * 32;
        _refuseAccusation(Merkle.PathLength.selector, _flip(_move(g, 10), branch));
        _refuseAccusation(IPocVerifier.WrongTensor.selector, _flip(_move(g, 10), branch + 1));
        // Range behind two siblings: count of chunks, length, bytes.
        uint256 range = branch + 1 + 64;
        _refuseAccusation(Slices.ChunkCount.selector, _flip(_move(g, 10), range));
        _refuseAccusation(Slices.WrongChunk.selector, _flip(_move(g, 10), range + 4));
        _goesOn(10);
    }

    function test_rejects_multipliers_where_there_are_none_and_what_follows_the_end() public {
        _stage(SUM_GAME, 10);
        bytes memory move = _move(g, 10);
        _refuseAccusation(IPocVerifier.OpeningPresence.selector, _flip(_move(g, 10), move.length - 1));
        _refuseAccusation(Wire.MoveTooLong.selector, bytes.concat(move, hex"00"));
        _refuseAccusation(Wire.MoveTooShort.selector, _cut(move, 1));
        _goesOn(10);
    }

    function test_rejects_accusations_about_a_group_that_do_not_fit() public {
        _stage(GROUP_GAME, 10);
        // Position, site, element, which maximum, then the block.
        _refuseAccusation(IPocVerifier.NotPublished.selector, _flip(_move(g, 10), 33));
        bytes memory element = _move(g, 10);
        element[42] = 0x01;
        _refuseAccusation(IPocVerifier.OutsideRange.selector, element);
        bytes memory flag = _move(g, 10);
        flag[45] = 0x02;
        _refuseAccusation(Wire.BadFlag.selector, flag);
        _refuseAccusation(IPocVerifier.OtherAnswer.selector, _naming(_move(g, 10), claim));
        _goesOn(10);
    }

    function test_rejects_keys_that_are_not_the_claims() public {
        _stage(KEY_GAME, 12);
        // Position, site, element, key, then the token's body and whether it sampled.
        bytes memory key = _move(g, 12);
        key[46] = 0x01;
        _refuseAccusation(IPocVerifier.OutsideRange.selector, key);
        _refuseAccusation(IPocVerifier.WrongKey.selector, _flip(_move(g, 12), 49));
        _refuseAccusation(IPocVerifier.OpeningPresence.selector, _flip(_move(g, 12), 81));
        _refuseAccusation(Merkle.PathLength.selector, _flip(_move(g, 12), 82));
        _refuseAccusation(IPocVerifier.NotPublished.selector, _flip(_move(g, 12), 41));
        _goesOn(12);
    }

    function test_rejects_another_key_than_the_published_one() public {
        _stage(MAX_GAME, 10);
        bytes memory move = _move(g, 10);
        // The key exceeds the published score; it is not the one that is said to attain it.
        move[32] = 0x03;
        _refuseAccusation(IPocVerifier.OtherKey.selector, move);
        _goesOn(10);
    }

    function test_rejects_a_unit_that_is_not_published() public {
        _stage(UNIT_GAME, 10);
        bytes memory move = _move(g, 10);
        move[32] = 0x05;
        _refuseAccusation(IPocVerifier.NoUnit.selector, move);
        _goesOn(10);
    }

    function test_rejects_another_prompt() public {
        _stage(EMBED_GAME, 8);
        bytes memory move = _move(g, 8);
        // Behind id, kind and element: a flag, one chunk, its length and its bytes.
        assertEq(uint8(move[45]), 1, "an id of the prompt");
        _refuseAccusation(Slices.WrongChunk.selector, _flip(move, 50));
        _flip(move, 50);
        _refuseAccusation(IPocVerifier.OpeningPresence.selector, _flip(move, 45));
        _goesOn(8);
    }

    // --- set-up --------------------------------------------------------------------------------

    function test_rejects_claims_that_do_not_fit_together() public {
        _keep(1);
        g = _recorded(SUM_GAME);
        (jobId, neuron) = _claimed(g);
        uint256 bond = poc.bond(g.spec.modelRoot);
        JobFields memory fields = _fields(g);
        bytes memory outputs = g.outputs;
        vm.deal(address(this), 100 ether);

        vm.expectPartialRevert(IPocVerifier.NotRevealed.selector);
        poc.open{value: bond}(jobId, second, fields, outputs);
        vm.expectPartialRevert(IWorkerHub.UnknownJob.selector);
        poc.open{value: bond}(jobId + 1, neuron, fields, outputs);
        fields.seed ^= 1;
        vm.expectPartialRevert(IPocVerifier.WrongJob.selector);
        poc.open{value: bond}(jobId, neuron, fields, outputs);
        fields.seed ^= 1;
        vm.expectPartialRevert(IPocVerifier.WrongOutput.selector);
        poc.open{value: bond}(jobId, neuron, fields, _flip(bytes.concat(outputs), 0));
        vm.expectPartialRevert(IPocVerifier.WrongBond.selector);
        poc.open{value: bond - 1}(jobId, neuron, fields, outputs);
        vm.expectPartialRevert(IPocVerifier.UnknownClaim.selector);
        poc.join{value: bond}("nothing");
        poc.open{value: bond}(jobId, neuron, fields, outputs);
        vm.expectPartialRevert(IPocVerifier.ClaimKnown.selector);
        poc.open{value: bond}(jobId, neuron, fields, outputs);
    }

    function test_rejects_jobs_on_programs_that_are_not_in_the_book() public {
        _keep(1);
        g = _recorded(ROW_GAME);
        (jobId, neuron) = _claimedUndisputable(g);
        JobFields memory fields = _fields(g);
        vm.expectPartialRevert(IPocVerifier.UnknownProgram.selector);
        poc.open(jobId, neuron, fields, g.outputs);
    }

    function test_rejects_jobs_that_do_not_fit_the_model() public {
        _keep(1);
        g = _recorded(SUM_GAME);
        // Registered with a larger vocabulary than the program has.
        g.spec.vocab += 1;
        (jobId, neuron) = _claimedUndisputable(g);
        JobFields memory fields = _fields(g);
        vm.expectPartialRevert(IPocVerifier.UnfitJob.selector);
        poc.open(jobId, neuron, fields, g.outputs);
    }
}
