//! Random commands: what always holds of the state, that bytes bring it back, and that other bytes are refused.

use super::*;
use crate::kv::KeyRange;
use crate::kv::properties::Random;
use crate::limits::AUTH_TOKEN_KEY_BYTES;
use crate::property;
use ::bytes::Bytes;

const NAMES: &[&str] = &["", "root", "ali", "app", "ops"];
const KEYS: &[&str] = &["", "a", "b", "b\0", "c"];

pub(crate) fn any_command(random: &mut Random) -> AuthCommand {
    fn name(random: &mut Random) -> String {
        random.one_of(NAMES).to_owned()
    }
    fn secret(random: &mut Random) -> Secret {
        Secret(Bytes::from(vec![7; usize::try_from(random.below(20)).expect("small")]))
    }
    fn range(random: &mut Random) -> KeyRange {
        let (start, end) = (random.one_of(KEYS), random.one_of(KEYS));
        let (start, end) = (Bytes::from_static(start.as_bytes()), Bytes::from_static(end.as_bytes()));
        match random.below(3) {
            0 => KeyRange::Key(start),
            1 => KeyRange::From(start),
            _ => KeyRange::Span { start, end },
        }
    }
    match random.below(14) {
        0 => AuthCommand::Enable { token_key: Secret(Bytes::from_static(&[7; AUTH_TOKEN_KEY_BYTES])) },
        1 => AuthCommand::Disable,
        2 => AuthCommand::AddUser { name: name(random), secret: Some(secret(random)) },
        3 => AuthCommand::AddUser { name: name(random), secret: None },
        4 => AuthCommand::DeleteUser { name: name(random) },
        5 => AuthCommand::ChangePassword { name: name(random), secret: secret(random) },
        6 => AuthCommand::GrantRole { user: name(random), role: name(random) },
        7 => AuthCommand::GrantRole { user: "root".to_owned(), role: "root".to_owned() },
        8 => AuthCommand::RevokeRole { user: name(random), role: name(random) },
        9 => AuthCommand::AddRole { name: name(random) },
        10 => AuthCommand::DeleteRole { name: name(random) },
        11 | 12 => {
            let access = random.one_of(&[Access::Read, Access::Write, Access::ReadWrite]);
            AuthCommand::GrantPermission { role: name(random), range: range(random), access }
        }
        _ => AuthCommand::RevokePermission { role: name(random), range: range(random) },
    }
}

fn any_state(random: &mut Random) -> Auth {
    let mut auth = Auth::new();
    for _ in 0..random.below(60) {
        let before = (auth.revision(), auth.state_hash());
        let result = auth.apply(&any_command(random));
        auth.assert_all_invariants();
        assert!(result.is_ok() || before == (auth.revision(), auth.state_hash()));
        assert!(before.0 <= auth.revision());
    }
    auth
}

#[test]
fn the_state_comes_back_from_its_bytes_and_a_part_of_them_is_refused() {
    property::hold(300, |seed| {
        let mut random = Random::new(seed);
        let auth = any_state(&mut random);
        let bytes = Bytes::from(auth.to_bytes());
        let restored = Auth::from_bytes(&bytes).expect("the bytes of a state");
        restored.assert_all_invariants();
        assert_eq!(restored, auth);
        assert_eq!(restored.to_bytes(), bytes);
        for length in 0..bytes.len() {
            assert!(Auth::from_bytes(&bytes.slice(..length)).is_err());
        }
    });
}

#[test]
fn damaged_bytes_of_a_state_are_refused_or_are_a_state() {
    property::hold(3_000, |seed| {
        let mut random = Random::new(seed);
        let mut bytes = any_state(&mut random).to_bytes();
        property::mutate(&mut bytes, || random.below(u64::MAX));
        let bytes = Bytes::from(bytes);
        if let Ok(auth) = Auth::from_bytes(&bytes) {
            auth.assert_all_invariants();
            assert_eq!(auth.to_bytes(), bytes, "equal states give equal bytes");
        }
    });
}

#[test]
fn commands_come_back_from_their_bytes_and_nothing_else_is_one() {
    property::hold(3_000, |seed| {
        let mut random = Random::new(seed);
        let command = any_command(&mut random);
        let bytes = Bytes::from(encode_command(&command));
        assert_eq!(decode_command(&bytes), Ok(command));
        for length in 0..bytes.len() {
            assert!(decode_command(&bytes.slice(..length)).is_err());
        }
        let mut damaged = bytes.to_vec();
        property::mutate(&mut damaged, || random.below(u64::MAX));
        let damaged = Bytes::from(damaged);
        if let Ok(command) = decode_command(&damaged) {
            assert_eq!(encode_command(&command), damaged, "one command has one form");
        }
    });
}

#[test]
fn a_newer_builds_bytes_are_told_from_damage() {
    let mut bytes = Auth::new().to_bytes();
    bytes[0] = 2;
    assert!(Auth::from_bytes(&Bytes::from(bytes)).is_err_and(Malformed::is_newer));
    assert!(Auth::from_bytes(&Bytes::new()).is_err_and(|malformed| !malformed.is_newer()));
}
