// The stage of disputes: precompiles, a hub with its verifier, the book, and games of vectors/games.json played again.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Branches, Dims, Model} from "../src/interfaces/IProgramBook.sol";
import {Game, JobFields} from "../src/interfaces/IPocVerifier.sol";
import {Blake3} from "../src/libraries/Blake3.sol";
import {JobSpec, Params, Slot} from "../src/interfaces/IWorkerHub.sol";
import {PocVerifier} from "../src/PocVerifier.sol";
import {ProgramBook} from "../src/ProgramBook.sol";
import {Base} from "./Base.sol";

/// A recorded game: kinds are "ask", "answer" and "accuse"; the first 32 bytes of a move are replaced when it is played,
/// because the claim lies on another hub.
struct Recorded {
    string name;
    JobSpec spec;
    bytes outputs;
    bytes32 root;
    bytes32 claim;
    bool guilty;
    bool contradiction;
    string[] kinds;
    bytes[] moves;
    bytes32[] ids;
}

/// Set-up and steps of a dispute.
abstract contract GameBase is Base {
    uint32 internal constant CLOCK = 144;
    uint96 internal constant WEI_PER_BYTE = 1e9;

    address internal challenger = address(0xC4A1);
    address internal second = address(0xC4A2);
    address internal governor = address(0x60F);

    ProgramBook internal book;
    PocVerifier internal poc;
    string internal json;

    function setUp() public virtual override {
        super.setUp();
        json = vm.readFile(_vectors());
        book = ProgramBook(_create("ProgramBook", ""));
        // The verifier names its hub and the hub its verifier: the hub is the creation after the verifier's.
        address hubThen = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        bytes memory args = abi.encode(hubThen, book, CLOCK, governor, WEI_PER_BYTE, WEI_PER_BYTE * 10);
        poc = PocVerifier(_create("PocVerifier", args));
        verifier = address(poc);
        hub = _deployHub(registry, _params());
        assertEq(address(hub), hubThen, "hub's address");
        vm.deal(challenger, 100 ether);
        vm.deal(second, 100 ether);
    }

    /// The file of games.
    function _vectors() internal pure virtual returns (string memory) {
        return "../vectors/games.json";
    }

    /// Puts model `i` of the vectors into the book.
    function _keep(uint256 i) internal {
        string memory m = string.concat(".models[", vm.toString(i), "]");
        bytes memory records = vm.parseJsonBytes(json, string.concat(m, ".records"));
        book.keep(_root(m), _dims(m), _branches(m), records);
    }

    /// Puts the model of game `i` into the book.
    function _keepFor(uint256 i) internal {
        _keep(vm.parseJsonUint(json, string.concat(".games[", vm.toString(i), "].model")));
    }

    function _root(string memory m) internal view returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(m, ".root"));
    }

    function _dims(string memory m) internal view returns (Dims memory) {
        uint256[] memory d = vm.parseJsonUintArray(json, string.concat(m, ".dims"));
        return Dims(
            uint32(d[0]), uint32(d[1]), uint32(d[2]), uint32(d[3]), uint32(d[4]), uint32(d[5]), uint32(d[6])
        );
    }

    function _branches(string memory m) internal view returns (Branches memory) {
        return Branches({
            info: vm.parseJsonBytes32(json, string.concat(m, ".info")),
            tensorCount: uint32(vm.parseJsonUint(json, string.concat(m, ".tensorCount"))),
            tensorsLeft: vm.parseJsonBytes32(json, string.concat(m, ".tensorsLeft")),
            tensorsRight: vm.parseJsonBytes32(json, string.concat(m, ".tensorsRight")),
            tokenizer: vm.parseJsonBytes32(json, string.concat(m, ".tokenizer"))
        });
    }

    /// Reads game `i`.
    function _recorded(uint256 i) internal view returns (Recorded memory g) {
        string memory key = string.concat(".games[", vm.toString(i), "]");
        string memory m =
            string.concat(".models[", vm.toString(vm.parseJsonUint(json, string.concat(key, ".model"))), "]");
        Dims memory dims = _dims(m);
        g.name = vm.parseJsonString(json, string.concat(key, ".name"));
        g.spec.modelRoot = _root(m);
        g.spec.vocab = dims.vocab;
        g.spec.context = dims.context;
        g.spec.maxNew = uint32(vm.parseJsonUint(json, string.concat(key, ".job.maxNew")));
        g.spec.temperatureQ16 = uint32(vm.parseJsonUint(json, string.concat(key, ".job.temperatureQ16")));
        g.spec.topK = uint32(vm.parseJsonUint(json, string.concat(key, ".job.topK")));
        g.spec.topPQ16 = uint32(vm.parseJsonUint(json, string.concat(key, ".job.topPQ16")));
        g.spec.seed = uint64(vm.parseJsonUint(json, string.concat(key, ".job.seed")));
        g.spec.inputIds = vm.parseJsonBytes(json, string.concat(key, ".job.inputIds"));
        g.outputs = vm.parseJsonBytes(json, string.concat(key, ".outputs"));
        g.root = vm.parseJsonBytes32(json, string.concat(key, ".root"));
        g.claim = vm.parseJsonBytes32(json, string.concat(key, ".claim"));
        g.guilty = vm.parseJsonBool(json, string.concat(key, ".guilty"));
        g.contradiction = vm.parseJsonBool(json, string.concat(key, ".contradiction"));
        g.kinds = vm.parseJsonStringArray(json, string.concat(key, ".kinds"));
        g.moves = vm.parseJsonBytesArray(json, string.concat(key, ".bytes"));
        g.ids = vm.parseJsonBytes32Array(json, string.concat(key, ".ids"));
    }

    function _fields(Recorded memory g) internal pure returns (JobFields memory) {
        return JobFields({
            modelRoot: g.spec.modelRoot,
            specVersion: g.spec.specVersion,
            inputHash: Blake3.hash(g.spec.inputIds),
            stopHash: keccak256(g.spec.stopIds),
            temperatureQ16: g.spec.temperatureQ16,
            topK: g.spec.topK,
            topPQ16: g.spec.topPQ16,
            seed: g.spec.seed
        });
    }

    /// The same with a model that the hub would not let anybody offer while it has a verifier.
    function _claimedUndisputable(Recorded memory g) internal returns (uint256 jobId, address neuron) {
        Model memory m;
        (m.sites, m.vocab, m.context) = (address(1), g.spec.vocab, g.spec.context);
        _mockProgram(book, g.spec.modelRoot, m);
        vm.mockCall(address(poc), abi.encodeCall(poc.SPEC, ()), abi.encode(g.spec.specVersion));
        (jobId, neuron) = _claimed(g);
        vm.clearMockedCalls();
    }

    /// Registers the game's model, and has neuron 0 reveal the recorded answer to the recorded job.
    function _claimed(Recorded memory g) internal returns (uint256 jobId, address neuron) {
        uint32 spec = g.spec.specVersion;
        bytes32 id = registry.register{value: 1 ether}(
            g.spec.modelRoot, spec, g.spec.vocab, g.spec.context, 0, "u", 0
        );
        neuron = _neuron(0);
        vm.deal(neuron, 100 ether);
        vm.prank(neuron);
        hub.stake{value: 50 ether}();
        vm.prank(neuron);
        hub.serve(id, 0, 0, 0, type(uint96).max);
        return _answeredJob(g);
    }

    /// Has the model's neuron reveal the recorded answer to the recorded job.
    function _answeredJob(Recorded memory g) internal returns (uint256 jobId, address neuron) {
        vm.prank(payer);
        jobId = hub.infer{value: FEE}(g.spec, 1, 0);
        Slot[] memory s = _assign(jobId);
        neuron = s[0].neuron;
        _commit(jobId, neuron, g.root, g.outputs);
        _reveal(jobId, neuron, g.root, g.outputs);
    }

    /// Opens a challenger's game.
    function _open(Recorded memory g, uint256 jobId, address neuron, address who)
        internal
        returns (bytes32 claim)
    {
        uint256 bond = poc.bond(g.spec.modelRoot);
        JobFields memory fields = _fields(g);
        vm.prank(who);
        claim = poc.open{value: bond}(jobId, neuron, fields, g.outputs);
    }

    function _join(Recorded memory g, bytes32 claim, address who) internal {
        uint256 bond = poc.bond(g.spec.modelRoot);
        vm.prank(who);
        poc.join{value: bond}(claim);
    }

    /// A move that names another id.
    function _naming(bytes memory move, bytes32 id) internal pure returns (bytes memory out) {
        out = bytes.concat(move);
        assembly ("memory-safe") {
            mstore(add(out, 32), id)
        }
    }

    /// Where each recorded id is on this hub: what a move names, by what it named when it was recorded.
    mapping(bytes32 recorded => bytes32) internal _here;

    /// The recorded move `i` as it is made on this hub.
    function _move(Recorded memory g, uint256 i) internal view returns (bytes memory) {
        bytes32 to;
        bytes memory move = g.moves[i];
        assembly ("memory-safe") {
            to := mload(add(move, 32))
        }
        return _naming(move, _here[to]);
    }

    /// Makes recorded moves `from` to `to`.
    function _play(Recorded memory g, bytes32 claim, address neuron, address who, uint256 from, uint256 to)
        internal
    {
        _here[g.claim] = claim;
        for (uint256 i = from; i < to; ++i) {
            bytes memory move = _move(g, i);
            if (_is(g, i, "ask")) {
                vm.prank(who);
                _here[g.ids[i]] = poc.ask(claim, move);
            } else if (_is(g, i, "answer")) {
                vm.prank(neuron);
                _here[g.ids[i]] = poc.answer(move);
            } else {
                vm.prank(who);
                poc.accuse(claim, move);
            }
        }
    }

    function _is(Recorded memory g, uint256 i, string memory kind) internal pure returns (bool) {
        return keccak256(bytes(g.kinds[i])) == keccak256(bytes(kind));
    }

    /// Every wei in the verifier is somebody's.
    function _whole() internal view {
        (uint256 bonds, uint256 owed) = poc.totals();
        assertEq(address(poc).balance, bonds + owed, "verifier's money conserved");
        _conserved();
    }

    function _gameOf(bytes32 claim, address who) internal view returns (Game memory) {
        return poc.game(claim, who);
    }
}
