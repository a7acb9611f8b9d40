// The plain steps, installed as the precompile, give what the reference gives: reads vectors/steps.json and the
// vectors of the rules beneath.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3} from "../src/libraries/Blake3.sol";
import {Numbers} from "../src/libraries/Numbers.sol";
import {StepTables} from "../src/libraries/steps/StepTables.sol";
import {Precompiles} from "./Precompiles.sol";

contract TensorStepTest is Precompiles {
    function setUp() public {
        _installPrecompiles();
    }

    function test_Linear() public view {
        _family("linear_part linear_finish weight_bounds");
    }

    function test_Attention() public view {
        _family("key_unit key_score key_share key_sums attention_finish");
    }

    function test_Quantisation() public view {
        _family("magnitude quant_scale quant_element");
    }

    function test_Sampling() public view {
        _family("probability id_sums id_total draw greedy");
    }

    function test_Elements() public view {
        _family("embed add glu act rope kv_record");
    }

    function test_Norms() public view {
        _family("squares rms_element sum centred centred_squares layer_element pool_mean");
    }

    function test_RejectsWhatIsNoStep() public view {
        bytes[] memory inputs = vm.parseJsonBytesArray(vm.readFile("../vectors/steps.json"), ".rules.refused");
        assertTrue(inputs.length > 90, "inputs read");
        for (uint256 i; i < inputs.length; ++i) {
            (bool ok,) = TENSOR_STEP.staticcall(inputs[i]);
            assertTrue(!ok, vm.toString(i));
        }
    }

    /// forge-config: default.fuzz.runs = 10000
    function testFuzz_AnyBytesAreAResultOrARefusal(uint8 kind, bytes memory rest) public view {
        (bool ok, bytes memory why) = TENSOR_STEP.staticcall(bytes.concat(bytes1(0x10 + kind % 0x58), rest));
        // One of the steps' own errors, never a panic.
        assertTrue(ok || (why.length >= 36 && bytes4(why) != 0x4e487b71), "a panic");
    }

    function test_Numbers() public view {
        string memory json = vm.readFile("../vectors/numbers.json");
        uint256 i;
        for (; vm.keyExistsJson(json, _at("N1", i, "")); ++i) {
            int256 got = Numbers.rsr(
                vm.parseJsonInt(json, _at("N1", i, ".x")), vm.parseJsonInt(json, _at("N1", i, ".s"))
            );
            assertTrue(got == vm.parseJsonInt(json, _at("N1", i, ".out")), "N1");
        }
        assertTrue(i > 100, "N1 read");
        for (i = 0; vm.keyExistsJson(json, _at("N4", i, "")); ++i) {
            uint256 x = vm.parseJsonUint(json, _at("N4", i, ".x"));
            assertEq(Numbers.isqrt(x), vm.parseJsonUint(json, _at("N4", i, ".out")), "N4");
        }
        assertTrue(i > 5, "N4 read");
        json = vm.readFile("../vectors/exponential.json");
        for (i = 0; vm.keyExistsJson(json, _at("X1", i, "")); ++i) {
            uint256 z = vm.parseJsonUint(json, _at("X1", i, ".z"));
            uint256 got = Numbers.exp2(z, vm.parseJsonUint(json, _at("X1", i, ".f")));
            assertEq(got, vm.parseJsonUint(json, _at("X1", i, ".out")), "X1");
        }
        assertTrue(i > 100, "X1 read");
    }

    function test_Tables() public view {
        string memory json = vm.readFile("../vectors/tables.json");
        uint256[] memory sigmoid = vm.parseJsonUintArray(json, ".rules.SIGMOID[0]");
        uint256[] memory phi = vm.parseJsonUintArray(json, ".rules.PHI[0]");
        assertEq(sigmoid.length, 513, "entries");
        for (uint256 i; i < 513; ++i) {
            assertEq(uint256(StepTables.at_(StepTables.SIGMOID, i)), sigmoid[i], "sigmoid");
            assertEq(uint256(StepTables.at_(StepTables.PHI, i)), phi[i], "phi");
        }
    }

    /// Inner nodes of a tree, as every commitment of a trace is hashed.
    function test_Nodes() public view {
        string memory json = vm.readFile("../vectors/rows.json");
        uint256 i;
        for (; vm.keyExistsJson(json, _at("NODE", i, "")); ++i) {
            bytes memory node = bytes.concat(
                "bitai/node/v0\x00\x00\x00",
                _le4(vm.parseJsonUint(json, _at("NODE", i, ".height"))),
                _le4(vm.parseJsonUint(json, _at("NODE", i, ".leaves"))),
                vm.parseJsonBytes32(json, _at("NODE", i, ".left")),
                vm.parseJsonBytes32(json, _at("NODE", i, ".right"))
            );
            assertEq(Blake3.hash(node), vm.parseJsonBytes32(json, _at("NODE", i, ".node")), "node");
        }
        assertTrue(i > 0, "nodes read");
    }

    /// Cached rows, put together from their heads' records and gaps.
    function test_CachedRows() public view {
        string memory json = vm.readFile("../vectors/rows.json");
        uint256 i;
        for (; vm.keyExistsJson(json, _at("KV", i, "")); ++i) {
            uint256 heads = vm.parseJsonUint(json, _at("KV", i, ".heads"));
            uint256[] memory offsets = vm.parseJsonUintArray(json, _at("KV", i, ".offsets"));
            bytes memory row;
            for (uint256 h; h < heads; ++h) {
                (bool ok, bytes memory out) = TENSOR_STEP.staticcall(_record(json, i, heads, h));
                assertTrue(ok, "step");
                assertEq(row.length, offsets[h], "offset");
                bytes memory rest = new bytes(out.length - 4);
                for (uint256 j; j < rest.length; ++j) {
                    rest[j] = out[j + 4];
                }
                assertEq(uint32(bytes4(out)), uint32(_le4(row.length)), "where it starts");
                row = bytes.concat(row, rest);
            }
            bytes memory want = vm.parseJsonBytes(json, _at("KV", i, ".row"));
            assertEq(keccak256(row), keccak256(want), "row");
        }
        assertEq(i, 4, "rows read");
    }

    /// The step's input for head `h` of case `i`.
    function _record(string memory json, uint256 i, uint256 heads, uint256 h)
        private
        pure
        returns (bytes memory)
    {
        uint256 d = vm.parseJsonUint(json, _at("KV", i, ".head_dim"));
        int256[] memory s =
            vm.parseJsonIntArray(json, _at("KV", i, string.concat(".scales[", vm.toString(h), "]")));
        // Mantissa and exponent, little-endian; K's scale is V's here.
        bytes memory scale = bytes.concat(
            bytes1(uint8(uint256(s[0]))),
            bytes1(uint8(uint256(s[0]) >> 8)),
            bytes1(uint8(uint256(s[1]))),
            bytes1(uint8(uint256(s[1]) >> 8))
        );
        bytes memory head = bytes.concat(
            bytes1(0x55), _le2(d), _le2(heads), _le2(h), _ints(json, _at("KV", i, ".k"), h * d, d), scale
        );
        return bytes.concat(head, _ints(json, _at("KV", i, ".v"), h * d, d), scale);
    }

    function _ints(string memory json, string memory key, uint256 from, uint256 n)
        private
        pure
        returns (bytes memory out)
    {
        int256[] memory all = vm.parseJsonIntArray(json, key);
        out = new bytes(n);
        for (uint256 i; i < n; ++i) {
            out[i] = bytes1(uint8(int8(all[from + i])));
        }
    }

    function _le2(uint256 x) private pure returns (bytes2) {
        return bytes2(uint16((x << 8) | (x >> 8 & 0xff)));
    }

    /// Every case of the kinds named.
    function _family(bytes memory names) private view {
        string memory json = vm.readFile("../vectors/steps.json");
        uint256 from;
        for (uint256 i; i <= names.length; ++i) {
            if (i < names.length && names[i] != " ") continue;
            bytes memory name = new bytes(i - from);
            for (uint256 j; j < name.length; ++j) {
                name[j] = names[from + j];
            }
            from = i + 1;
            bytes[] memory cases = vm.parseJsonBytesArray(json, string.concat(".rules.", string(name)));
            assertTrue(cases.length >= 36, string(name));
            for (uint256 c; c < cases.length; c += 2) {
                (bool ok, bytes memory out) = TENSOR_STEP.staticcall(cases[c]);
                string memory what = string.concat(string(name), " ", vm.toString(c / 2));
                assertTrue(ok, what);
                assertEq(keccak256(out), keccak256(cases[c + 1]), what);
            }
        }
    }

    function _le4(uint256 x) private pure returns (bytes4) {
        x = ((x & 0xff00ff) << 8) | ((x >> 8) & 0xff00ff);
        return bytes4(uint32((x << 16) | (x >> 16)));
    }

    function _at(string memory rule, uint256 i, string memory field) private pure returns (string memory) {
        return string.concat(".rules.", rule, "[", vm.toString(i), "]", field);
    }
}
