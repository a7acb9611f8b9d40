// Openings that do not count, where recorded games hold none: the verifier's readers, called with chosen bytes.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3} from "../src/libraries/Blake3.sol";
import {Blake3Node} from "../src/libraries/Blake3Node.sol";
import {Blob} from "../src/libraries/Blob.sol";
import {Commitment, Dispute} from "../src/base/Published.sol";
import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {IProgramBook} from "../src/interfaces/IProgramBook.sol";
import {IWorkerHub} from "../src/interfaces/IWorkerHub.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {PocVerifier} from "../src/PocVerifier.sol";
import {Reader, Wire} from "../src/libraries/Wire.sol";
import {StepCall} from "../src/libraries/StepCall.sol";
import {Want} from "../src/base/Openings.sol";
import {GameStage} from "./GameStage.sol";

/// A verifier whose readers of openings can be called.
contract OpenVerifier is PocVerifier {
    using Wire for Reader;

    constructor(IWorkerHub hub, IProgramBook book, uint32 clock, address governor, uint96 price, uint96 most)
        PocVerifier(hub, book, clock, governor, price, most)
    {}

    /// A site's commitment, opened.
    function opened(bytes32 claim, uint256 pos, uint32 site, bytes calldata opening)
        external
        view
        returns (Commitment memory c)
    {
        Dispute memory d = _dispute(claim);
        Reader memory r = Wire.open(opening);
        c = _opened(d, pos, site, _site(d, site), r);
        r.done();
    }

    /// Elements of a tensor, opened.
    function tensor(bytes32 claim, Want calldata want, bytes calldata opening)
        external
        view
        returns (bytes memory)
    {
        return _tensor(_dispute(claim), want, Wire.open(opening));
    }

    /// Keeps bytes as code.
    function put(uint256 length) external returns (address) {
        return Blob.put(new bytes(length));
    }
}

