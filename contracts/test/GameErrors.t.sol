// Every move that does not count, each refused for its own reason; the game goes on as if it had not been made.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPocVerifier, JobFields} from "../src/interfaces/IPocVerifier.sol";
import {IWorkerHub} from "../src/interfaces/IWorkerHub.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Sites} from "../src/libraries/Sites.sol";
import {Slices} from "../src/libraries/Slices.sol";
import {Wire} from "../src/libraries/Wire.sol";
import {GameBase, Recorded} from "./GameBase.sol";

contract GameErrorsTest is GameBase {
    /// A lie about a linear's sum: Tokens, Token, Unit, Piece, Sum, accusation.
    uint256 private constant SUM_GAME = 0;
    /// A lie about a logit's sum: its row has two pieces.
    uint256 private constant ROW_GAME = 9;
    /// Another first id: an embedding of the prompt.
    uint256 private constant EMBED_GAME = 11;
    /// A tree of two levels.
    uint256 private constant TREE_GAME = 17;

    // Places in a linear part's accusation: the input is a quantised row of 640 bytes.
    uint256 private constant PATH_FLAG = 114;
    uint256 private constant CHUNKS = 115;
    uint256 private constant CHUNK_LENGTH = 117;
    uint256 private constant CHUNK_BYTES = 119;
    uint256 private constant CHUNK_SIBLINGS = 759;
    uint256 private constant TENSOR = 760;

    Recorded private g;
    uint256 private jobId;
    address private neuron;
    bytes32 private claim;

    /// Plays a game up to move `upTo`.
    function _stage(uint256 game, uint256 upTo) private {
        _keep(game < 9 ? 1 : 0);
        g = _recorded(game);
        (jobId, neuron) = _claimed(g);
        claim = _open(g, jobId, neuron, challenger);
        _play(g, claim, neuron, challenger, 0, upTo);
    }

    function _ask(bytes32 to, uint32 kind, uint32 a, uint32 b, uint32 c, uint32 d)
        private
        pure
        returns (bytes memory)
    {
        return bytes.concat(to, _le(kind), _le(a), _le(b), _le(c), _le(d));
    }

    function _le(uint32 x) private pure returns (bytes4) {
        return bytes4((x >> 24) | ((x >> 8) & 0xff00) | ((x << 8) & 0xff0000) | (x << 24));
    }

    function _flip(bytes memory move, uint256 spot) private pure returns (bytes memory) {
        move[spot] ^= 0x01;
        return move;
    }

    function _cut(bytes memory move, uint256 bytesLess) private pure returns (bytes memory out) {
        out = new bytes(move.length - bytesLess);
        for (uint256 i = 0; i < out.length; ++i) {
            out[i] = move[i];
        }
    }

    function _refuseAsk(bytes4 why, bytes memory move) private {
        vm.expectPartialRevert(why);
        vm.prank(challenger);
        poc.ask(claim, move);
    }

    function _refuseAnswer(bytes4 why, bytes memory move) private {
        vm.expectPartialRevert(why);
        vm.prank(neuron);
        poc.answer(move);
    }

    function _refuseAccusation(bytes4 why, bytes memory move) private {
        bytes memory prompt = g.spec.inputIds;
        vm.expectPartialRevert(why);
        vm.prank(challenger);
        poc.accuse(claim, move, prompt);
    }

    /// Plays the rest: what was refused changed nothing.
    function _goesOn(uint256 from) private {
        _play(g, claim, neuron, challenger, from, g.moves.length);
        _whole();
    }

    // --- asks ----------------------------------------------------------------------------------

    function test_rejects_asks_of_kinds_that_there_are_not() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(IPocVerifier.NoSuchAsk.selector, _ask(claim, 11, 0, 0, 0, 0));
        _goesOn(0);
    }

    function test_rejects_words_that_an_ask_leaves_empty() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(IPocVerifier.UnusedWord.selector, _ask(claim, 0, 4, 0, 0, 1));
        _refuseAsk(IPocVerifier.UnusedWord.selector, _ask(claim, 1, 4, 7, 0, 0));
        _goesOn(0);
    }

    function test_rejects_asks_outside_the_trace() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 0, 5, 0, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 0, 0, 0, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 0, 4, 1, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 1, 12, 0, 0, 0));
        _goesOn(0);
    }

    function test_rejects_heights_that_are_no_level_of_the_game() public {
        _stage(TREE_GAME, 2);
        _refuseAsk(IPocVerifier.NotALevel.selector, _ask(_here[g.ids[1]], 0, 4, 0, 0, 0));
        _goesOn(2);
    }

    function test_rejects_asks_for_what_has_no_published_parent() public {
        _stage(SUM_GAME, 2);
        _refuseAsk(IPocVerifier.NotPublished.selector, _ask(_here[g.ids[1]], 2, 5, 0, 0, 0));
        _goesOn(2);
    }

    function test_rejects_asks_that_build_on_another_answer() public {
        _stage(SUM_GAME, 2);
        _refuseAsk(IPocVerifier.OtherAnswer.selector, _naming(_move(g, 2), claim));
        _goesOn(2);
    }

    function test_rejects_asks_for_what_is_published() public {
        _stage(SUM_GAME, 2);
        _refuseAsk(IPocVerifier.Published.selector, _move(g, 0));
        _goesOn(2);
    }

    function test_rejects_a_second_ask_while_an_answer_is_owed() public {
        _stage(SUM_GAME, 1);
        _refuseAsk(IPocVerifier.AnswerOwed.selector, _move(g, 0));
        _goesOn(1);
    }

    function test_rejects_sums_of_what_is_no_linear() public {
        _stage(SUM_GAME, 6);
        // Site 1 is the first norm.
        _refuseAsk(IPocVerifier.WrongOp.selector, _ask(_here[g.ids[5]], 5, 5, 1, 0, 0));
        _goesOn(6);
    }

    function test_rejects_pieces_of_a_row_of_one_piece_and_sides_that_it_lacks() public {
        _stage(SUM_GAME, 6);
        _refuseAsk(IPocVerifier.OnePiece.selector, _ask(_here[g.ids[5]], 3, 5, 1, 0, 0));
        _refuseAsk(IPocVerifier.NoSuchSide.selector, _ask(_here[g.ids[5]], 3, 5, 1, 1, 0));
        _refuseAsk(Sites.NoSuchSite.selector, _ask(_here[g.ids[5]], 4, 5, 999, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(_here[g.ids[5]], 4, 5, 1, 0, 1));
        _goesOn(6);
    }

    function test_rejects_asks_of_another_length() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(Wire.MoveTooShort.selector, _cut(_ask(claim, 0, 4, 0, 0, 0), 1));
        _refuseAsk(Wire.MoveTooLong.selector, bytes.concat(_ask(claim, 0, 4, 0, 0, 0), hex"00"));
        _goesOn(0);
    }

    function test_rejects_moves_of_strangers() public {
        _stage(SUM_GAME, 1);
        bytes memory ask = _move(g, 0);
        bytes memory answer = _move(g, 1);
        vm.expectPartialRevert(IPocVerifier.NoGame.selector);
        vm.prank(second);
        poc.ask(claim, ask);
        vm.expectPartialRevert(IPocVerifier.NoGame.selector);
        vm.prank(second);
        poc.accuse(claim, ask, "");
        vm.expectPartialRevert(IPocVerifier.NotTheNeuron.selector);
        vm.prank(challenger);
        poc.answer(answer);
        vm.expectPartialRevert(IPocVerifier.UnknownClaim.selector);
        vm.prank(challenger);
        poc.ask("nothing", ask);
        _goesOn(1);
    }

    // --- answers -------------------------------------------------------------------------------

    function test_rejects_answers_to_nothing_and_replays() public {
        _stage(SUM_GAME, 2);
        _refuseAnswer(IPocVerifier.NotAsked.selector, _move(g, 1));
        _refuseAnswer(IPocVerifier.NotAsked.selector, _naming(_move(g, 1), "nothing"));
        _goesOn(2);
    }

    function test_rejects_nodes_of_another_tree() public {
        _stage(SUM_GAME, 1);
        _refuseAnswer(IPocVerifier.OtherTree.selector, _flip(_move(g, 1), 40));
        _refuseAnswer(Merkle.NodeCount.selector, _cut(_move(g, 1), 32));
        _refuseAnswer(Wire.RaggedList.selector, _cut(_move(g, 1), 1));
        _goesOn(1);
    }

    function test_rejects_another_token() public {
        _stage(SUM_GAME, 3);
        // Position 5 of a prompt of 7: body, flag 0, number of layers, rows.
        _refuseAnswer(IPocVerifier.OtherTree.selector, _flip(_move(g, 3), 32));
        bytes memory two = _move(g, 3);
        two[64] = 0x02;
        _refuseAnswer(Wire.BadFlag.selector, two);
        _refuseAnswer(IPocVerifier.ItemCount.selector, _flip(_move(g, 3), 65));
        _refuseAnswer(IPocVerifier.OtherBody.selector, _flip(_move(g, 3), 67));
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 3), 32));
        _refuseAnswer(Wire.MoveTooShort.selector, _cut(_move(g, 3), 190));
        _goesOn(3);
    }

    function test_rejects_another_unit() public {
        _stage(SUM_GAME, 5);
        _refuseAnswer(IPocVerifier.OtherUnit.selector, _flip(_move(g, 5), 33));
        bytes memory nine = _move(g, 5);
        nine[32] = 0x09;
        _refuseAnswer(IPocVerifier.BadCommitment.selector, nine);
        _refuseAnswer(Wire.MoveTooShort.selector, _cut(_move(g, 5), 33));
        _refuseAnswer(Wire.MoveTooLong.selector, bytes.concat(_move(g, 5), hex"00"));
        _goesOn(5);
    }

    function test_rejects_another_row() public {
        _stage(ROW_GAME, 7);
        _refuseAnswer(IPocVerifier.OtherRow.selector, _flip(_move(g, 7), 32));
        _refuseAnswer(Slices.PieceCount.selector, _cut(_move(g, 7), 32));
        _goesOn(7);
    }

    function test_rejects_another_piece_of_a_row() public {
        _stage(ROW_GAME, 9);
        _refuseAnswer(IPocVerifier.OtherPiece.selector, _flip(_move(g, 9), 32));
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 9), 1));
        _goesOn(9);
    }

    function test_rejects_another_piece_of_a_short_row() public {
        _stage(SUM_GAME, 7);
        _refuseAnswer(IPocVerifier.OtherPiece.selector, _flip(_move(g, 7), 40));
        _goesOn(7);
    }

    function test_rejects_sums_that_none_can_be() public {
        _stage(SUM_GAME, 9);
        bytes memory big = _move(g, 9);
        (big[38], big[39]) = (0x41, 0x00);
        _refuseAnswer(IPocVerifier.SumTooLarge.selector, big);
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 9), 8));
        _goesOn(9);
    }

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

    function test_rejects_another_prompt() public {
        _stage(EMBED_GAME, 8);
        bytes memory move = _move(g, 8);
        bytes memory prompt = _flip(g.spec.inputIds, 0);
        vm.expectPartialRevert(IPocVerifier.WrongPrompt.selector);
        vm.prank(challenger);
        poc.accuse(claim, move, prompt);
        _flip(prompt, 0);
        g.spec.inputIds = prompt;
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
        (jobId, neuron) = _claimed(g);
        JobFields memory fields = _fields(g);
        vm.expectPartialRevert(IPocVerifier.UnknownProgram.selector);
        poc.open(jobId, neuron, fields, g.outputs);
    }

    function test_rejects_jobs_that_do_not_fit_the_model() public {
        _keep(1);
        g = _recorded(SUM_GAME);
        // Registered with a larger vocabulary than the program has.
        g.spec.vocab += 1;
        (jobId, neuron) = _claimed(g);
        JobFields memory fields = _fields(g);
        vm.expectPartialRevert(IPocVerifier.UnfitJob.selector);
        poc.open(jobId, neuron, fields, g.outputs);
    }
}
