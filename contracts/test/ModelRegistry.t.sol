// ModelRegistry: what it keeps, every refusal, and the bond's way back.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IModelRegistry, Model} from "../src/interfaces/IModelRegistry.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {Base} from "./Base.sol";

/// Owns a model and refuses coins.
contract Refuser {
    function register(IModelRegistry r, bytes32 root) external payable returns (bytes32) {
        return r.register{value: msg.value}(root, 0, 1, 1, 0, "u", 0);
    }

    function retire(IModelRegistry r, bytes32 id) external {
        r.retire(id);
    }

    function withdraw(IModelRegistry r, bytes32 id) external {
        r.withdrawBond(id);
    }
}

contract ModelRegistryTest is Base {
    bytes32 internal constant OTHER = keccak256("other");

    // The bond comes back here.
    receive() external payable {}

    function test_KeepsWhatWasRegistered() public view {
        Model memory m = registry.model(MODEL);
        assertEq(m.modelRoot, PACK, "root");
        assertEq(m.owner, address(this), "owner");
        assertEq(m.vocab, VOCAB, "vocab");
        assertEq(m.context, CONTEXT, "context");
        assertEq(m.specVersion, 0, "spec");
        assertEq(m.bond, 1 ether, "bond");
        assertEq(m.registeredAt, 100, "height");
        assertEq(m.sourceHash, keccak256("source"), "source");
        assertEq(keccak256(bytes(m.uri)), keccak256("pack://here"), "uri");
        assertEq(registry.modelsCount(), 2, "count");
        assertEq(registry.modelAt(0), MODEL, "at");
        assertEq(registry.modelAt(1), ENCODER, "the second");
        assertEq(m.words, 0, "it generates");
        assertEq(registry.model(ENCODER).words, WORDS, "it embeds");
        assertTrue(registry.exists(MODEL) && !registry.exists(OTHER), "exists");
    }

    function test_RefusesADuplicate() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelExists.selector, MODEL));
        registry.register{value: 1 ether}(PACK, 0, VOCAB, CONTEXT, 0, "u", 0);
    }

    /// Whoever is first with a root and false numbers takes nothing from whoever comes with the true ones.
    function test_FalseNumbersAreAnotherModel() public {
        bytes32 pack = keccak256("another pack");
        vm.deal(payer, 2 ether);
        vm.prank(payer);
        bytes32 squatted = registry.register{value: 1 ether}(pack, 0, 7, 9, 0, "u", 0);
        bytes32 right = registry.register{value: 1 ether}(pack, 0, VOCAB, CONTEXT, 0, "u", 0);
        assertTrue(squatted != right, "two models");
        assertEq(right, registry.modelIdOf(pack, 0, VOCAB, CONTEXT, 0), "foretold");
        assertEq(registry.model(right).vocab, VOCAB, "the right vocabulary");
        assertEq(registry.model(right).modelRoot, pack, "of the same pack");
        bytes32 wordy = registry.register{value: 1 ether}(pack, 0, VOCAB, CONTEXT, 1, "u", 0);
        assertTrue(wordy != right && registry.active(wordy), "the words count too");
        assertTrue(registry.active(right) && registry.active(squatted), "both take jobs");
    }

    /// Whoever is first with the true numbers cannot close the model for good either.
    function test_ARetiredModelIsRegisteredAgainByAnyone() public {
        registry.retire(MODEL);
        vm.deal(payer, 1 ether);
        vm.prank(payer);
        assertEq(
            registry.register{value: 1 ether}(PACK, 0, VOCAB, CONTEXT, 0, "there", 0), MODEL, "the same id"
        );
        assertTrue(registry.active(MODEL), "takes jobs again");
        assertEq(registry.model(MODEL).owner, payer, "the new owner");
        assertEq(registry.modelsCount(), 2, "listed once");
        // Each gets its own bond back.
        _skip(20);
        uint256 before = address(this).balance;
        registry.withdrawBond(MODEL);
        assertEq(address(this).balance, before + 1 ether, "the first bond");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NoBond.selector, MODEL));
        vm.prank(payer);
        registry.withdrawBond(MODEL);
        vm.prank(payer);
        registry.retire(MODEL);
        _skip(20);
        vm.prank(payer);
        registry.withdrawBond(MODEL);
        assertEq(payer.balance, 1 ether, "the second");
        assertEq(address(registry).balance, 1 ether, "the other model's bond");
    }

    function test_RefusesAnotherBond() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.WrongBond.selector, 1 ether - 1, 1 ether));
        registry.register{value: 1 ether - 1}(OTHER, 0, 5, 5, 0, "u", 0);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.WrongBond.selector, 1 ether + 1, 1 ether));
        registry.register{value: 1 ether + 1}(OTHER, 0, 5, 5, 0, "u", 0);
    }

    function test_RefusesAnEmptyModel() public {
        _expect(IModelRegistry.EmptyModel.selector);
        registry.register{value: 1 ether}(0, 0, 5, 5, 0, "u", 0);
        _expect(IModelRegistry.EmptyModel.selector);
        registry.register{value: 1 ether}(OTHER, 0, 0, 5, 0, "u", 0);
        _expect(IModelRegistry.EmptyModel.selector);
        registry.register{value: 1 ether}(OTHER, 0, 5, 0, 0, "u", 0);
    }

    /// No transaction could reveal what it puts out: its neurons would lose collateral at every job.
    function test_RefusesMoreWordsThanATransactionReveals() public {
        vm.expectRevert(abi.encodeWithSelector(Ids.TooManyOutputs.selector, 98_305, 98_304));
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, 98_305, "u", 0);
        vm.expectRevert(abi.encodeWithSelector(Ids.TooManyOutputs.selector, type(uint32).max, 98_304));
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, type(uint32).max, "u", 0);
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, 98_304, "u", 0);
    }

    function test_RefusesAUriOfTheWrongLength() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BadUri.selector, 0));
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, 0, "", 0);
        string memory long = string(new bytes(257));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BadUri.selector, 257));
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, 0, long, 0);
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, 0, string(new bytes(256)), 0);
    }

    function test_RefusesAnUnknownModel() public {
        bytes memory unknown = abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, OTHER);
        vm.expectRevert(unknown);
        registry.model(OTHER);
        vm.expectRevert(unknown);
        registry.active(OTHER);
        vm.expectRevert(unknown);
        registry.retire(OTHER);
        vm.expectRevert(unknown);
        registry.withdrawBond(OTHER);
    }

    function test_OnlyTheOwnerRetiresAndWithdraws() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotModelOwner.selector, payer, address(this)));
        vm.prank(payer);
        registry.retire(MODEL);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NoBond.selector, MODEL));
        vm.prank(payer);
        registry.withdrawBond(MODEL);
    }

    function test_TheBondComesBackOnceAfterItsDelay() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NoBond.selector, MODEL));
        registry.withdrawBond(MODEL);
        registry.retire(MODEL);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.AlreadyRetired.selector, MODEL));
        registry.retire(MODEL);
        assertTrue(!registry.active(MODEL), "retired");
        (uint256 amount, uint64 freeAt) = registry.retiredBond(MODEL, address(this));
        assertEq(amount, 1 ether, "on its way back");
        assertEq(freeAt, 120, "from there on");
        _skip(19);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BondLocked.selector, 120));
        registry.withdrawBond(MODEL);
        _skip(1);
        uint256 before = address(this).balance;
        registry.withdrawBond(MODEL);
        assertEq(address(this).balance, before + 1 ether, "bond back");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NoBond.selector, MODEL));
        registry.withdrawBond(MODEL);
    }

    function test_AnOwnerThatRefusesCoinsKeepsItsBondWaiting() public {
        Refuser r = new Refuser();
        bytes32 id = r.register{value: 1 ether}(registry, OTHER);
        r.retire(registry, id);
        _skip(20);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BondRefused.selector, address(r)));
        r.withdraw(registry, id);
        (uint256 amount,) = registry.retiredBond(id, address(r));
        assertEq(amount, 1 ether, "still there");
    }
}
