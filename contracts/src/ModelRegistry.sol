// The list of model packs that jobs may name, each bonded by who registered it.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IModelRegistry, Model} from "./interfaces/IModelRegistry.sol";
import {Ids} from "./libraries/Ids.sol";
import {ModelId} from "./libraries/ModelId.sol";

/// Models by id, which binds root and numbers, so a job that names one means one thing for ever, whoever owns the line.
contract ModelRegistry is IModelRegistry {
    /// Longest URI in bytes.
    uint256 public constant URI_BYTES_MAX = 256;

    /// @inheritdoc IModelRegistry
    uint256 public immutable BOND;
    /// @inheritdoc IModelRegistry
    uint64 public immutable BOND_DELAY;

    /// A bond on its way back.
    struct Retired {
        uint256 amount;
        uint64 freeAt;
    }

    mapping(bytes32 modelId => Model) private _models;
    // By owner too: another one may register the model anew while the bond of the last waits.
    mapping(bytes32 modelId => mapping(address owner => Retired)) private _retired;
    bytes32[] private _ids;

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
        uint32 words,
        string calldata uri,
        bytes32 sourceHash
    ) external payable returns (bytes32 id) {
        require(msg.value == BOND, WrongBond(msg.value, BOND));
        require(modelRoot != 0 && vocab != 0 && context != 0, EmptyModel());
        require(words <= Ids.MAX_OUTPUTS, Ids.TooManyOutputs(words, Ids.MAX_OUTPUTS));
        uint256 length = bytes(uri).length;
        require(length != 0 && length <= URI_BYTES_MAX, BadUri(length));
        id = ModelId.id(modelRoot, specVersion, vocab, context, words);
        Model storage m = _models[id];
        // Whoever registers the right numbers and retires them must not close the model for good.
        require(m.owner == address(0) || m.retiredAt != 0, ModelExists(id));
        if (m.owner == address(0)) _ids.push(id);

        m.modelRoot = modelRoot;
        m.owner = msg.sender;
        m.registeredAt = uint64(block.number);
        m.retiredAt = 0;
        m.specVersion = specVersion;
        m.vocab = vocab;
        m.context = context;
        m.words = words;
        m.bond = msg.value;
        m.sourceHash = sourceHash;
        m.uri = uri;
        emit ModelRegistered(id, modelRoot, msg.sender, specVersion, vocab, context, words, uri, sourceHash);
    }

    /// @inheritdoc IModelRegistry
    function retire(bytes32 modelId) external {
        Model storage m = _known(modelId);
        require(m.owner == msg.sender, NotModelOwner(msg.sender, m.owner));
        require(m.retiredAt == 0, AlreadyRetired(modelId));
        m.retiredAt = uint64(block.number);
        Retired storage r = _retired[modelId][msg.sender];
        r.amount += m.bond;
        r.freeAt = uint64(block.number) + BOND_DELAY;
        m.bond = 0;
        emit ModelRetired(modelId, r.freeAt);
    }

    /// @inheritdoc IModelRegistry
    function withdrawBond(bytes32 modelId) external {
        _known(modelId);
        Retired memory r = _retired[modelId][msg.sender];
        require(r.amount != 0, NoBond(modelId));
        require(block.number >= r.freeAt, BondLocked(r.freeAt));
        // Gone before the call, so a second entry finds nothing.
        delete _retired[modelId][msg.sender];
        emit BondWithdrawn(modelId, msg.sender, r.amount);
        (bool ok,) = msg.sender.call{value: r.amount}("");
        require(ok, BondRefused(msg.sender));
    }

    /// @inheritdoc IModelRegistry
    function modelIdOf(bytes32 modelRoot, uint32 specVersion, uint32 vocab, uint32 context, uint32 words)
        external
        pure
        returns (bytes32)
    {
        return ModelId.id(modelRoot, specVersion, vocab, context, words);
    }

    /// @inheritdoc IModelRegistry
    function model(bytes32 modelId) external view returns (Model memory) {
        return _known(modelId);
    }

    /// @inheritdoc IModelRegistry
    function active(bytes32 modelId) external view returns (bool) {
        return _known(modelId).retiredAt == 0;
    }

    /// @inheritdoc IModelRegistry
    function exists(bytes32 modelId) external view returns (bool) {
        return _models[modelId].owner != address(0);
    }

    /// @inheritdoc IModelRegistry
    function modelsCount() external view returns (uint256) {
        return _ids.length;
    }

    /// @inheritdoc IModelRegistry
    function modelAt(uint256 index) external view returns (bytes32) {
        return _ids[index];
    }

    /// @inheritdoc IModelRegistry
    function retiredBond(bytes32 modelId, address owner)
        external
        view
        returns (uint256 amount, uint64 freeAt)
    {
        Retired storage r = _retired[modelId][owner];
        return (r.amount, r.freeAt);
    }

    /// The model, if there is one.
    function _known(bytes32 modelId) private view returns (Model storage m) {
        m = _models[modelId];
        require(m.owner != address(0), UnknownModel(modelId));
    }
}
