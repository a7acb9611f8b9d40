// ModelRegistry: what it keeps, every refusal, and the bond's way back.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IModelRegistry, Model} from "../src/interfaces/IModelRegistry.sol";
import {Base} from "./Base.sol";

/// Owns a model and refuses coins.
contract Refuser {
    function register(IModelRegistry r, bytes32 root) external payable {
        r.register{value: msg.value}(root, 0, 1, 1, "u", 0);
    }

    function retire(IModelRegistry r, bytes32 root) external {
        r.retire(root);
    }

    function withdraw(IModelRegistry r, bytes32 root) external {
        r.withdrawBond(root);
    }
}

contract ModelRegistryTest is Base {
    bytes32 internal constant OTHER = keccak256("other");

    // The bond comes back here.
    receive() external payable {}

    function test_KeepsWhatWasRegistered() public view {
        Model memory m = registry.model(MODEL);
        assertEq(m.owner, address(this), "owner");
        assertEq(m.vocab, VOCAB, "vocab");
        assertEq(m.context, CONTEXT, "context");
        assertEq(m.specVersion, 0, "spec");
        assertEq(m.bond, 1 ether, "bond");
        assertEq(m.registeredAt, 100, "height");
        assertEq(m.sourceHash, keccak256("source"), "source");
        assertEq(keccak256(bytes(m.uri)), keccak256("pack://here"), "uri");
        assertEq(registry.modelsCount(), 1, "count");
        assertEq(registry.modelAt(0), MODEL, "at");
        assertTrue(registry.exists(MODEL) && !registry.exists(OTHER), "exists");
    }

    function test_RefusesADuplicate() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelExists.selector, MODEL));
        registry.register{value: 1 ether}(MODEL, 0, 5, 5, "u", 0);
    }

    function test_RefusesAnotherBond() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.WrongBond.selector, 1 ether - 1, 1 ether));
        registry.register{value: 1 ether - 1}(OTHER, 0, 5, 5, "u", 0);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.WrongBond.selector, 1 ether + 1, 1 ether));
        registry.register{value: 1 ether + 1}(OTHER, 0, 5, 5, "u", 0);
    }

    function test_RefusesAnEmptyModel() public {
        _expect(IModelRegistry.EmptyModel.selector);
        registry.register{value: 1 ether}(0, 0, 5, 5, "u", 0);
        _expect(IModelRegistry.EmptyModel.selector);
        registry.register{value: 1 ether}(OTHER, 0, 0, 5, "u", 0);
        _expect(IModelRegistry.EmptyModel.selector);
        registry.register{value: 1 ether}(OTHER, 0, 5, 0, "u", 0);
    }

    function test_RefusesAUriOfTheWrongLength() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BadUri.selector, 0));
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, "", 0);
        string memory long = string(new bytes(257));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BadUri.selector, 257));
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, long, 0);
        registry.register{value: 1 ether}(OTHER, 0, 5, 5, string(new bytes(256)), 0);
    }

    function test_RefusesAnUnknownModel() public {
        bytes memory unknown = abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, OTHER);
        vm.expectRevert(unknown);
        registry.model(OTHER);
        vm.expectRevert(unknown);
        registry.limits(OTHER);
        vm.expectRevert(unknown);
        registry.retire(OTHER);
        vm.expectRevert(unknown);
        registry.withdrawBond(OTHER);
    }

    function test_OnlyTheOwnerRetiresAndWithdraws() public {
        bytes memory notOwner =
            abi.encodeWithSelector(IModelRegistry.NotModelOwner.selector, payer, address(this));
        vm.expectRevert(notOwner);
        vm.prank(payer);
        registry.retire(MODEL);
        vm.expectRevert(notOwner);
        vm.prank(payer);
        registry.withdrawBond(MODEL);
    }

    function test_TheBondComesBackOnceAfterItsDelay() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BondLocked.selector, 0));
        registry.withdrawBond(MODEL);
        registry.retire(MODEL);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.AlreadyRetired.selector, MODEL));
        registry.retire(MODEL);
        (bool active,,,) = registry.limits(MODEL);
        assertTrue(!active, "retired");
        _skip(19);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BondLocked.selector, 120));
        registry.withdrawBond(MODEL);
        _skip(1);
        uint256 before = address(this).balance;
        registry.withdrawBond(MODEL);
        assertEq(address(this).balance, before + 1 ether, "bond back");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NoBond.selector, MODEL));
        registry.withdrawBond(MODEL);
        // The numbers stay: old jobs mean what they meant, and nobody registers the root again.
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelExists.selector, MODEL));
        registry.register{value: 1 ether}(MODEL, 0, 5, 5, "u", 0);
    }

    function test_AnOwnerThatRefusesCoinsKeepsItsBondWaiting() public {
        Refuser r = new Refuser();
        r.register{value: 1 ether}(registry, OTHER);
        r.retire(registry, OTHER);
        _skip(20);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.BondRefused.selector, address(r)));
        r.withdraw(registry, OTHER);
        assertEq(registry.model(OTHER).bond, 1 ether, "still there");
    }
}
