use proptest::prelude::*;

use super::*;

fn terms(size_bytes: u64) -> NegotiatedExport {
    NegotiatedExport { size_bytes, writable: true, structured: true, base_allocation: true }
}

fn any_request() -> impl Strategy<Value = Request> {
    // Near the borders more often than far from them.
    let offset = prop_oneof![0..2_000_000u64, any::<u64>(), (u64::MAX - 4096)..=u64::MAX];
    let length = prop_oneof![0..100_000u32, any::<u32>()];
    let flags = prop_oneof![Just(0u16), 0..32u16, any::<u16>()];
    let command = prop_oneof![0..9u16, any::<u16>()];
    (flags, command, any::<u64>(), offset, length).prop_map(|(flags, command, cookie, offset, length)| {
        Request { flags, command, cookie, offset, length }
    })
}

proptest! {
    #[test]
    fn what_is_granted_lies_within_the_disk_and_the_agreement(
        request in any_request(),
        size_bytes in 0..2_000_000u64,
        writable: bool,
        structured: bool,
        allocation: bool,
    ) {
        let terms = NegotiatedExport { size_bytes, writable, structured, base_allocation: allocation };
        let Ok(command) = check(&request, &terms) else { return Ok(()) };
        if command != Command::Disconnect {
            let end = request.offset.checked_add(u64::from(request.length));
            prop_assert!(end.is_some_and(|end| end <= size_bytes));
        }
        match command {
            Command::Write { .. } | Command::WriteZeroes { .. } | Command::Trim { .. } => prop_assert!(writable),
            Command::BlockStatus { .. } => prop_assert!(allocation && request.length > 0),
            Command::Read { whole } => prop_assert!(structured || !whole),
            Command::Flush | Command::Cache | Command::Disconnect => {}
        }
    }
}

#[test]
fn a_read_only_export_refuses_every_kind_of_writing() {
    let terms = NegotiatedExport { writable: false, ..terms(4096) };
    for command in [CMD_WRITE, CMD_WRITE_ZEROES, CMD_TRIM] {
        let request = Request { flags: 0, command, cookie: 1, offset: 0, length: 512 };
        assert_eq!(check(&request, &terms).unwrap_err().errno, EPERM);
    }
}

#[test]
fn reading_beyond_the_end_is_invalid_and_writing_there_finds_no_space() {
    let request = Request { flags: 0, command: CMD_READ, cookie: 1, offset: 4000, length: 97 };
    assert_eq!(check(&request, &terms(4096)).unwrap_err().errno, EINVAL);
    let request = Request { command: CMD_WRITE, ..request };
    assert_eq!(check(&request, &terms(4096)).unwrap_err().errno, ENOSPC);
}
