// What each step costs in plain Solidity and as the chain's precompile (docs/spec/chain.md): snapshots/Steps.json
// keeps the figures, the call itself left out, CI compares. The inputs are the longest typical ones of the vectors.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Precompiles} from "./Precompiles.sol";

/// Measures a call inside one transaction.
contract Meter {
    function gasOf(address to, bytes calldata input) external view returns (uint256 used) {
        bytes memory data = input;
        used = gasleft();
        (bool ok,) = to.staticcall(data);
        used -= gasleft();
        require(ok);
    }
}

contract StepGasTest is Precompiles {
    Meter internal meter;

    function setUp() public {
        _installPrecompiles();
        meter = new Meter();
    }

    function test_GasOfSteps() public {
        string memory json = vm.readFile("../vectors/steps.json");
        _measure(json, "linear_part");
        _measure(json, "linear_finish");
        _measure(json, "weight_bounds");
        _measure(json, "key_unit");
        _measure(json, "key_score");
        _measure(json, "key_share");
        _measure(json, "key_sums");
        _measure(json, "attention_finish");
        _measure(json, "magnitude");
        _measure(json, "quant_scale");
        _measure(json, "quant_element");
        _measure(json, "probability");
        _measure(json, "id_sums");
        _measure(json, "id_total");
        _measure(json, "draw");
        _measure(json, "greedy");
        _measure(json, "embed");
        _measure(json, "add");
        _measure(json, "glu");
        _measure(json, "act");
        _measure(json, "rope");
        _measure(json, "kv_record");
        _measure(json, "squares");
        _measure(json, "rms_element");
        _measure(json, "sum");
        _measure(json, "centred");
        _measure(json, "centred_squares");
        _measure(json, "layer_element");
        _measure(json, "pool_mean");
    }

    function test_GasOfHashes() public {
        _hash(64);
        _hash(1024);
        _hash(4096);
        _put("BLAKE3_PARENT", BLAKE3_PARENT, new bytes(65), 60 + 6 * 3);
    }

    function _hash(uint256 length) private {
        string memory name = string.concat("BLAKE3, ", vm.toString(length), " bytes");
        _put(name, BLAKE3, new bytes(length), 60 + 6 * ((length + 31) / 32));
    }

    function _measure(string memory json, string memory name) private {
        bytes[] memory cases = vm.parseJsonBytesArray(json, string.concat(".rules.", name));
        bytes memory longest;
        // The first six are typical.
        for (uint256 c; c < 12; c += 2) {
            if (cases[c].length > longest.length) longest = cases[c];
        }
        name = string.concat(name, ", ", vm.toString(longest.length), " bytes");
        _put(name, TENSOR_STEP, longest, 100 + 12 * ((longest.length + 31) / 32));
    }

    function _put(string memory name, address to, bytes memory input, uint256 precompile) private {
        vm.snapshotValue("Steps", string.concat(name, ", plain"), meter.gasOf(to, input));
        vm.snapshotValue("Steps", string.concat(name, ", precompile"), precompile);
    }
}
