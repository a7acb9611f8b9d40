// Accusations of a model that do not count, each refused for its own reason.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Slices} from "../src/libraries/Slices.sol";
import {Wire} from "../src/libraries/Wire.sol";
import {GameStage} from "./GameStage.sol";

contract ModelErrorsTest is GameStage {
    /// A weight of -128 in a linear's row.
    uint256 private constant ROW_FAULT_GAME = 64;
    /// A norm's gains of another length.
    uint256 private constant SHAPE_GAME = 67;

    // Places in an accusation: what it rests on (32), its kind, site, then tensor or row.
    uint256 private constant SITE = 33;
    uint256 private constant ROW = 37;
    uint256 private constant TYPE = 41 + 32;

    function test_rejects_faults_that_rest_on_another_claim() public {
        _stage(ROW_FAULT_GAME, 0);
        _refuseAccusation(IPocVerifier.OtherAnswer.selector, _naming(_move(g, 0), "another"));
        _goesOn(0);
    }

    function test_rejects_rows_of_sites_without_a_weight() public {
        _stage(ROW_FAULT_GAME, 0);
        bytes memory move = _move(g, 0);
        // The first norm.
        move[SITE] = 0x01;
        _refuseAccusation(IPocVerifier.WrongOp.selector, move);
        _goesOn(0);
    }

    function test_rejects_rows_outside_the_weight_and_of_other_bytes() public {
        _stage(ROW_FAULT_GAME, 0);
        bytes memory move = _move(g, 0);
        move[ROW + 1] = 0x40;
        _refuseAccusation(Slices.RangeOutside.selector, move);
        // A byte of the chunk, which two chaining values and the multipliers' flag follow.
        move = _move(g, 0);
        _refuseAccusation(Slices.WrongChunk.selector, _flip(move, move.length - 600));
        _refuseAccusation(Wire.MoveTooLong.selector, bytes.concat(_move(g, 0), hex"00"));
        _refuseAccusation(Wire.MoveTooShort.selector, _cut(_move(g, 0), 1));
        _goesOn(0);
    }

    function test_rejects_lines_that_are_not_the_models() public {
        _stage(SHAPE_GAME, 0);
        _refuseAccusation(IPocVerifier.WrongTensor.selector, _flip(_move(g, 0), TYPE + 1));
        _refuseAccusation(Wire.MoveTooLong.selector, bytes.concat(_move(g, 0), hex"00"));
        _goesOn(0);
    }

    function test_rejects_tensors_that_the_site_does_not_read() public {
        _stage(SHAPE_GAME, 0);
        bytes memory move = _move(g, 0);
        // The quantisation behind the norm reads none.
        move[SITE] = 0x02;
        _refuseAccusation(IPocVerifier.OpeningPresence.selector, move);
        move[SITE + 1] = 0x7f;
        _refuseAccusation(bytes4(keccak256("NoSuchSite(uint256,uint256)")), move);
    }

    function test_rejects_tensors_outside_the_pack() public {
        _stage(SHAPE_GAME, 0);
        bytes memory move = _move(g, 0);
        move[ROW + 3] = 0x01;
        _refuseAccusation(Merkle.LeafOutside.selector, move);
        _goesOn(0);
    }
}
