// Bytes of any length kept as code, and claims of the longest outputs that the hub takes.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Claim} from "../src/interfaces/IPocVerifier.sol";
import {IProgramBook, Model} from "../src/interfaces/IProgramBook.sol";
import {LongBlob} from "../src/libraries/LongBlob.sol";
import {GameBase, Recorded} from "./GameBase.sol";

contract LongBlobTest is GameBase {
    /// Ids 0 to n - 1, below a vocabulary of 300 each.
    function _ids(uint256 n) private pure returns (bytes memory out) {
        out = new bytes(n * 4);
        for (uint256 i = 0; i < n; ++i) {
            uint256 id = i % 300;
            assembly ("memory-safe") {
                let spot := add(add(out, 32), mul(i, 4))
                mstore8(spot, and(id, 255))
                mstore8(add(spot, 1), shr(8, id))
            }
        }
    }

    function _readsBack(address where, bytes memory data, uint256 spot, uint256 len) private view {
        bytes memory got = LongBlob.read(where, data.length, spot, len);
        assertEq(got.length, len, "length");
        for (uint256 i = 0; i < len; ++i) {
            assertEq(uint8(got[i]), uint8(data[spot + i]), "byte");
        }
    }

    function test_KeepsBytesOfAnyLength() public {
        uint256 part = LongBlob.PART;
        uint256[5] memory lengths = [uint256(4), part, part + 4, 2 * part, 393_216];
        for (uint256 i = 0; i < 5; ++i) {
            bytes memory data = _ids(lengths[i] / 4);
            address where = LongBlob.put(data);
            for (uint256 spot = 0; spot < data.length; spot += part) {
                _readsBack(where, data, spot, 4);
                if (spot != 0) _readsBack(where, data, spot - 4, 4);
                if (spot != 0) _readsBack(where, data, spot - 120, 120);
            }
            _readsBack(where, data, data.length - 4, 4);
        }
    }

    /// The book says that the recorded model's context is long enough, so that a job of `n` new ids fits it.
    function _longClaim(uint32 n) private returns (Recorded memory g, bytes32 claim) {
        _keepFor(0);
        g = _recorded(0);
        Model memory m = book.model(g.spec.modelRoot);
        m.context = 131_072;
        vm.mockCall(address(book), abi.encodeCall(IProgramBook.model, (g.spec.modelRoot)), abi.encode(m));
        g.spec.context = m.context;
        g.spec.maxNew = n;
        g.outputs = _ids(n);
        (uint256 jobId, address neuron) = _claimed(g);
        claim = _open(g, jobId, neuron, challenger);
    }

    function test_OpensClaimsOfTheLongestOutputsThatTheHubTakes() public {
        uint32[2] memory counts = [uint32(32_768), 98_304];
        for (uint256 i = 0; i < 2; ++i) {
            uint256 before = vm.snapshotState();
            (Recorded memory g, bytes32 claim) = _longClaim(counts[i]);
            Claim memory c = poc.claimOf(claim);
            assertEq(c.outputs, counts[i], "outputs");
            _readsBack(c.outputIds, g.outputs, g.outputs.length - 4, 4);
            _readsBack(c.outputIds, g.outputs, 131_040, 4);
            assertTrue(vm.revertToState(before), "state");
        }
    }
}
