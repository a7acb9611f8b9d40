// The plain BLAKE3 gives what the precompiles give: reads vectors/blake3.json, which vectors/src writes.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3, NoSubtree} from "../src/libraries/Blake3.sol";
import {Blake3Node} from "../src/libraries/Blake3Node.sol";
import {Precompiles} from "./Precompiles.sol";

contract Blake3Test is Precompiles {
    bytes32 internal constant KEY = "bitai vectors: a key of 32 bytes";

    string internal json;

    function setUp() public {
        json = vm.readFile("../vectors/blake3.json");
        _installPrecompiles();
    }

    /// So that a refusal can be caught.
    function chainingValue(uint256 chunk, bytes memory data) external pure returns (bytes32) {
        return Blake3.chainingValue(chunk, data);
    }

    function test_Hashes() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at("HASH", i, "")); ++i) {
            bytes memory data = _data(_uint("HASH", i, ".len"));
            bytes32 want = vm.parseJsonBytes32(json, _at("HASH", i, ".hash"));
            assertEq(Blake3.hash(data), want, "hash");
            assertEq(_call(BLAKE3, data), want, "precompile");
            want = vm.parseJsonBytes32(json, _at("HASH", i, ".keyed"));
            assertEq(Blake3.keyed(KEY, data), want, "keyed hash");
            assertEq(_call(BLAKE3_KEYED, abi.encodePacked(KEY, data)), want, "keyed precompile");
        }
        assertEq(i, 26, "hashes read");
    }

    function test_ChainingValues() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at("CV", i, "")); ++i) {
            uint256 chunk = _uint("CV", i, ".chunk");
            bytes memory data = _data(_uint("CV", i, ".len"));
            bytes32 want = vm.parseJsonBytes32(json, _at("CV", i, ".cv"));
            assertEq(Blake3.chainingValue(chunk, data), want, "chaining value");
            assertEq(_call(BLAKE3_CV, abi.encodePacked(_le(chunk), data)), want, "precompile");
        }
        assertEq(i, 12, "chaining values read");
    }

    function test_RejectsSubtreesThatNoInputHas() public {
        uint256 i;
        for (; vm.keyExistsJson(json, _at("NONE", i, "")); ++i) {
            uint256 chunk = _uint("NONE", i, ".chunk");
            uint256 len = _uint("NONE", i, ".len");
            bytes memory data = _data(len);
            vm.expectRevert(abi.encodeWithSelector(NoSubtree.selector, chunk, len));
            this.chainingValue(chunk, data);
            (bool ok,) = BLAKE3_CV.staticcall(abi.encodePacked(_le(chunk), data));
            assertTrue(!ok, "the precompile refuses it too");
        }
        assertEq(i, 6, "refusals read");
        (bool short,) = BLAKE3_KEYED.staticcall(new bytes(31));
        assertTrue(!short, "shorter than a key");
    }

    function test_Parents() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at("PARENT", i, "")); ++i) {
            bytes32 left = vm.parseJsonBytes32(json, _at("PARENT", i, ".left"));
            bytes32 right = vm.parseJsonBytes32(json, _at("PARENT", i, ".right"));
            bytes32 want = vm.parseJsonBytes32(json, _at("PARENT", i, ".root"));
            assertEq(Blake3.parent(left, right, true), want, "root");
            assertEq(
                Blake3Node.parent(left, right, true), want, "the contracts' call of the precompile, root"
            );
            want = vm.parseJsonBytes32(json, _at("PARENT", i, ".cv"));
            assertEq(Blake3.parent(left, right, false), want, "chaining value");
            assertEq(Blake3Node.parent(left, right, false), want, "the contracts' call of the precompile");
        }
        assertEq(i, 10, "parents read");
    }

    function test_RejectsWhatIsNoFlagAndTwoValues() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at("NO_PARENT", i, "")); ++i) {
            (bool ok,) = BLAKE3_PARENT.staticcall(vm.parseJsonBytes(json, _at("NO_PARENT", i, ".input")));
            assertTrue(!ok, "refused");
        }
        assertEq(i, 7, "refusals read");
    }

    function testFuzz_SubtreesMergeIntoTheHash(bytes memory seed, uint256 length) public pure {
        length = bound(length, 1025, 5000);
        bytes memory data = _data(length);
        for (uint256 i; i < seed.length && i < length; ++i) {
            data[i * 7 % length] = seed[i];
        }
        uint256 left = 1024;
        while (left * 2 < length) left *= 2;
        bytes32 a = Blake3.chainingValue(0, _slice(data, 0, left));
        bytes32 b = Blake3.chainingValue(left / 1024, _slice(data, left, length - left));
        assertEq(Blake3.parent(a, b, true), Blake3.hash(data), "root");
        assertEq(Blake3.parent(a, b, false), Blake3.chainingValue(0, data), "chaining value");
    }

    function _slice(bytes memory data, uint256 from, uint256 len) private pure returns (bytes memory part) {
        part = new bytes(len);
        for (uint256 i; i < len; ++i) {
            part[i] = data[from + i];
        }
    }

    function _data(uint256 len) private pure returns (bytes memory data) {
        data = new bytes(len);
        for (uint256 i; i < len; ++i) {
            data[i] = bytes1(uint8(i % 251));
        }
    }

    function _le(uint256 x) private pure returns (bytes memory out) {
        out = new bytes(8);
        for (uint256 i; i < 8; ++i) {
            out[i] = bytes1(uint8(x >> (8 * i)));
        }
    }

    function _call(address to, bytes memory input) private view returns (bytes32) {
        (bool ok, bytes memory out) = to.staticcall(input);
        assertTrue(ok && out.length == 32, "call");
        return bytes32(out);
    }

    function _at(string memory rule, uint256 i, string memory field) private pure returns (string memory) {
        return string.concat(".rules.", rule, "[", vm.toString(i), "]", field);
    }

    function _uint(string memory rule, uint256 i, string memory field) private view returns (uint256) {
        return vm.parseJsonUint(json, _at(rule, i, field));
    }
}
