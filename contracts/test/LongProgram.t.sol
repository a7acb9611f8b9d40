// A program longer than one account's code: 80 layers in the book.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Branches, Dims, IProgramBook, Model} from "../src/interfaces/IProgramBook.sol";
import {LongBlob} from "../src/libraries/LongBlob.sol";
import {Site, Sites} from "../src/libraries/Sites.sol";
import {AccusationGas} from "./AccusationGas.sol";
import {GameBase} from "./GameBase.sol";

contract LongProgramTest is GameBase, AccusationGas {
    using Sites for Site;

    uint32 private constant LAYERS = 80;

    /// Copies a site; of what it reads, the sites of the layers lie `shift` further on.
    function _copy(
        bytes memory from,
        uint256 site,
        bytes memory to,
        uint256 place,
        uint256 shift,
        uint256 layers
    ) private pure {
        assembly ("memory-safe") {
            mcopy(add(add(to, 32), mul(place, 104)), add(add(from, 32), mul(site, 104)), 104)
        }
        for (uint256 input = 2; input < 6; ++input) {
            uint256 spot = place * 104 + input * 4;
            uint256 id = _word(to, spot);
            if (id != Sites.NONE && id >= layers) _put(to, spot, id + shift);
        }
    }

    function _word(bytes memory data, uint256 spot) private pure returns (uint256 x) {
        for (uint256 i = 4; i != 0; --i) {
            x = x << 8 | uint8(data[spot + i - 1]);
        }
    }

    function _put(bytes memory data, uint256 spot, uint256 x) private pure {
        for (uint256 i = 0; i < 4; ++i) {
            data[spot + i] = bytes1(uint8(x >> (8 * i)));
        }
    }

    /// The recorded model with its second layer 79 times.
    function _tall() private returns (Dims memory dims, Branches memory b, bytes memory out, uint256 per) {
        _keep(1);
        Model memory m = book.model(_root(".models[1]"));
        bytes memory short = vm.parseJsonBytes(json, ".models[1].records");
        (dims, b) = (_dims(".models[1]"), _branches(".models[1]"));
        dims.layers = LAYERS;
        uint256 first = m.firstLayerSite;
        per = (m.epilogue - first) / 2;
        assertEq(first + 2 * per, m.epilogue, "two layers of as many sites");
        uint256 more = (LAYERS - 2) * per;
        out = new bytes(short.length + more * 104);
        for (uint256 i = 0; i < first + per; ++i) {
            _copy(short, i, out, i, 0, first);
        }
        for (uint256 layer = 1; layer < LAYERS; ++layer) {
            for (uint256 i = 0; i < per; ++i) {
                uint256 place = first + layer * per + i;
                _copy(short, first + per + i, out, place, (layer - 1) * per, first);
                _put(out, place * 104 + 4, layer);
            }
        }
        for (uint256 i = m.epilogue; i < m.siteCount; ++i) {
            _copy(short, i, out, i + more, more, first);
        }
    }

    function test_KeepsAProgramOf80Layers() public {
        (Dims memory dims, Branches memory b, bytes memory records, uint256 per) = _tall();
        uint256 count = records.length / 104;
        assertTrue(count * Sites.KEPT > LongBlob.PART, "longer than one account");
        // The book says what root they have.
        bytes32 root;
        try book.keep(0, dims, b, records) {
            assertTrue(false, "no model has this root");
        } catch (bytes memory why) {
            assertEq(
                bytes32(bytes4(why)), bytes32(IProgramBook.WrongModelRoot.selector), "refused for the root"
            );
            assembly ("memory-safe") {
                root := mload(add(why, 36))
            }
        }
        _startMeter();
        book.keep(root, dims, b, records);
        uint256 used = _measured();
        book.keep(root, dims, b, records);
        vm.snapshotValue("Programs", string.concat(vm.toString(count), " sites, 80 layers"), _chainGas(used));

        Model memory m = book.model(root);
        assertEq(m.siteCount, count, "sites");
        // The last site of the first account, the first of the second, and the last of all.
        uint256[3] memory some = [uint256(1_091), 1_092, count - 1];
        for (uint256 i = 0; i < 3; ++i) {
            Site memory s = Sites.load(m.sites, count, some[i]);
            for (uint256 w = 0; w < 26; ++w) {
                assertEq(Sites.word(s.record, w), _word(records, some[i] * 104 + w * 4), "record");
            }
        }
        Site memory last = Sites.load(m.sites, count, m.epilogue - 1);
        assertEq(last.unit, LAYERS, "unit");
        assertEq(last.unitFirst, m.epilogue - per, "its first site");
        assertEq(last.unitSites, per, "its sites");
    }
}
