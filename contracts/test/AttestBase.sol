// The stage of attestations: a hub with its verifier, validators with stakes, three answered jobs of one model, and the
// entries and openings that Rust wrote.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Attestations} from "../src/Attestations.sol";
import {AttestationState, Settings} from "../src/interfaces/IAttestations.sol";
import {Params} from "../src/interfaces/IWorkerHub.sol";
import {Beacon} from "../src/libraries/Beacon.sol";
import {PocVerifier} from "../src/PocVerifier.sol";
import {GameBase, Recorded} from "./GameBase.sol";

/// Stands in for the node's system contract: hashes of its own for the heights that draw for the jobs, and after the attest
/// window one that can be set; every other height up to now has another.
contract ChosenHeaders {
    fallback(bytes calldata input) external returns (bytes memory) {
        uint256 height = abi.decode(input, (uint256));
        if (height > block.number) return abi.encode(bytes32(0));
        bytes32 chosen;
        assembly ("memory-safe") {
            chosen := sload(height)
        }
        return abi.encode(chosen != 0 ? chosen : keccak256(abi.encode("header", height)));
    }
}

/// Set-up of attestations.
abstract contract AttestBase is GameBase {
    /// Where Rust thinks that the contract is.
    address payable internal constant HERE = payable(0xA77e570000000000000000000000000000000001);
    uint64 internal constant EPOCH = 20;
    /// The epoch in which the jobs are answered.
    uint64 internal constant N = 7;
    bytes32 internal constant DRAWS = 0x0707070707070707070707070707070707070707070707070707070707070707;
    /// Drawn for all three jobs, with a third of all stake.
    uint256 internal constant ATTESTOR = 11;
    /// What its entries are asked for.
    uint256 internal constant JOB = 2;

    Attestations internal att;
    PocVerifier internal second_;
    Recorded internal g;
    bytes32 internal modelId;
    address internal me;
    address internal neuron;
    bytes32 internal root;
    bytes32 private _ends;

    function _vectors() internal pure override returns (string memory) {
        return "../vectors/attestations.json";
    }

    function _params() internal view override returns (Params memory p) {
        p = super._params();
        p.challengeWindow = 60;
        p.quarrelWindow = 60;
        p.treasury = HERE;
    }

    function _settings() internal pure returns (Settings memory) {
        return Settings({
            epoch: EPOCH,
            attestWindow: 10,
            askWindow: 10,
            openWindow: 5,
            disputeWindow: 12,
            unstakeDelay: 100,
            minCutPerPosition: 0.001 ether,
            minStake: 10 ether,
            seats: 3,
            missBps: 100,
            faultBps: 2000
        });
    }

    function setUp() public virtual override {
        super.setUp();
        vm.etch(Beacon.HEADER_HASHES, address(new ChosenHeaders()).code);
        bytes memory args = abi.encode(HERE, book, CLOCK, governor, WEI_PER_BYTE, WEI_PER_BYTE * 10);
        second_ = PocVerifier(_create("PocVerifier", args));
        require(_construct(_settings()), "constructed");
        att = Attestations(HERE);
        _keep(0);
        g = _answer(0);
        modelId =
            registry.register{value: 1 ether}(g.spec.modelRoot, 0, g.spec.vocab, g.spec.context, 0, "u", 0);
        uint256[] memory stakes = vm.parseJsonUintArray(json, ".stakes");
        for (uint256 i = 0; i < stakes.length; ++i) {
            vm.deal(_validator(i), stakes[i] * 1 ether + 5 ether);
            vm.prank(_validator(i));
            att.stake{value: stakes[i] * 1 ether}();
            vm.prank(_validator(i));
            att.enlist(modelId);
        }
        neuron = _neuron(0);
        _offer(neuron);
        me = _validator(ATTESTOR);
        root = vm.parseJsonBytes32(json, ".attested");
        (uint256 header,,,) = att.windows(N);
        _ends = keccak256(abi.encode("header", header));
        vm.roll(N * EPOCH);
        for (uint256 i = 0; i < 3; ++i) {
            (uint256 id,) = _answeredJob(g);
            // The header that Rust drew with, two above the answer and nowhere else.
            _setHeader(hub.job(id).answeredAt + 2, DRAWS);
        }
    }

    /// Runs the constructor at the address that the vectors name.
    function _construct(Settings memory s) internal returns (bool ok) {
        string memory file = vm.readFile("abi/Attestations.json");
        bytes memory code = bytes.concat(
            vm.parseJsonBytes(file, ".bytecode"), abi.encode(address(hub), address(registry), second_, s)
        );
        bytes memory before = HERE.code;
        vm.etch(HERE, code);
        bytes memory made;
        (ok, made) = HERE.call("");
        vm.etch(HERE, ok ? made : before);
    }

    function _validator(uint256 i) internal pure returns (address) {
        return address(uint160(0xE100 + i));
    }

    /// Stakes and offers the model.
    function _offer(address who) internal {
        vm.deal(who, 100 ether);
        vm.prank(who);
        hub.stake{value: 50 ether}();
        vm.prank(who);
        hub.serve(modelId, 0, 0, 0, type(uint96).max);
    }

    /// Reads answer `i` of the vectors.
    function _answer(uint256 i) internal view returns (Recorded memory r) {
        string memory key = string.concat(".games[", vm.toString(i), "]");
        r.spec.modelRoot = _root(".models[0]");
        r.spec.vocab = _dims(".models[0]").vocab;
        r.spec.context = _dims(".models[0]").context;
        r.spec.maxNew = uint32(vm.parseJsonUint(json, string.concat(key, ".job.maxNew")));
        r.spec.seed = uint64(vm.parseJsonUint(json, string.concat(key, ".job.seed")));
        r.spec.inputIds = vm.parseJsonBytes(json, string.concat(key, ".job.inputIds"));
        r.outputs = vm.parseJsonBytes(json, string.concat(key, ".outputs"));
        r.root = vm.parseJsonBytes32(json, string.concat(key, ".root"));
    }

    function _setHeader(uint256 height, bytes32 hash) internal {
        vm.store(Beacon.HEADER_HASHES, bytes32(height), hash);
    }

    /// The header that ends the epoch.
    function _header() internal view returns (bytes32) {
        return _ends;
    }

    /// Has the header after the attest window pick a chunk.
    function _pick(uint256 pick) internal {
        (, uint256 attestBy,,) = att.windows(N);
        uint256 i;
        while (uint256(keccak256(abi.encode(keccak256(abi.encode(i)), JOB, me))) % 4 != pick) ++i;
        _setHeader(attestBy + 1, keccak256(abi.encode(i)));
    }

    function _opening(uint256 pick) internal view returns (bytes memory) {
        return vm.parseJsonBytes(json, string.concat(".openings[", vm.toString(pick), "]"));
    }

    /// To the first height for attesting, asking, or being paid.
    function _toAttest() internal {
        (uint256 header,,,) = att.windows(N);
        vm.roll(header);
    }

    function _toAsk() internal {
        (, uint256 last,,) = att.windows(N);
        vm.roll(last + 1);
    }

    function _toPay() internal {
        (,,, uint256 from) = att.windows(N);
        vm.roll(from);
    }

    /// The attestor's root, with jobs of which it says that no answer holds.
    function _attest(bytes memory none) internal {
        _toAttest();
        vm.prank(me);
        att.attest(N, _header(), JOB, root, none);
    }

    function _ask() internal {
        uint256 bond = att.askBond();
        vm.prank(challenger);
        att.ask{value: bond}(me, JOB);
    }

    function _openIt() internal {
        bytes memory opening = _opening(att.pickOf(JOB, me));
        vm.prank(me);
        att.open(JOB, opening);
    }

    /// Every wei is somebody's, or the reserve.
    function _accounted(uint256 reserve) internal view {
        (uint256 stakes, uint256 bonds, uint256 dues) = att.totals();
        assertEq(address(att).balance, stakes + bonds + dues + reserve, "attestations' money conserved");
    }

    function _state(AttestationState expected) internal view {
        assertEq(uint256(att.attestationOf(N, me).state), uint256(expected), "attestation");
    }

    function _no(bytes memory why) internal {
        vm.expectRevert(why);
    }

    function _settle() internal {
        vm.roll(hub.job(3).deadline + 1);
        for (uint256 i = 1; i < 4; ++i) {
            hub.finalise(i);
        }
    }

    function _dispute() internal returns (bytes32 claim) {
        uint256 bond = second_.bond(g.spec.modelRoot);
        vm.prank(challenger);
        return second_.open{value: bond}(JOB, me, _fields(g), g.outputs);
    }
}
