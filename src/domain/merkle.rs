//! Merkle tree hashes, as RFC 9162 (section 2.1) defines them: one hash stands for many entries, and a
//! path of a few hashes proves that one of them is among these, without showing the others.

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash of a leaf or of a node.
pub type TreeHash = [u8; 32];

/// What the hash of a leaf begins with, so that no node can pass for a leaf.
pub const LEAF_PREFIX: u8 = 0;
/// What the hash of a node begins with.
const NODE_PREFIX: u8 = 1;

fn node(left: &TreeHash, right: &TreeHash) -> TreeHash {
    Sha256::new().chain_update([NODE_PREFIX]).chain_update(left).chain_update(right).finalize().into()
}

/// Where a list of at least two leaves is split: the largest power of two below its length.
const fn middle(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// The hash of a tree with these leaves.
pub fn root(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [only] => *only,
        many => {
            let (left, right) = many.split_at(middle(many.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The hashes that lead from the leaf at `index` to the root, from below; empty for a leaf that is not
/// there.
pub fn path(leaves: &[TreeHash], index: usize) -> Vec<TreeHash> {
    if leaves.len() < 2 || index >= leaves.len() {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(middle(leaves.len()));
    let (mut below, beside) = match index.checked_sub(left.len()) {
        None => (path(left, index), root(right)),
        Some(index) => (path(right, index), root(left)),
    };
    below.push(beside);
    below
}

/// The root to which a path leads from a leaf of a tree with `count` leaves; `None` if it cannot be one.
pub fn root_of_path(leaf: TreeHash, index: u64, count: u64, path: &[TreeHash]) -> Option<TreeHash> {
    if index >= count {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, count - 1, leaf);
    for beside in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(beside, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(content: &[u8]) -> TreeHash {
        Sha256::new().chain_update([LEAF_PREFIX]).chain_update(content).finalize().into()
    }

    fn hex(hash: TreeHash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The test vectors of Certificate Transparency's reference implementation.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let contents: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let leaves: Vec<TreeHash> = contents.into_iter().map(leaf).collect();
        assert_eq!(hex(root(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(root(&leaves[..1])), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(hex(root(&leaves)), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn a_path_leads_from_its_own_leaf_to_the_root_and_from_no_other() {
        let leaves: Vec<TreeHash> = (0..40_u8).map(|n| leaf(&[n])).collect();
        for count in 1..=leaves.len() {
            let (tree, size) = (&leaves[..count], count as u64);
            for (index, own) in tree.iter().enumerate() {
                let (path, at) = (path(tree, index), index as u64);
                assert_eq!(root_of_path(*own, at, size, &path), Some(root(tree)), "{index} of {count}");
                assert_ne!(root_of_path(leaf(b"x"), at, size, &path), Some(root(tree)));
                if count > 1 {
                    let other = (at + 1) % size;
                    assert_ne!(root_of_path(*own, other, size, &path), Some(root(tree)), "{index} as {other}");
                    assert_eq!(root_of_path(*own, at, size, &path[1..]).filter(|hash| *hash == root(tree)), None);
                }
            }
        }
        assert!(path(&leaves, 40).is_empty());
        assert_eq!(root_of_path(leaves[0], 1, 1, &[]), None);
    }
}
