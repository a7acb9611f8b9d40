//! Ethereum's Merkle Patricia trie, stored by path: an update reads and writes only the nodes on its way,
//! so a block costs what it changes, not what the state holds. Keys are 32-byte hashes, so no branch has a
//! value of its own.
//!
//! A node whose RLP has 32 bytes or more (and every root) is a record under its path; a smaller one lives
//! inside its parent (yellow paper, appendix D).

use alloy_primitives::{B256, keccak256};
use alloy_rlp::{BufMut, Encodable, Header};
use std::collections::BTreeMap;

use super::error::StateError;

/// Root of an empty trie.
pub(crate) const EMPTY_ROOT: B256 = alloy_trie::EMPTY_ROOT_HASH;

/// Where nodes are read from; the key is the path, one nibble a byte.
pub(crate) trait NodeStore {
    /// The node's RLP at this path.
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
}

/// Records to write: `None` deletes.
pub(crate) type NodeChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

#[derive(Debug)]
enum Link {
    Empty,
    /// In the store, under the path that leads here.
    Stored(B256),
    Node(Box<Node>),
}

#[derive(Debug)]
enum Node {
    Leaf { path: Vec<u8>, value: Vec<u8> },
    Extension { path: Vec<u8>, child: Link },
    Branch(Box<[Link; 16]>),
}

/// A trie being changed.
pub(crate) struct Trie<'a, S> {
    store: &'a S,
    root: Link,
    /// Every record read, by path, to find what changed.
    read: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a, S: NodeStore> Trie<'a, S> {
    /// The trie with this root.
    pub(crate) fn new(store: &'a S, root: B256) -> Self {
        let root = if root == EMPTY_ROOT {
            Link::Empty
        } else {
            Link::Stored(root)
        };
        Trie {
            store,
            root,
            read: BTreeMap::new(),
        }
    }

    /// Sets the value under a hashed key; `None` removes it.
    pub(crate) fn set(&mut self, key: B256, value: Option<Vec<u8>>) -> Result<(), StateError> {
        let nibbles = nibbles_of(key);
        let root = std::mem::replace(&mut self.root, Link::Empty);
        let mut at = Vec::with_capacity(64);
        self.root = match value {
            Some(value) => self.insert(root, &mut at, &nibbles, value)?,
            None => self.remove(root, &mut at, &nibbles)?,
        };
        Ok(())
    }

    /// The new root and the records to write.
    pub(crate) fn finish(self) -> (B256, NodeChanges) {
        let mut present = BTreeMap::new();
        let root = match self.root {
            Link::Empty => EMPTY_ROOT,
            Link::Stored(hash) => hash,
            Link::Node(node) => {
                let rlp = encode(&node, &mut Vec::new(), &mut present);
                let hash = keccak256(&rlp);
                present.insert(Vec::new(), rlp);
                hash
            }
        };
        let mut changes: NodeChanges = self
            .read
            .keys()
            .filter(|path| !present.contains_key(*path))
            .map(|path| (path.clone(), None))
            .collect();
        for (path, rlp) in present {
            if self.read.get(&path) != Some(&rlp) {
                changes.insert(path, Some(rlp));
            }
        }
        (root, changes)
    }

    /// Reads the node that a link names; inline nodes are taken as they are.
    fn load(&mut self, link: Link, at: &[u8]) -> Result<Link, StateError> {
        let Link::Stored(hash) = link else { return Ok(link) };
        let rlp = fetch(self.store, at, hash)?;
        let node = decode(&rlp)?;
        self.read.insert(at.to_vec(), rlp);
        Ok(Link::Node(Box::new(node)))
    }

    fn insert(
        &mut self,
        link: Link,
        at: &mut Vec<u8>,
        key: &[u8],
        value: Vec<u8>,
    ) -> Result<Link, StateError> {
        let Link::Node(node) = self.load(link, at)? else {
            return Ok(Link::Node(Box::new(Node::Leaf {
                path: key.to_vec(),
                value,
            })));
        };
        let node = match *node {
            Node::Leaf { path, .. } if path == key => Node::Leaf { path, value },
            Node::Leaf { path, value: old } => {
                let shared = common(&path, key);
                let mut children = no_children();
                children[usize::from(path[shared])] = Link::Node(Box::new(Node::Leaf {
                    path: path[shared + 1..].to_vec(),
                    value: old,
                }));
                children[usize::from(key[shared])] = Link::Node(Box::new(Node::Leaf {
                    path: key[shared + 1..].to_vec(),
                    value,
                }));
                extend(&key[..shared], Node::Branch(children))
            }
            Node::Extension { path, child } => {
                let shared = common(&path, key);
                if shared == path.len() {
                    at.extend_from_slice(&path);
                    let child = self.insert(child, at, &key[shared..], value)?;
                    at.truncate(at.len() - path.len());
                    Node::Extension { path, child }
                } else {
                    let mut children = no_children();
                    children[usize::from(path[shared])] = if shared + 1 == path.len() {
                        child
                    } else {
                        Link::Node(Box::new(Node::Extension {
                            path: path[shared + 1..].to_vec(),
                            child,
                        }))
                    };
                    children[usize::from(key[shared])] = Link::Node(Box::new(Node::Leaf {
                        path: key[shared + 1..].to_vec(),
                        value,
                    }));
                    extend(&key[..shared], Node::Branch(children))
                }
            }
            Node::Branch(mut children) => {
                let slot = usize::from(key[0]);
                let child = std::mem::replace(&mut children[slot], Link::Empty);
                at.push(key[0]);
                children[slot] = self.insert(child, at, &key[1..], value)?;
                at.pop();
                Node::Branch(children)
            }
        };
        Ok(Link::Node(Box::new(node)))
    }

    fn remove(&mut self, link: Link, at: &mut Vec<u8>, key: &[u8]) -> Result<Link, StateError> {
        let Link::Node(node) = self.load(link, at)? else {
            return Ok(Link::Empty);
        };
        match *node {
            Node::Leaf { path, .. } if path == key => Ok(Link::Empty),
            leaf @ Node::Leaf { .. } => Ok(Link::Node(Box::new(leaf))),
            Node::Extension { path, child } => {
                if !key.starts_with(&path) {
                    return Ok(Link::Node(Box::new(Node::Extension { path, child })));
                }
                at.extend_from_slice(&path);
                let child = self.remove(child, at, &key[path.len()..])?;
                at.truncate(at.len() - path.len());
                Ok(prepend(path, child))
            }
            Node::Branch(mut children) => {
                let slot = usize::from(key[0]);
                let child = std::mem::replace(&mut children[slot], Link::Empty);
                at.push(key[0]);
                children[slot] = self.remove(child, at, &key[1..])?;
                at.pop();
                self.collapse(children, at)
            }
        }
    }

    /// A branch with one child left is no branch: the child takes its place.
    fn collapse(&mut self, mut children: Box<[Link; 16]>, at: &mut Vec<u8>) -> Result<Link, StateError> {
        let mut left = (0u8..16).filter(|i| !matches!(children[usize::from(*i)], Link::Empty));
        let (Some(only), None) = (left.next(), left.next()) else {
            return Ok(Link::Node(Box::new(Node::Branch(children))));
        };
        let child = std::mem::replace(&mut children[usize::from(only)], Link::Empty);
        at.push(only);
        // Its kind decides how the paths join, so it must be read.
        let child = self.load(child, at)?;
        at.pop();
        Ok(prepend(vec![only], child))
    }
}

