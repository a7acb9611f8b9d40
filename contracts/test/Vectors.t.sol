// The contracts compute what Rust computes: reads vectors/job.json, which contracts/bindings writes.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {JobSpec} from "../src/interfaces/IWorkerHub.sol";
import {Batch} from "../src/libraries/Batch.sol";
import {Beacon} from "../src/libraries/Beacon.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {WorkerHub} from "../src/WorkerHub.sol";
import {Base} from "./Base.sol";

contract VectorsTest is Base {
    string internal json;

    function setUp() public override {
        super.setUp();
        json = vm.readFile("../vectors/job.json");
    }

    /// So that a refusal can be caught.
    function checkOutput(bytes calldata out, bytes memory stops, uint32 maxNew, uint32 vocab) external pure {
        Ids.checkOutput(out, stops, maxNew, vocab);
    }

    function checkWords(bytes calldata out, uint32 words) external pure {
        Ids.checkWords(out, words);
    }

    function test_JobHashes() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at(".jobs", i, "")); ++i) {
            JobSpec memory s = JobSpec({
                modelRoot: vm.parseJsonBytes32(json, _at(".jobs", i, ".modelRoot")),
                specVersion: _u32(".jobs", i, ".specVersion"),
                // No part of the hash: they follow from the root.
                vocab: uint32(i),
                context: uint32(i),
                words: uint32(i),
                maxNew: _u32(".jobs", i, ".maxNew"),
                temperatureQ16: _u32(".jobs", i, ".temperatureQ16"),
                topK: _u32(".jobs", i, ".topK"),
                topPQ16: _u32(".jobs", i, ".topPQ16"),
                seed: uint64(vm.parseJsonUint(json, _at(".jobs", i, ".seed"))),
                inputIds: vm.parseJsonBytes(json, _at(".jobs", i, ".inputIds")),
                stopIds: vm.parseJsonBytes(json, _at(".jobs", i, ".stopIds"))
            });
            assertEq(hub.hashJob(s), vm.parseJsonBytes32(json, _at(".jobs", i, ".hash")), "job hash");
        }
        assertEq(i, 5, "jobs read");
    }

    function test_ModelIds() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at(".models", i, "")); ++i) {
            bytes32 id = registry.modelIdOf(
                vm.parseJsonBytes32(json, _at(".models", i, ".modelRoot")),
                _u32(".models", i, ".specVersion"),
                _u32(".models", i, ".vocab"),
                _u32(".models", i, ".context"),
                _u32(".models", i, ".words")
            );
            assertEq(id, vm.parseJsonBytes32(json, _at(".models", i, ".id")), "model id");
        }
        assertEq(i, 3, "models read");
    }

    function test_CommitHashes() public {
        uint256 i;
        for (; vm.keyExistsJson(json, _at(".commits", i, "")); ++i) {
            address where = vm.parseJsonAddress(json, _at(".commits", i, ".hub"));
            vm.etch(where, address(hub).code);
            vm.chainId(vm.parseJsonUint(json, _at(".commits", i, ".chainId")));
            bytes32 got = WorkerHub(where)
                .hashCommit(
                    vm.parseJsonUint(json, _at(".commits", i, ".jobId")),
                    vm.parseJsonAddress(json, _at(".commits", i, ".sender")),
                    vm.parseJsonBytes32(json, _at(".commits", i, ".salt")),
                    vm.parseJsonBytes32(json, _at(".commits", i, ".traceRoot")),
                    vm.parseJsonBytes32(json, _at(".commits", i, ".outputHash"))
                );
            assertEq(got, vm.parseJsonBytes32(json, _at(".commits", i, ".hash")), "commit hash");
        }
        assertEq(i, 3, "commits read");
    }

    /// So that lists are in calldata.
    function readJobs(bytes calldata jobs) external pure returns (uint256[] memory) {
        return Batch.ids(jobs);
    }

    function readRoot(bytes32[] memory leaves, uint256 height, uint256 node, bytes32[] calldata path)
        external
        pure
        returns (bytes32)
    {
        return Batch.root(leaves, height, node, path);
    }

    function test_Batches() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at(".batches", i, "")); ++i) {
            uint256[] memory ids = vm.parseJsonUintArray(json, _at(".batches", i, ".jobs"));
            uint256[] memory read = this.readJobs(vm.parseJsonBytes(json, _at(".batches", i, ".packed")));
            assertEq(keccak256(abi.encode(read)), keccak256(abi.encode(ids)), "jobs");
            _checkTree(i, ids.length);
        }
        assertEq(i, 5, "batches read");
    }

    /// The root above all leaves, and above the last one by its path.
    function _checkTree(uint256 i, uint256 n) private view {
        bytes32 root = vm.parseJsonBytes32(json, _at(".batches", i, ".root"));
        bytes32[] memory leaves = vm.parseJsonBytes32Array(json, _at(".batches", i, ".leaves"));
        bytes32[] memory last = new bytes32[](1);
        last[0] = leaves[n - 1];
        uint256 h = Batch.levels(n);
        assertEq(this.readRoot(leaves, h, 1, new bytes32[](0)), root, "root");
        uint256 place = vm.parseJsonUint(json, _at(".batches", i, ".leaf"));
        assertEq(place, (uint256(1) << h) + n - 1, "place");
        bytes32[] memory path = vm.parseJsonBytes32Array(json, _at(".batches", i, ".path"));
        assertEq(this.readRoot(last, 0, place, path), root, "root above the last leaf");
    }

    function test_Draws() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at(".draws", i, "")); ++i) {
            bytes32 beacon = Beacon.value(
                vm.parseJsonBytes32(json, _at(".draws", i, ".header")),
                vm.parseJsonUint(json, _at(".draws", i, ".jobId")),
                vm.parseJsonUint(json, _at(".draws", i, ".attempt"))
            );
            assertEq(beacon, vm.parseJsonBytes32(json, _at(".draws", i, ".beacon")), "beacon");
            uint256 ticket = Beacon.ticket(beacon, vm.parseJsonAddress(json, _at(".draws", i, ".neuron")));
            assertEq(bytes32(ticket), vm.parseJsonBytes32(json, _at(".draws", i, ".ticket")), "ticket");
        }
        assertEq(i, 3, "draws read");
    }

    function test_OutputsAreJudgedAlike() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at(".outputs", i, "")); ++i) {
            bool good;
            try this.checkOutput(
                vm.parseJsonBytes(json, _at(".outputs", i, ".output")),
                vm.parseJsonBytes(json, _at(".outputs", i, ".stopIds")),
                _u32(".outputs", i, ".maxNew"),
                _u32(".outputs", i, ".vocab")
            ) {
                good = true;
            } catch {}
            assertTrue(good == vm.parseJsonBool(json, _at(".outputs", i, ".answers")), vm.toString(i));
        }
        assertEq(i, 14, "outputs read");
    }

    function test_WordsAreJudgedAlike() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at(".words", i, "")); ++i) {
            bool good;
            try this.checkWords(
                vm.parseJsonBytes(json, _at(".words", i, ".output")), _u32(".words", i, ".words")
            ) {
                good = true;
            } catch {}
            assertTrue(good == vm.parseJsonBool(json, _at(".words", i, ".answers")), vm.toString(i));
        }
        assertEq(i, 5, "outputs read");
    }

    function _at(string memory list, uint256 i, string memory field) private pure returns (string memory) {
        return string.concat(list, "[", vm.toString(i), "]", field);
    }

    function _u32(string memory list, uint256 i, string memory field) private view returns (uint32) {
        return uint32(vm.parseJsonUint(json, _at(list, i, field)));
    }
}
