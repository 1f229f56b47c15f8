//! The file of a bbolt database, which etcd keeps its pairs in, as bytes: written from front to back, and never read.
//!
//! ```text
//!   page 0, 1       what the database is, twice: its root, its size, a checksum      (`front`)
//!   page 2          which pages are free: none
//!   page 3          the root: a leaf with all buckets, the small ones within it
//!   page 4 ...      the trees of the large ones, each page before the one that points to it      (`Tree`)
//!
//!   a page          id u64 | kind u16 | elements u16 | further pages u32 | elements | keys and values
//!   a leaf's        kind u32 | from here to the key u32 | key bytes u32 | value bytes u32
//!   a branch's      from here to the key u32 | key bytes u32 | page of the child u64
//!   a bucket        page of its root u64, 0: it follows | sequence u64 | a page, if it follows
//! ```
//!
//! Always: numbers are little-endian, as the machines write them that etcd runs on; a page has 4,096 bytes, or one element
//! that takes several; a tree holds one page a level in memory, whatever its size. That works because children come before
//! their parents, so that a parent is complete, and is let go, as soon as no more fits into it. The front names the roots of
//! trees that come behind it: who streams a file makes the trees twice, and forgets the bytes of the first time.
//!
//! The format is fixed by bbolt (version 2 of its file). Left out: what the buckets hold (`database.rs`).

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 4_096;

/// Pages before the first tree.
pub(super) const FRONT_PAGES: u64 = 4;

const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;

const IS_BRANCH: u16 = 0x01;
const IS_LEAF: u16 = 0x02;
const IS_META: u16 = 0x04;
const IS_FREE_LIST: u16 = 0x10;

const MAGIC: u32 = 0xED0C_DAED;
const FORMAT_VERSION: u32 = 2;
const FREE_LIST_PAGE: u64 = 2;
const ROOT_PAGE: u64 = 3;