/// The nodes from the root to a key (or to where its absence shows), as `eth_getProof` wants them.
pub(crate) fn prove<S: NodeStore>(store: &S, root: B256, key: B256) -> Result<Vec<Vec<u8>>, StateError> {
    let mut proof = Vec::new();
    if root == EMPTY_ROOT {
        return Ok(proof);
    }
    let key = nibbles_of(key);
    let mut depth = 0;
    let mut link = Link::Stored(root);
    loop {
        let node = match link {
            Link::Empty => return Ok(proof),
            Link::Stored(hash) => {
                let rlp = fetch(store, &key[..depth], hash)?;
                let node = decode(&rlp)?;
                proof.push(rlp);
                node
            }
            // Inside its parent, which the proof already holds.
            Link::Node(node) => *node,
        };
        link = match node {
            Node::Leaf { .. } => return Ok(proof),
            Node::Extension { path, child } if key[depth..].starts_with(&path) => {
                depth += path.len();
                child
            }
            Node::Extension { .. } => return Ok(proof),
            Node::Branch(mut children) => {
                // A branch at depth 64 would need longer keys; a damaged record could claim one.
                let Some(nibble) = key.get(depth) else {
                    return Err(StateError::corrupt("trie branch below a full key"));
                };
                depth += 1;
                std::mem::replace(&mut children[usize::from(*nibble)], Link::Empty)
            }
        };
    }
}

fn fetch<S: NodeStore>(store: &S, at: &[u8], hash: B256) -> Result<Vec<u8>, StateError> {
    let rlp = store
        .node(at)?
        .ok_or_else(|| StateError::corrupt(format!("trie node {} is missing", hex::encode(at))))?;
    if keccak256(&rlp) != hash {
        return Err(StateError::corrupt(format!(
            "trie node {} does not hash to its link",
            hex::encode(at)
        )));
    }
    Ok(rlp)
}

