//! The source as text that can be asked questions: which room, which code, which paths.
//!
//! What always holds: comments, strings and characters are blanked out of `code` byte for byte, so that offsets and
//! line numbers stay those of the file. What it leaves out: it is a scanner, not a parser; what it must understand
//! (paths, `use` groups, inline modules, test-only items) it has tests for.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One file of Rust.
pub(super) struct Source {
    /// From the repository's root, with `/`.
    pub(super) path: String,
    /// As it is on disk.
    pub(super) text: String,
    /// The same bytes with comments, strings and characters blanked.
    pub(super) code: String,
    /// Which bytes only a test build has.
    test_only: Vec<Range<usize>>,
}

/// A path as written, `use` groups spread out: `crate::{a, b::c}` is two of them.
pub(super) struct NamedPath {
    pub(super) offset: usize,
    pub(super) segments: Vec<String>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = blank_text(text);
        let test_only = test_items(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, test_only }
    }

    /// Every Rust file of the workspace, in order of path.
    pub(super) fn all() -> Vec<Self> {
        let root = root();
        let mut paths = Vec::new();
        for folder in ["src", "wal-format", "bench-harness"] {
            files_below(&root.join(folder), "rs", &mut paths);
        }
        let mut sources: Vec<Self> = paths
            .iter()
            .map(|path| {
                Self::new(&relative(path), &fs::read_to_string(path).expect("a readable source file"))
            })
            .collect();
        mark_test_files(&mut sources);
        sources
    }

    /// The room the file belongs to: the folder in `src`, the file's own name for those beside `lib.rs`, or the
    /// crate for those of another crate.
    pub(super) fn room(&self) -> &str {
        match self.path.strip_prefix("src/") {
            Some(inside) => inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"),
            None => self.path.split('/').next().unwrap_or(&self.path),
        }
    }

    /// `path:line`, for a message.
    pub(super) fn place(&self, offset: usize) -> String {
        let line = self.text[..offset].matches('\n').count() + 1;
        format!("{}:{line}", self.path)
    }

    pub(super) fn is_test_only(&self, offset: usize) -> bool {
        self.test_only.iter().any(|range| range.contains(&offset))
    }

    /// Offsets at which `word` stands in the code as a whole word.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        self.code.match_indices(word).map(|(offset, _)| offset).filter(move |&offset| {
            let before = offset.checked_sub(1).map(|at| bytes[at]);
            let after = bytes.get(offset + word.len()).copied();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    }

    /// Every path of two or more segments in the code.
    pub(super) fn paths(&self) -> Vec<NamedPath> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let starts = is_word(bytes[at]) && (at == 0 || !is_word(bytes[at - 1]));
            if starts && !self.code[..at].trim_end().ends_with("::") {
                let mut tree = UseTree { bytes, at, found: Vec::new() };
                tree.read(&[]);
                at = tree.at;
                found.extend(tree.found.into_iter().filter(|path| path.segments.len() > 1));
            } else {
                at += 1;
            }
        }
        found
    }

    /// How many modules, inline ones included, enclose the code at `offset`; 0 is the crate's root.
    pub(super) fn depth(&self, offset: usize) -> usize {
        let folders = self.path.matches('/').count();
        let is_front = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| self.path.ends_with(name));
        let mut open = Vec::new();
        for (at, byte) in self.code.as_bytes()[..offset].iter().enumerate() {
            match byte {
                b'{' => open.push(opens_module(&self.code[..at])),
                b'}' => drop(open.pop()),
                _ => {}
            }
        }
        folders - usize::from(is_front) + open.iter().filter(|is_module| **is_module).count()
    }
}

pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` whose names end in `.extension`, in order of path.
pub(super) fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

/// A path from the repository's root, with `/`.
pub(super) fn relative(path: &Path) -> String {
    let inside = path.strip_prefix(root()).expect("a path below the root");
    inside.to_string_lossy().replace('\\', "/")
}

/// Marks files that a parent declares as `#[cfg(test)] mod name;`, and all below them, as test-only; and the files of
/// a package's `tests` folder, which are nothing else.
fn mark_test_files(sources: &mut [Source]) {
    let mut test_modules = Vec::new();
    for source in &*sources {
        let stem = source.path.trim_end_matches(".rs");
        let is_front = ["mod", "lib", "main"].iter().any(|name| stem.ends_with(&format!("/{name}")));
        let home = if is_front { stem.rsplit_once('/').map_or("", |(folder, _)| folder) } else { stem };
        for range in &source.test_only {
            let declaration = source.code[range.clone()].trim_end();
            let name = declaration.strip_suffix(';').and_then(|rest| rest.split_once("mod "));
            if let Some((_, name)) = name {
                test_modules.push(format!("{home}/{}", name.trim()));
            }
        }
    }
    for source in sources {
        let is_test = test_modules.iter().any(|module| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
        if is_test || source.path.contains("/tests/") {
            source.test_only = std::iter::once(0..source.code.len() + 1).collect();
        }
    }
}

/// A reader of `a::b::{c, d as e, f::*}`.
struct UseTree<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Vec<NamedPath>,
}