/// A bucket of the root.
#[derive(Debug)]
pub(super) enum Bucket {
    /// A tree of its own, by its root; 0: an empty one.
    Tree(u64),
    /// A few pairs in ascending order of their keys, within the root.
    Within(Vec<(&'static str, Vec<u8>)>),
}

/// The pages before the first tree. `buckets` in ascending order of their names; `pages_count` of the whole file.
pub(super) fn front(buckets: &[(&str, Bucket)], pages_count: u64) -> Vec<u8> {
    let mut front = Vec::with_capacity(4 * PAGE_BYTES);
    // The newer of two transactions counts, and the next one overwrites the other's page.
    for (id, transaction) in [(0, 2), (1, 1)] {
        meta(id, transaction, pages_count, &mut front);
    }
    header(FREE_LIST_PAGE, IS_FREE_LIST, 0, 0, &mut front);
    pad(&mut front);
    let mut root = Page::new(IS_LEAF);
    for (name, bucket) in buckets {
        let value = match bucket {
            Bucket::Tree(0) => within(&[]),
            Bucket::Tree(page) => bucket_head(*page),
            Bucket::Within(pairs) => within(pairs),
        };
        root.add(name.as_bytes(), &value, Points::ToBucket);
    }
    let pages = root.write(ROOT_PAGE, &mut front);
    assert_eq!(ROOT_PAGE + pages, FRONT_PAGES, "the names of the buckets and what lies within fit in a page");
    front
}

fn meta(id: u64, transaction: u64, pages_count: u64, out: &mut Vec<u8>) {
    header(id, IS_META, 0, 0, out);
    let start = out.len();
    for number in [MAGIC, FORMAT_VERSION, length(PAGE_BYTES), 0] {
        out.extend(number.to_le_bytes());
    }
    out.extend(bucket_head(ROOT_PAGE));
    for number in [FREE_LIST_PAGE, pages_count, transaction] {
        out.extend(number.to_le_bytes());
    }
    let checksum = fnv1a(&out[start..]);
    out.extend(checksum.to_le_bytes());
    pad(out);
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn bucket_head(root: u64) -> Vec<u8> {
    [root.to_le_bytes(), 0_u64.to_le_bytes()].concat()
}

/// A bucket that follows where it is named.
fn within(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut page = Page::new(IS_LEAF);
    for (key, value) in pairs {
        page.add(key.as_bytes(), value, Points::Nowhere);
    }
    let mut value = bucket_head(0);
    page.write_unpadded(0, 0, &mut value);
    value
}

fn header(id: u64, kind: u16, elements: u16, further_pages: u32, out: &mut Vec<u8>) {
    out.extend(id.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(elements.to_le_bytes());
    out.extend(further_pages.to_le_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("requests are far smaller than 4 GiB")
}

/// Where an element leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Points {
    /// It is a key and a value.
    Nowhere,
    ToBucket,
    /// It is a branch's, and this is the page.
    ToChild(u64),
}

/// A page that is being filled.
#[derive(Debug)]
struct Page {
    kind: u16,
    elements: Vec<Element>,
    /// The keys and values of all elements, one behind the other.
    contents: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Element {
    points: Points,
    key_bytes: usize,
    value_bytes: usize,
}

impl Page {
    const fn new(kind: u16) -> Self {
        Self { kind, elements: Vec::new(), contents: Vec::new() }
    }

    fn bytes(&self) -> usize {
        HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.contents.len()
    }

    /// Whether a further element of so many bytes fits; into an empty page, which may take several, any does.
    fn has_room(&self, bytes: usize) -> bool {
        self.elements.is_empty() || self.bytes() + ELEMENT_BYTES + bytes <= PAGE_BYTES
    }

    fn add(&mut self, key: &[u8], value: &[u8], points: Points) {
        self.elements.push(Element { points, key_bytes: key.len(), value_bytes: value.len() });
        self.contents.extend_from_slice(key);
        self.contents.extend_from_slice(value);
    }

    /// None if there is no element.
    fn first_key(&self) -> Option<Vec<u8>> {
        self.elements.first().map(|first| self.contents[..first.key_bytes].to_vec())
    }

    /// The page as bytes; how many pages it takes.
    fn write(&self, id: u64, out: &mut Vec<u8>) -> u64 {
        let pages = self.bytes().div_ceil(PAGE_BYTES);
        self.write_unpadded(id, length(pages - 1), out);
        pad(out);
        pages as u64
    }

    fn write_unpadded(&self, id: u64, further_pages: u32, out: &mut Vec<u8>) {
        let count = u16::try_from(self.elements.len()).expect("a page has room for a few hundred elements");
        header(id, self.kind, count, further_pages, out);
        let mut at = 0;
        for (position, element) in self.elements.iter().enumerate() {
            let to_key = length((self.elements.len() - position) * ELEMENT_BYTES + at);
            let key_bytes = length(element.key_bytes);
            let value_bytes = length(element.value_bytes);
            match element.points {
                Points::Nowhere => words(&[0, to_key, key_bytes, value_bytes], out),
                Points::ToBucket => words(&[1, to_key, key_bytes, value_bytes], out),
                Points::ToChild(page) => {
                    words(&[to_key, key_bytes], out);
                    out.extend(page.to_le_bytes());
                }
            }
            at += element.key_bytes + element.value_bytes;
        }
        out.extend_from_slice(&self.contents);
    }
}

fn words(words: &[u32], out: &mut Vec<u8>) {
    for word in words {
        out.extend(word.to_le_bytes());
    }
}

/// A tree that is being written, pair after pair.
#[derive(Debug)]
pub(super) struct Tree {
    /// The page that is written next.
    next_page: u64,
    leaf: Page,
    /// The branches that are being filled, lowest first.
    branches: Vec<Page>,
    last_key: Vec<u8>,
}

impl Tree {
    /// An empty tree whose first page will be this one.
    pub(super) const fn new(first_page: u64) -> Self {
        Self { next_page: first_page, leaf: Page::new(IS_LEAF), branches: Vec::new(), last_key: Vec::new() }
    }

    /// The next pair, in ascending order of keys. Whatever is complete by that is put into `out`.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        assert!(self.last_key.as_slice() < key, "a tree is written in ascending order of its keys");
        key.clone_into(&mut self.last_key);
        if !self.leaf.has_room(key.len() + value.len()) {
            self.close_leaf(out);
        }
        self.leaf.add(key, value, Points::Nowhere);
    }

    /// The rest of the tree is put into `out`; its root, 0 if it is empty, and the page behind it.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) -> (u64, u64) {
        self.close_leaf(out);
        let mut level = 0;
        while let Some(branch) = self.branches.get(level) {
            if level + 1 == self.branches.len()
                && let [Element { points: Points::ToChild(only), .. }] = branch.elements.as_slice()
            {
                return (*only, self.next_page);
            }
            self.close_branch(level, out);
            level += 1;
        }
        (0, self.next_page)
    }

    fn close_leaf(&mut self, out: &mut Vec<u8>) {
        if let Some(first_key) = self.leaf.first_key() {
            let leaf = core::mem::replace(&mut self.leaf, Page::new(IS_LEAF));
            self.write(&leaf, &first_key, 0, out);
        }
    }

    fn close_branch(&mut self, level: usize, out: &mut Vec<u8>) {
        let branch = core::mem::replace(&mut self.branches[level], Page::new(IS_BRANCH));
        let first_key = branch.first_key().expect("a branch has come to be with its first child");
        self.write(&branch, &first_key, level + 1, out);
    }

    /// Writes a page, and enters it into the branch above it.
    fn write(&mut self, page: &Page, first_key: &[u8], level_above: usize, out: &mut Vec<u8>) {
        let id = self.next_page;
        self.next_page += page.write(id, out);
        if level_above == self.branches.len() {
            self.branches.push(Page::new(IS_BRANCH));
        }
        if !self.branches[level_above].has_room(first_key.len()) {
            self.close_branch(level_above, out);
        }
        self.branches[level_above].add(first_key, &[], Points::ToChild(id));
    }
}