fn no_children() -> Box<[Link; 16]> {
    Box::new(std::array::from_fn(|_| Link::Empty))
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

fn extend(path: &[u8], branch: Node) -> Node {
    if path.is_empty() {
        branch
    } else {
        Node::Extension {
            path: path.to_vec(),
            child: Link::Node(Box::new(branch)),
        }
    }
}

/// Puts a path before a child: leaves and extensions grow, branches get an extension.
fn prepend(mut path: Vec<u8>, child: Link) -> Link {
    let node = match child {
        Link::Empty => return Link::Empty,
        Link::Node(node) => match *node {
            Node::Leaf { path: rest, value } => {
                path.extend(rest);
                Node::Leaf { path, value }
            }
            Node::Extension { path: rest, child } => {
                path.extend(rest);
                Node::Extension { path, child }
            }
            branch @ Node::Branch(_) => Node::Extension {
                path,
                child: Link::Node(Box::new(branch)),
            },
        },
        stored @ Link::Stored(_) => Node::Extension { path, child: stored },
    };
    Link::Node(Box::new(node))
}

fn nibbles_of(key: B256) -> Vec<u8> {
    key.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect()
}

/// Hex-prefix encoding of a path (yellow paper, appendix C).
fn hex_prefix(path: &[u8], leaf: bool) -> Vec<u8> {
    let flag = if leaf { 2 } else { 0 };
    let (mut out, rest) = if path.len() % 2 == 1 {
        (vec![(flag + 1) << 4 | path[0]], &path[1..])
    } else {
        (vec![flag << 4], path)
    };
    out.extend(rest.chunks(2).map(|pair| pair[0] << 4 | pair[1]));
    out
}

/// RLP of a node; its descendants that need a record are added to `present`.
fn encode(node: &Node, at: &mut Vec<u8>, present: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut items = Vec::new();
    match node {
        Node::Leaf { path, value } => {
            hex_prefix(path, true).as_slice().encode(&mut items);
            value.as_slice().encode(&mut items);
        }
        Node::Extension { path, child } => {
            hex_prefix(path, false).as_slice().encode(&mut items);
            at.extend_from_slice(path);
            items.put_slice(&reference(child, at, present));
            at.truncate(at.len() - path.len());
        }
        Node::Branch(children) => {
            for (nibble, child) in (0u8..).zip(children.iter()) {
                at.push(nibble);
                items.put_slice(&reference(child, at, present));
                at.pop();
            }
            items.put_u8(alloy_rlp::EMPTY_STRING_CODE);
        }
    }
    let mut rlp = Vec::with_capacity(items.len() + 3);
    Header {
        list: true,
        payload_length: items.len(),
    }
    .encode(&mut rlp);
    rlp.extend_from_slice(&items);
    rlp
}

/// How a parent names a child: its hash, or itself where that is shorter.
fn reference(link: &Link, at: &mut Vec<u8>, present: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    match link {
        Link::Empty => vec![alloy_rlp::EMPTY_STRING_CODE],
        Link::Stored(hash) => alloy_rlp::encode(hash),
        Link::Node(node) => {
            let rlp = encode(node, at, present);
            if rlp.len() < 32 {
                return rlp;
            }
            let hash = keccak256(&rlp);
            present.insert(at.clone(), rlp);
            alloy_rlp::encode(hash)
        }
    }
}

fn decode(rlp: &[u8]) -> Result<Node, StateError> {
    let bad = |e: alloy_rlp::Error| StateError::corrupt(format!("trie node: {e}"));
    let mut rest = rlp;
    let mut list = Header::decode_bytes(&mut rest, true).map_err(bad)?;
    // Raw items, each with its header.
    let mut items: Vec<&[u8]> = Vec::with_capacity(17);
    while !list.is_empty() {
        let mut after = list;
        let header = Header::decode(&mut after).map_err(bad)?;
        let len = list.len() - after.len() + header.payload_length;
        let (item, tail) = list
            .split_at_checked(len)
            .ok_or_else(|| StateError::corrupt("trie node is cut off"))?;
        items.push(item);
        list = tail;
    }
    match items.as_slice() {
        [path, second] => {
            let mut path = *path;
            let bytes = Header::decode_bytes(&mut path, false).map_err(bad)?;
            let first = *bytes
                .first()
                .ok_or_else(|| StateError::corrupt("trie node has no path"))?;
            let mut nibbles = Vec::with_capacity(2 * bytes.len());
            if first >> 4 & 1 == 1 {
                nibbles.push(first & 15);
            }
            nibbles.extend(bytes[1..].iter().flat_map(|b| [b >> 4, b & 15]));
            if first >> 4 & 2 == 2 {
                let mut value = *second;
                let value = Header::decode_bytes(&mut value, false).map_err(bad)?.to_vec();
                Ok(Node::Leaf { path: nibbles, value })
            } else {
                Ok(Node::Extension {
                    path: nibbles,
                    child: decode_link(second)?,
                })
            }
        }
        children if children.len() == 17 => {
            let mut links = no_children();
            for (link, item) in links.iter_mut().zip(children) {
                *link = decode_link(item)?;
            }
            Ok(Node::Branch(links))
        }
        other => Err(StateError::corrupt(format!("trie node of {} items", other.len()))),
    }
}

fn decode_link(item: &[u8]) -> Result<Link, StateError> {
    match item {
        [alloy_rlp::EMPTY_STRING_CODE] => Ok(Link::Empty),
        [0xa0, hash @ ..] if hash.len() == 32 => Ok(Link::Stored(B256::from_slice(hash))),
        [first, ..] if *first >= 0xc0 => Ok(Link::Node(Box::new(decode(item)?))),
        _ => Err(StateError::corrupt("trie link is neither hash nor node")),
    }
}

#[cfg(test)]
#[path = "trie_tests.rs"]
mod tests;