contract OpeningErrorsTest is GameStage {
    /// Where the root of unit 0 stands in the answer of a token that samples nothing: body, flag, number of layers, two KV
    /// rows, an out row behind the second; then the roots.
    uint256 private constant FIRST_ROOT = 32 + 32 + 1 + 2 + 33 + 33 + 32;

    /// A verifier with its readers open. Not by `new`, which would put all of its code into this contract, and more than
    /// code may have.
    function _openVerifier() private returns (OpenVerifier) {
        bytes memory args = abi.encode(hub, book, CLOCK, governor, WEI_PER_BYTE, WEI_PER_BYTE * 10);
        bytes memory code = bytes.concat(vm.getCode("OpeningErrors.t.sol:OpenVerifier"), args);
        address open;
        assembly ("memory-safe") {
            open := create(0, add(code, 32), mload(code))
        }
        assertTrue(open != address(0), "an open verifier");
        return OpenVerifier(open);
    }

    /// The same contract with its readers open, over the same storage.
    function _opened() private returns (OpenVerifier) {
        vm.etch(address(poc), address(_openVerifier()).code);
        return OpenVerifier(address(poc));
    }

    /// Plays up to the token, whose answer says `root` of unit 0, in which the embedding lies alone.
    function _withRoot(bytes32 root) private returns (OpenVerifier) {
        _stage(SUM_GAME, 3);
        bytes memory token = _move(g, 3);
        if (root != 0) {
            assembly ("memory-safe") {
                mstore(add(add(token, 32), FIRST_ROOT), root)
            }
        }
        vm.prank(neuron);
        _here[g.ids[3]] = poc.answer(token);
        return _opened();
    }

    /// The leaf of site 0 with a commitment: its kind and a hash.
    function _leaf(uint32 kind, bytes32 hash) private pure returns (bytes32) {
        return Blake3.hash(bytes.concat(bytes16("bitai/inner/v0"), _le(0), _le(kind), hash));
    }

    function test_AnInputOfAnotherUnitIsOpenedUnderItsRoot() public {
        OpenVerifier open = _withRoot(_leaf(0, "row"));
        Commitment memory c =
            open.opened(claim, 5, 0, abi.encodePacked(uint8(0), bytes32("row"), uint16(0x0100)));
        assertEq(c.data, "row", "its hash");
    }

    function test_rejects_an_input_of_another_unit_without_its_path() public {
        OpenVerifier open = _withRoot(_leaf(0, "row"));
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.PathMissing.selector, 0));
        open.opened(claim, 5, 0, abi.encodePacked(uint8(0), bytes32("row"), uint8(0)));
    }

    function test_rejects_an_input_that_is_not_the_committed_one() public {
        OpenVerifier open = _withRoot(_leaf(0, "row"));
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.WrongInput.selector, 0));
        open.opened(claim, 5, 0, abi.encodePacked(uint8(0), bytes32("another"), uint16(0x0100)));
        vm.expectPartialRevert(Merkle.PathLength.selector);
        open.opened(claim, 5, 0, abi.encodePacked(uint8(0), bytes32("row"), uint16(0x0101), bytes32(0)));
        vm.expectPartialRevert(IPocVerifier.BadCommitment.selector);
        open.opened(claim, 5, 0, abi.encodePacked(uint8(9), bytes32("row"), uint16(0x0100)));
        vm.expectPartialRevert(Wire.MoveTooShort.selector);
        open.opened(claim, 5, 0, abi.encodePacked(uint8(0), bytes31("row")));
    }

    function test_rejects_an_input_of_another_kind_than_the_programs() public {
        OpenVerifier open = _withRoot(_leaf(2, "row"));
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.InputKind.selector, 0, 2));
        open.opened(claim, 5, 0, abi.encodePacked(uint8(2), bytes32("row"), uint16(0x0100)));
    }

    function test_rejects_a_tensor_of_another_type_or_shape() public {
        // A norm's gains that are two short, with their line and path.
        _stage(67, 0);
        bytes memory move = _move(g, 0);
        bytes memory line = new bytes(move.length - 41);
        for (uint256 i = 0; i < line.length; ++i) {
            line[i] = move[41 + i];
        }
        uint32 id = uint32(uint8(move[37]));
        OpenVerifier open = _opened();
        bytes memory why = abi.encodeWithSelector(IPocVerifier.TensorShape.selector, id);
        vm.expectRevert(why);
        open.tensor(claim, Want(id, 3, 1, 64, 0, 1), line);
        vm.expectRevert(why);
        open.tensor(claim, Want(id, 4, 1, 62, 0, 1), line);
        vm.expectRevert(why);
        open.tensor(claim, Want(id, 3, 2, 62, 0, 1), line);
        // Of the right shape, and no range behind it.
        vm.expectPartialRevert(Wire.MoveTooShort.selector);
        open.tensor(claim, Want(id, 3, 1, 62, 0, 1), line);
    }

    // --- what stands under the verifier --------------------------------------------------------

    function test_rejects_moves_on_a_chain_without_the_precompiles() public {
        _stage(SUM_GAME, 10);
        vm.etch(TENSOR_STEP, "");
        _refuseAccusation(StepCall.NoStepResult.selector, _move(g, 10));
        vm.etch(BLAKE3_CV, "");
        vm.etch(BLAKE3, "");
        _refuseAccusation(Blake3Node.NoBlake3.selector, _move(g, 10));
        _installPrecompiles();
        _goesOn(10);
    }

    function test_rejects_bytes_that_no_account_can_hold() public {
        OpenVerifier open = _openVerifier();
        open.put(1000);
        vm.expectRevert(abi.encodeWithSelector(Blob.BlobRefused.selector, 200_000));
        open.put(200_000);
    }

    function test_rejects_settings_that_make_no_sense() public {
        _refuseSettings(
            abi.encode(address(0), book, CLOCK, governor, 0, 0),
            abi.encodeWithSelector(IPocVerifier.BadSetting.selector, "hub")
        );
        _refuseSettings(
            abi.encode(hub, address(1), CLOCK, governor, 0, 0),
            abi.encodeWithSelector(IPocVerifier.BadSetting.selector, "book")
        );
        _refuseSettings(
            abi.encode(hub, book, 0, governor, 0, 0),
            abi.encodeWithSelector(IPocVerifier.BadSetting.selector, "clock")
        );
        _refuseSettings(
            abi.encode(hub, book, CLOCK, governor, 2, 1),
            abi.encodeWithSelector(IPocVerifier.PriceTooHigh.selector, 2, 1)
        );
    }

    /// The creation of a verifier with these arguments reverts for this reason.
    function _refuseSettings(bytes memory args, bytes memory why) private {
        assertEq(_create("PocVerifier", args), address(0), "created");
        bytes memory got;
        assembly ("memory-safe") {
            got := mload(0x40)
            mstore(got, returndatasize())
            returndatacopy(add(got, 32), 0, returndatasize())
            mstore(0x40, add(add(got, 64), returndatasize()))
        }
        assertEq(keccak256(got), keccak256(why), "reason");
    }

    function test_rejects_jobs_of_another_spec() public {
        _keepFor(SUM_GAME);
        g = _recorded(SUM_GAME);
        g.spec.specVersion = 1;
        (jobId, neuron) = _claimedUndisputable(g);
        uint256 bond = poc.bond(g.spec.modelRoot);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.OtherSpec.selector, 1));
        vm.prank(challenger);
        poc.open{value: bond}(jobId, neuron, _fields(g), g.outputs);
    }

    // --- replays -------------------------------------------------------------------------------

    /// The same answer to the same question, in two jobs: what was said about one counts for nothing in the other.
    function test_rejects_moves_replayed_in_another_job() public {
        _stage(SUM_GAME, 6);
        (uint256 other,) = _answeredJob(g);
        bytes32 first = claim;
        bytes memory ask = _move(g, 0);
        bytes memory answer = _move(g, 1);
        bytes memory accusation = _move(g, 10);
        claim = _open(g, other, neuron, second);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.OtherAnswer.selector, first, claim));
        vm.prank(second);
        poc.ask(claim, ask);
        vm.expectPartialRevert(IPocVerifier.NotAsked.selector);
        vm.prank(neuron);
        poc.answer(answer);
        vm.expectPartialRevert(IPocVerifier.NotPublished.selector);
        vm.prank(second);
        poc.accuse(claim, accusation);
        // Once the same tree is published here, it still is another one.
        _play(g, claim, neuron, second, 0, 10);
        vm.expectPartialRevert(IPocVerifier.OtherAnswer.selector);
        vm.prank(second);
        poc.accuse(claim, accusation);
        // And the first challenger has no game here.
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.NoGame.selector, claim, challenger));
        vm.prank(challenger);
        poc.accuse(claim, accusation);
        _play(g, claim, neuron, second, 10, 11);
        _whole();
    }

    function test_rejects_bonds_and_coins_of_strangers() public {
        _stage(SUM_GAME, 0);
        address stranger = address(0x57);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.NoGame.selector, claim, stranger));
        poc.timeout(claim, stranger);
        _goesOn(0);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.NoGame.selector, claim, stranger));
        vm.prank(stranger);
        poc.takeBack(claim);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.NothingOwed.selector, stranger));
        vm.prank(stranger);
        poc.withdraw();
    }
}
