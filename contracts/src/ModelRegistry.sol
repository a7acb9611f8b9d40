// The list of model packs that jobs may name, each bonded by who registered it.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IModelRegistry, Model} from "./interfaces/IModelRegistry.sol";

/// Models by pack root. A root can be registered once and its numbers never change, so a job that names it means one thing for ever.
contract ModelRegistry is IModelRegistry {
    /// Longest URI in bytes.
    uint256 public constant URI_BYTES_MAX = 256;

    /// @inheritdoc IModelRegistry
    uint256 public immutable BOND;
    /// @inheritdoc IModelRegistry
    uint64 public immutable BOND_DELAY;

    mapping(bytes32 modelRoot => Model) private _models;
    bytes32[] private _roots;

    /// @param bond wei that a registration must carry
    /// @param bondDelay heights between retirement and the bond's return
    constructor(uint256 bond, uint64 bondDelay) {
        BOND = bond;
        BOND_DELAY = bondDelay;
    }

    /// @inheritdoc IModelRegistry
    function register(
        bytes32 modelRoot,
        uint32 specVersion,
        uint32 vocab,
        uint32 context,
        string calldata uri,
        bytes32 sourceHash
    ) external payable {
        require(msg.value == BOND, WrongBond(msg.value, BOND));
        require(modelRoot != 0 && vocab != 0 && context != 0, EmptyModel());
        uint256 length = bytes(uri).length;
        require(length != 0 && length <= URI_BYTES_MAX, BadUri(length));
        require(_models[modelRoot].owner == address(0), ModelExists(modelRoot));

        _models[modelRoot] = Model({
            owner: msg.sender,
            registeredAt: uint64(block.number),
            retiredAt: 0,
            specVersion: specVersion,
            vocab: vocab,
            context: context,
            bond: msg.value,
            sourceHash: sourceHash,
            uri: uri
        });
        _roots.push(modelRoot);
        emit ModelRegistered(modelRoot, msg.sender, specVersion, vocab, context, uri, sourceHash);
    }

    /// @inheritdoc IModelRegistry
    function retire(bytes32 modelRoot) external {
        Model storage m = _owned(modelRoot);
        require(m.retiredAt == 0, AlreadyRetired(modelRoot));
        m.retiredAt = uint64(block.number);
        emit ModelRetired(modelRoot, uint64(block.number) + BOND_DELAY);
    }

    /// @inheritdoc IModelRegistry
    function withdrawBond(bytes32 modelRoot) external {
        Model storage m = _owned(modelRoot);
        require(m.retiredAt != 0, BondLocked(0));
        uint256 freeAt = uint256(m.retiredAt) + BOND_DELAY;
        require(block.number >= freeAt, BondLocked(freeAt));
        uint256 amount = m.bond;
        require(amount != 0, NoBond(modelRoot));
        // Zeroed before the call, so a second entry finds nothing.
        m.bond = 0;
        emit BondWithdrawn(modelRoot, msg.sender, amount);
        (bool ok,) = msg.sender.call{value: amount}("");
        require(ok, BondRefused(msg.sender));
    }

    /// @inheritdoc IModelRegistry
    function model(bytes32 modelRoot) external view returns (Model memory) {
        require(_models[modelRoot].owner != address(0), UnknownModel(modelRoot));
        return _models[modelRoot];
    }

    /// @inheritdoc IModelRegistry
    function limits(bytes32 modelRoot)
        external
        view
        returns (bool active, uint32 specVersion, uint32 vocab, uint32 context)
    {
        Model storage m = _models[modelRoot];
        require(m.owner != address(0), UnknownModel(modelRoot));
        return (m.retiredAt == 0, m.specVersion, m.vocab, m.context);
    }

    /// @inheritdoc IModelRegistry
    function exists(bytes32 modelRoot) external view returns (bool) {
        return _models[modelRoot].owner != address(0);
    }

    /// @inheritdoc IModelRegistry
    function modelsCount() external view returns (uint256) {
        return _roots.length;
    }

    /// @inheritdoc IModelRegistry
    function modelAt(uint256 index) external view returns (bytes32) {
        return _roots[index];
    }

    /// The model, if the caller owns it.
    function _owned(bytes32 modelRoot) private view returns (Model storage m) {
        m = _models[modelRoot];
        require(m.owner != address(0), UnknownModel(modelRoot));
        require(m.owner == msg.sender, NotModelOwner(msg.sender, m.owner));
    }
}