impl UseTree<'_> {
    fn read(&mut self, prefix: &[String]) {
        let offset = self.at;
        let mut segments = prefix.to_vec();
        loop {
            self.skip_spaces();
            match self.bytes.get(self.at) {
                Some(b'{') if !segments.is_empty() => return self.read_group(&segments),
                Some(b'*') => {
                    self.at += 1;
                    segments.push("*".to_owned());
                    break;
                }
                Some(byte) if is_word(*byte) => segments.push(self.word()),
                Some(_) | None => break,
            }
            let end = self.at;
            self.skip_spaces();
            if !self.bytes[self.at..].starts_with(b"::") {
                self.at = end;
                break;
            }
            self.at += 2;
        }
        self.found.push(NamedPath { offset, segments });
    }

    fn read_group(&mut self, prefix: &[String]) {
        self.at += 1;
        while self.at < self.bytes.len() && self.bytes[self.at] != b'}' {
            self.skip_spaces();
            if self.bytes.get(self.at).is_some_and(|byte| is_word(*byte) || *byte == b'*') {
                self.read(prefix);
            }
            // Past `as name`, if any, to the comma or the end of the group.
            while self.at < self.bytes.len() && !matches!(self.bytes[self.at], b',' | b'}') {
                self.at += 1;
            }
            if self.bytes.get(self.at) == Some(&b',') {
                self.at += 1;
            }
            self.skip_spaces();
        }
        self.at = (self.at + 1).min(self.bytes.len());
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(|byte| is_word(*byte)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }

    fn skip_spaces(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether the code ends in `mod name`, so that the brace after it opens a module.
fn opens_module(code: &str) -> bool {
    let mut words = code.trim_end().rsplit(|c: char| c.is_whitespace()).filter(|word| !word.is_empty());
    let name = words.next().unwrap_or("");
    name.bytes().all(is_word) && words.next() == Some("mod")
}

/// The items under `#[cfg(test)]`, attributes included, up to their `;` or closing brace.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for marker in ["#[cfg(test)]", "#[cfg(all(test", "#[test]"] {
        for (start, _) in code.match_indices(marker) {
            let end = item_end(code.as_bytes(), start + marker.len());
            ranges.push(start..end);
        }
    }
    ranges
}

fn item_end(code: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < code.len() {
        match code[at] {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The text with every byte of comments, strings and characters a space, newlines kept.
fn blank_text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + text_length(&bytes[at..], at > 0 && is_word(bytes[at - 1]));
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut code[at..end.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).expect("whole characters were replaced by spaces")
}

/// How many bytes of comment, string or character literal start here; 0 if none does.
fn text_length(rest: &[u8], is_inside_word: bool) -> usize {
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_length(rest),
        [b'"', ..] => quoted_length(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !is_inside_word => raw_string_length(rest, 1),
        [b'b', b'r', b'"' | b'#', ..] if !is_inside_word => raw_string_length(rest, 2),
        [b'\'', b'\\', ..] => quoted_length(rest, b'\''),
        [b'\'', ..] => character_length(rest),
        _ => 0,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string_length(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return 0;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = prefix + hashes + 1;
    let end = rest[body..].windows(closing.len()).position(|window| window == closing);
    end.map_or(rest.len(), |end| body + end + closing.len())
}

/// `'x'` is a character; `'a` is a lifetime and stays.
fn character_length(rest: &[u8]) -> usize {
    let end = rest.iter().take(6).skip(1).position(|byte| *byte == b'\'').map(|at| at + 2);
    let one_character = end
        .filter(|end| std::str::from_utf8(&rest[1..end - 1]).is_ok_and(|inner| inner.chars().count() == 1));
    one_character.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Source;

    fn paths(text: &str) -> Vec<String> {
        Source::new("src/raft/node.rs", text).paths().iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let text =
            "a // kv\n/* b /* kv */ kv */ c \"kv \\\" kv\" r#\"kv\" kv\"# 'k' '\\'' fn f<'kv>() b\"kv\"";
        let source = Source::new("src/raft/node.rs", text);
        assert_eq!(source.words("kv").count(), 1, "the lifetime alone is code: {}", source.code);
        assert_eq!(source.code.len(), text.len());
    }

    #[test]
    fn groups_of_use_are_spread_out() {
        let text =
            "use crate::{ids::Term, kv::{self as store, Command}, raft::*};\nlet x = crate::api :: Request;";
        let expected = [
            "crate::ids::Term",
            "crate::kv::self",
            "crate::kv::Command",
            "crate::raft::*",
            "crate::api::Request",
        ];
        assert_eq!(paths(text), expected);
    }

    #[test]
    fn test_items_end_where_their_braces_do() {
        let source =
            Source::new("src/raft/node.rs", "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}");
        let is_test = |name| source.words(name).map(|at| source.is_test_only(at)).collect::<Vec<_>>();
        assert_eq!([is_test("a"), is_test("b"), is_test("c")], [[false], [true], [false]]);
    }

    #[test]
    fn a_file_declared_for_tests_is_test_only_with_all_below_it() {
        let mut sources = [
            Source::new("src/raft/mod.rs", "#[cfg(test)]\nmod script;\nmod node;"),
            Source::new("src/raft/script.rs", "fn a() {}"),
            Source::new("src/raft/script/parse.rs", "fn a() {}"),
            Source::new("src/raft/node.rs", "fn a() {}"),
        ];
        super::mark_test_files(&mut sources);
        let is_test: Vec<bool> = sources[1..].iter().map(|source| source.is_test_only(0)).collect();
        assert_eq!(is_test, [true, true, false]);
    }

    #[test]
    fn depth_counts_folders_files_and_inline_modules() {
        let text = "fn a() {}\nmod tests {\n    fn b() { here }\n}\nfn c() {}";
        let depth = |path, word| {
            let source = Source::new(path, text);
            source.depth(source.words(word).next().expect("the word is there"))
        };
        assert_eq!(depth("src/raft/mod.rs", "a"), 1);
        assert_eq!(depth("src/raft/node.rs", "here"), 3);
        assert_eq!(depth("src/raft/node.rs", "c"), 2);
    }
}
