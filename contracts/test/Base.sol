// The stage that the tests share: header hashes, a registry with one model, a hub, funded neurons and a payer.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Job, JobSpec, JobStatus, Params, Slot, SlotState} from "../src/interfaces/IWorkerHub.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {IProgramBook, Model as Program} from "../src/interfaces/IProgramBook.sol";
import {Beacon} from "../src/libraries/Beacon.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {WorkerHub} from "../src/WorkerHub.sol";
import {Precompiles} from "./Precompiles.sol";

/// Stands in for the node's system contract: a hash for every height up to now.
contract HeaderHashes {
    fallback(bytes calldata input) external returns (bytes memory) {
        uint256 height = abi.decode(input, (uint256));
        return abi.encode(height > block.number ? bytes32(0) : keccak256(abi.encode("header", height)));
    }
}

/// Set-up and steps of a job.
abstract contract Base is Precompiles {
    bytes32 internal constant PACK = keccak256("model");
    bytes32 internal constant SALT = keccak256("salt");
    bytes32 internal constant ROOT = keccak256("trace");
    uint32 internal constant VOCAB = 1000;
    uint32 internal constant CONTEXT = 64;
    /// What the registry calls the pack with its true numbers.
    bytes32 internal constant MODEL = keccak256(abi.encode(PACK, uint32(0), VOCAB, CONTEXT, uint32(0)));
    /// A pack that embeds: three words for a text.
    bytes32 internal constant ENCODER_PACK = keccak256("encoder");
    uint32 internal constant WORDS = 3;
    bytes32 internal constant ENCODER = keccak256(abi.encode(ENCODER_PACK, uint32(0), VOCAB, CONTEXT, WORDS));
    uint96 internal constant FEE = 1 ether;
    uint96 internal constant MIN_STAKE = 10 ether;

    address internal payer = address(0xA11CE);
    address internal treasury = address(0x7EA5);
    address internal verifier = address(0x7E51);

    ModelRegistry internal registry;
    WorkerHub internal hub;

    function setUp() public virtual {
        _installPrecompiles();
        vm.chainId(22216);
        vm.roll(100);
        vm.etch(Beacon.HEADER_HASHES, address(new HeaderHashes()).code);
        registry = ModelRegistry(_create("ModelRegistry", abi.encode(1 ether, uint64(20))));
        vm.deal(address(this), 10 ether);
        registry.register{value: 1 ether}(PACK, 0, VOCAB, CONTEXT, 0, "pack://here", keccak256("source"));
        registry.register{value: 1 ether}(ENCODER_PACK, 0, VOCAB, CONTEXT, WORDS, "pack://there", 0);
        // A verifier whose book has every program; disputes are played in its name.
        IProgramBook book = IProgramBook(address(0xB00C));
        vm.mockCall(verifier, abi.encodeCall(IPocVerifier.BOOK, ()), abi.encode(book));
        vm.mockCall(verifier, abi.encodeCall(IPocVerifier.SPEC, ()), abi.encode(0));
        Program memory m;
        (m.sites, m.vocab, m.context) = (address(1), VOCAB, CONTEXT);
        _mockProgram(book, PACK, m);
        hub = _deployHub(registry, _params());
        vm.deal(payer, 1000 ether);
    }

    /// Has a book say that it holds a program.
    function _mockProgram(IProgramBook book, bytes32 root, Program memory m) internal {
        vm.mockCall(address(book), abi.encodeCall(IProgramBook.model, (root)), abi.encode(m));
    }

    /// The devnet's windows.
    function _params() internal view virtual returns (Params memory) {
        return Params({
            commitWindow: 20,
            revealWindow: 10,
            challengeWindow: 4,
            quarrelWindow: 8,
            assignWindow: 20,
            unstakeDelay: 10,
            minStake: MIN_STAKE,
            minCollateral: 1 ether,
            timeoutSlashBps: 1000,
            protocolFeeBps: 500,
            treasury: treasury,
            verifier: verifier
        });
    }

    /// A hub from the committed bytecode.
    function _deployHub(IModelRegistry r, Params memory p) internal returns (WorkerHub) {
        return WorkerHub(_create("WorkerHub", abi.encode(r, p)));
    }

    /// Creates a contract from the bytecode in abi/; zero where its constructor reverts.
    function _create(string memory name, bytes memory args) internal returns (address made) {
        string memory file = vm.readFile(string.concat("abi/", name, ".json"));
        bytes memory code = bytes.concat(vm.parseJsonBytes(file, ".bytecode"), args);
        assembly ("memory-safe") {
            made := create(0, add(code, 32), mload(code))
        }
    }

    /// Neuron number `i`.
    function _neuron(uint256 i) internal pure returns (address) {
        return address(uint160(0xE000 + i));
    }

    /// Stakes and serves MODEL for free with neurons 0 to `n` - 1.
    function _seat(uint256 n) internal {
        for (uint256 i = 0; i < n; ++i) {
            _seatOne(_neuron(i), 20 ether, 0, 0);
        }
    }

    function _seatOne(address who, uint256 amount, uint96 askBase, uint64 askPerOutput) internal {
        vm.deal(who, who.balance + amount);
        vm.prank(who);
        hub.stake{value: amount}();
        vm.prank(who);
        hub.serve(MODEL, askBase, 0, askPerOutput, type(uint96).max);
    }

    /// A job of three ids and at most four new ones, ended by id 2.
    function _spec() internal pure returns (JobSpec memory s) {
        s.modelRoot = PACK;
        s.vocab = VOCAB;
        s.context = CONTEXT;
        s.maxNew = 4;
        s.inputIds = hex"010000000200000003000000";
        s.stopIds = hex"02000000";
    }

    /// 5, 5, 2.
    function _out() internal pure returns (bytes memory) {
        return hex"050000000500000002000000";
    }

    /// Two ids to embed.
    function _embedding() internal pure returns (JobSpec memory s) {
        s.modelRoot = ENCODER_PACK;
        s.vocab = VOCAB;
        s.context = CONTEXT;
        s.words = WORDS;
        s.inputIds = hex"0100000002000000";
    }

    /// 7, -1 and the least: any value may be a word.
    function _words() internal pure returns (bytes memory) {
        return hex"07000000ffffffff00000080";
    }

    function _post(uint8 k) internal returns (uint256) {
        return _post(k, uint256(FEE) * k);
    }

    function _post(uint8 k, uint256 fee) internal returns (uint256) {
        vm.prank(payer);
        return hub.infer{value: fee}(_spec(), k, 0);
    }

    function _skip(uint256 heights) internal {
        vm.roll(block.number + heights);
    }

    /// Waits for the beacon and draws.
    function _assign(uint256 id) internal returns (Slot[] memory) {
        _skip(2);
        hub.assign(id);
        return hub.assigned(id);
    }

    function _commit(uint256 id, address who, bytes32 root, bytes memory out) internal {
        bytes32 c = hub.hashCommit(id, who, SALT, root, keccak256(out));
        bytes32 jobHash = hub.job(id).jobHash;
        vm.prank(who);
        hub.commit(id, jobHash, c);
    }

    function _reveal(uint256 id, address who, bytes32 root, bytes memory out) internal {
        vm.prank(who);
        hub.reveal(id, SALT, root, out);
    }

    /// Posts a job for `k`, and has every drawn neuron commit and reveal the same answer.
    function _answered(uint8 k) internal returns (uint256 id, Slot[] memory s) {
        id = _post(k);
        s = _assign(id);
        for (uint256 i = 0; i < k; ++i) {
            _commit(id, s[i].neuron, ROOT, _out());
        }
        for (uint256 i = 0; i < k; ++i) {
            _reveal(id, s[i].neuron, ROOT, _out());
        }
    }

    /// Past the window the job is in.
    function _pastDeadline(uint256 id) internal {
        vm.roll(hub.job(id).deadline + 1);
    }

    function _status(uint256 id, JobStatus expected) internal view {
        assertEq(uint256(hub.job(id).status), uint256(expected), "status");
    }

    function _state(uint256 id, address who, SlotState expected) internal view {
        assertEq(uint256(hub.slot(id, who).state), uint256(expected), "slot state");
    }

    /// Every wei in the hub is somebody's.
    function _conserved() internal view {
        (uint256 stakes, uint256 escrow, uint256 credit) = hub.totals();
        assertEq(address(hub).balance, stakes + escrow + credit, "money conserved");
    }

    function _expect(bytes4 selector) internal {
        vm.expectRevert(abi.encodePacked(selector));
    }
}
