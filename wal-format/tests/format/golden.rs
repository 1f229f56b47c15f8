//! Dumps of every shape, kept beside the crate. `UPDATE=1 cargo test -p wal-format` rewrites them; a changed
//! line is a changed format.

use crate::samples::{ENTRY_KINDS, entry, segment};
use std::fmt::Write as _;
use std::path::Path;

type Fields = Vec<(&'static str, usize)>;

/// A dump: offset, bytes and what they are, one field a line; whatever is left is padding.
fn dump(title: &str, bytes: &[u8], fields: &Fields) -> String {
    let mut text = format!("# {title}: {} bytes\n", bytes.len());
    let mut offset = 0;
    for (name, count) in fields {
        let mut label = *name;
        for line in bytes[offset..offset + count].chunks(16) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let line_text = format!("{offset:04x}  {:47}  {label}", hex.join(" "));
            writeln!(text, "{}", line_text.trim_end()).unwrap();
            offset += line.len();
            label = "";
        }
    }
    let padding = &bytes[offset..];
    assert!(padding.iter().all(|byte| *byte == 0), "the dump of {title} names every field");
    writeln!(text, "{offset:04x}  zeros to {:04x}", bytes.len()).unwrap();
    text
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{name} is no longer what golden/{name}.hex shows; it is now:\n{text}");
}

fn frame_header() -> Fields {
    vec![
        ("magic", 4),
        ("checksum", 4),
        ("version", 2),
        ("kind", 1),
        ("zero", 1),
        ("blocks", 4),
        ("body bytes", 4),
        ("sequence", 4),
        ("segment number", 8),
        ("salt", 8),
        ("previous hash", 8),
    ]
}

fn section() -> Fields {
    vec![("section kind, zeros", 4), ("section length", 4)]
}

fn tail() -> Fields {
    vec![
        ("group, zeros", 8),
        ("term", 8),
        ("vote", 8),
        ("commit hint", 8),
        ("last index", 8),
        ("last term", 8),
    ]
}

fn position(index: &'static str, term: &'static str) -> Fields {
    vec![(index, 8), (term, 8)]
}

fn entry_fields(body: usize) -> Fields {
    vec![
        ("entry checksum", 4),
        ("entry length", 4),
        ("group", 4),
        ("entry kind, version, zeros", 4),
        ("term", 8),
        ("index", 8),
        ("keyspace", 4),
        ("principal", 4),
        ("session", 8),
        ("sequence", 8),
        ("low water", 8),
        ("auth revision", 8),
        ("body", body),
    ]
}

fn batch(bodies: &[usize]) -> Fields {
    let mut fields = [section(), tail(), vec![("run kind, zeros", 4)]].concat();
    fields.extend(position("previous index", "previous term"));
    fields.extend([("first index", 8), ("last index", 8)]);
    fields.extend(bodies.iter().flat_map(|body| entry_fields(*body)));
    fields
}

fn member(name: usize) -> Fields {
    vec![
        ("member id", 8),
        ("directory id", 8),
        ("member kind, zeros", 4),
        ("name length", 4),
        ("name", name),
        ("address length", 4),
        ("address", name + 5),
    ]
}

fn fields_of(name: &str) -> Fields {
    let body = match name {
        "opening" => {
            let identity: Fields =
                vec![("directory id", 8), ("cluster id", 8), ("member id", 8), ("shard, zeros", 8)];
            let configuration: Fields =
                vec![("counts for nothing, zeros", 4), ("configuration index", 8), ("members", 4)];
            let snapshot = position("snapshot index", "snapshot term");
            let mut fields = [section(), identity, section(), tail(), snapshot, configuration].concat();
            for name in [3, 3, 5, 4] {
                fields.extend(member(name));
            }
            fields
        }
        "batch" => [section(), tail(), batch(&[0, 7]), batch(&[0])].concat(),
        "seal" => [section(), tail(), tail()].concat(),
        "reset" => {
            let repeat = [section(), tail(), tail()].concat();
            let snapshot = position("snapshot index", "snapshot term");
            [repeat, section(), tail(), vec![("reset kind, zeros", 4)], snapshot].concat()
        }
        other => panic!("no fields for {other}"),
    };
    [frame_header(), body].concat()
}

#[test]
fn frames_are_the_bytes_they_always_were() {
    for sample in segment() {
        compare(sample.name, &dump(sample.name, &sample.bytes, &fields_of(sample.name)));
    }
}

#[test]
fn entries_are_the_bytes_they_always_were() {
    for (kind, name, body) in ENTRY_KINDS {
        let bytes = entry(kind, 7, 10, 4, body);
        compare(&format!("entry-{name}"), &dump(name, &bytes, &entry_fields(body.len())));
    }
}
