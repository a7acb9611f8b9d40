// The hub's coins: what it holds and for whom, and the only functions that send any.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Params} from "../interfaces/IWorkerHub.sol";
import {IModelRegistry} from "../interfaces/IModelRegistry.sol";
import {Payouts} from "./Payouts.sol";

/// Totals, guarded transfers, parameters. The sum of the three totals is the balance, always.
abstract contract Ledger is IWorkerHub, Payouts {
    /// Gas a receiver gets: enough for a wallet contract to log, too little to hold a job hostage.
    uint256 public constant TRANSFER_GAS = 50_000;

    /// Models that jobs may name.
    IModelRegistry public immutable REGISTRY;

    uint64 internal immutable COMMIT_WINDOW;
    uint64 internal immutable REVEAL_WINDOW;
    uint64 internal immutable CHALLENGE_WINDOW;
    uint64 internal immutable QUARREL_WINDOW;
    uint64 internal immutable ASSIGN_WINDOW;
    uint64 internal immutable UNSTAKE_DELAY;
    uint96 internal immutable MIN_STAKE;
    uint96 internal immutable MIN_COLLATERAL;
    uint16 internal immutable TIMEOUT_SLASH_BPS;
    uint16 internal immutable PROTOCOL_FEE_BPS;
    address internal immutable TREASURY;
    address internal immutable VERIFIER;

    uint256 internal _stakes;
    uint256 internal _escrow;
    uint256 internal _credit;
    /// @inheritdoc IWorkerHub
    mapping(address to => uint256) public credits;

    constructor(IModelRegistry registry, Params memory p) {
        require(address(registry).code.length != 0, BadParam("registry"));
        require(p.commitWindow != 0, BadParam("commitWindow"));
        require(p.revealWindow != 0, BadParam("revealWindow"));
        require(p.challengeWindow != 0, BadParam("challengeWindow"));
        require(p.quarrelWindow != 0, BadParam("quarrelWindow"));
        require(p.assignWindow != 0, BadParam("assignWindow"));
        require(p.minStake != 0, BadParam("minStake"));
        require(p.minCollateral != 0 && p.minCollateral <= p.minStake, BadParam("minCollateral"));
        require(p.timeoutSlashBps != 0 && p.timeoutSlashBps <= BPS, BadParam("timeoutSlashBps"));
        require(p.protocolFeeBps <= BPS / 2, BadParam("protocolFeeBps"));
        // Heights are 64-bit sums of windows: far below the limit, so that no sum wraps.
        uint64 windowMax = type(uint32).max;
        require(
            p.commitWindow <= windowMax && p.revealWindow <= windowMax && p.challengeWindow <= windowMax
                && p.quarrelWindow <= windowMax && p.assignWindow <= windowMax && p.unstakeDelay <= windowMax,
            BadParam("window above 2^32 - 1")
        );
        REGISTRY = registry;
        COMMIT_WINDOW = p.commitWindow;
        REVEAL_WINDOW = p.revealWindow;
        CHALLENGE_WINDOW = p.challengeWindow;
        QUARREL_WINDOW = p.quarrelWindow;
        ASSIGN_WINDOW = p.assignWindow;
        UNSTAKE_DELAY = p.unstakeDelay;
        MIN_STAKE = p.minStake;
        MIN_COLLATERAL = p.minCollateral;
        TIMEOUT_SLASH_BPS = p.timeoutSlashBps;
        PROTOCOL_FEE_BPS = p.protocolFeeBps;
        TREASURY = p.treasury;
        VERIFIER = p.verifier;
    }

    /// @inheritdoc IWorkerHub
    function claim() external guarded {
        uint256 amount = credits[msg.sender];
        require(amount != 0, NothingToClaim(msg.sender));
        credits[msg.sender] = 0;
        _credit -= amount;
        emit Claimed(msg.sender, amount);
        _sendOrRevert(_payout(msg.sender), amount);
    }

    /// @inheritdoc IWorkerHub
    function params() external view returns (Params memory) {
        return Params({
            commitWindow: COMMIT_WINDOW,
            revealWindow: REVEAL_WINDOW,
            challengeWindow: CHALLENGE_WINDOW,
            quarrelWindow: QUARREL_WINDOW,
            assignWindow: ASSIGN_WINDOW,
            unstakeDelay: UNSTAKE_DELAY,
            minStake: MIN_STAKE,
            minCollateral: MIN_COLLATERAL,
            timeoutSlashBps: TIMEOUT_SLASH_BPS,
            protocolFeeBps: PROTOCOL_FEE_BPS,
            treasury: TREASURY,
            verifier: VERIFIER
        });
    }

    /// @inheritdoc IWorkerHub
    function totals() external view returns (uint256 stakes, uint256 escrow, uint256 credit) {
        return (_stakes, _escrow, _credit);
    }

    /// Sends; a receiver that refuses is owed the amount instead, so it cannot lock anyone else's money.
    function _pay(address to, uint256 amount) internal {
        if (amount == 0) return;
        bool ok;
        uint256 gasMax = TRANSFER_GAS;
        // Copies no return data, which a hostile receiver could make expensive.
        assembly ("memory-safe") {
            ok := call(gasMax, to, amount, 0, 0, 0, 0)
        }
        if (ok) return;
        credits[to] += amount;
        _credit += amount;
        emit Credited(to, amount);
    }

    /// Burns at least half of a slash and gives the rest, at most `most`, to who was wronged or found it: a
    /// puppet beneficiary never gets its own money back.
    function _split(uint256 slashed, uint256 most, address beneficiary) internal {
        uint256 given = slashed / 2;
        if (given > most) given = most;
        _burn(slashed - given);
        _pay(beneficiary, given);
    }

    /// What is left of a share after the protocol's part.
    function _net(uint256 share) internal view returns (uint256) {
        return share - share * PROTOCOL_FEE_BPS / BPS;
    }
}
